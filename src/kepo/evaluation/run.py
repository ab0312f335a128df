"""An evaluation from questions to records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.evaluation.asking import (
    OrderedQuestion,
    check_questions,
    content_of,
    conversations,
    ordered_questions,
    sampling_seed,
)
from kepo.evaluation.parts import Parts
from kepo.evaluation.scoring import reasoning_logps, score_completion
from kepo.evaluation.settings import Backend, EvaluationSettings
from kepo.prompts import prompt_text
from kepo.rewards.languages import note_unread_languages
from kepo.runs.evaluations import Record, to_table
from kepo.runs.manifest import installed_versions, now
from kepo.types import Question
from kepo.workers import progress_bars

if TYPE_CHECKING:
    import pyarrow as pa

    from kepo.teachers.local import LocalTeacher

_PACKAGES = ("kepo", "torch", "transformers", "peft", "pyarrow")


def evaluate(
    questions: Sequence[Question],
    backend: Backend,
    settings: EvaluationSettings,
    out: str | Path,
    name: str = "test",
    *,
    description: Mapping[str, Any] | None = None,
    teacher: LocalTeacher | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Ask every question and write the records to `out/evaluation/NAME.parquet`, with `NAME.json` beside it.

    Stopped at any point, the same call goes on from the last part. Once finished, it returns at once.

    Args:
        questions: At least one, with unique ids.
        backend: The model.
        settings: How they are asked.
        out: The run folder, or any other; made if needed.
        name: Of the evaluation.
        description: More for `NAME.json`: `data`, where the questions come from, and `split`, which part of it;
            `in_domain`, the modalities trained on; which checkpoint this is and why.
        teacher: Gives `teacher_logp`; None leaves it null.
        overwrite: Replace records of this name.
        quiet: No progress bar.

    Raises:
        ConfigError: records of this name were made with other settings.
        DataError: questions that cannot be used, a part that cannot be read, or a folder that cannot be written.
    """
    check_questions(questions)
    identity = identify(questions, backend.kind, backend.model, backend.fingerprint, settings, teacher)
    parts = Parts(out, name, identity, overwrite=overwrite)
    if parts.finished:
        return parts.file
    note_unread_languages([question.options for question in questions])
    everything = list(ordered_questions(questions, settings))
    done = parts.done()
    missing = [ordered for ordered in everything if ordered.key not in done]
    with progress_bars(quiet) as progress:
        bar = progress.add_task(f"Evaluating {name}", total=len(everything), completed=len(everything) - len(missing))
        try:
            for records in _answers(missing, backend, settings, teacher):
                parts.add(records)
                progress.advance(bar, len(records) // settings.samples)
        finally:
            # Also when interrupted: what was answered is not asked again.
            parts.flush()

    return parts.join(
        [ordered.key for ordered in everything],
        lambda started, seconds: {
            "name": name,
            "data": "",
            "split": None,
            "in_domain": [],
            **(description or {}),
            "questions": len(questions),
            "model": backend.model,
            "backend": backend.kind,
            "generation": asdict(settings),
            "started": started,
            "ended": now(),
            "seconds": round(seconds, 3),
            "versions": installed_versions(_PACKAGES),
            "settings": identity,
        },
    )


def ask(
    questions: Sequence[Question],
    backend: Backend,
    settings: EvaluationSettings,
    teacher: LocalTeacher | None = None,
) -> pa.Table:
    """The records of `evaluate` in memory, nothing written: for a validation during training.

    Args:
        questions: At least one, with unique ids.
        backend: The model.
        settings: How they are asked.
        teacher: Gives `teacher_logp`; None leaves it null.
    """
    check_questions(questions)
    ordered = list(ordered_questions(questions, settings))
    return to_table([record for records in _answers(ordered, backend, settings, teacher) for record in records])


def _answers(
    ordered: Sequence[OrderedQuestion], backend: Backend, settings: EvaluationSettings, teacher: LocalTeacher | None
) -> Iterator[list[Record]]:
    """The records of one batch after the other."""
    start = 0
    while start < len(ordered):
        batch = ordered[start : start + backend.batch_size]
        start += len(batch)
        prompts = conversations(batch, settings)
        completions = backend.generate(prompts, settings, [sampling_seed(one, settings.seed) for one in batch])
        flat = [
            (one, prompt, sample, completion)
            for one, prompt, row in zip(batch, prompts, completions, strict=True)
            for sample, completion in enumerate(row)
        ]
        logps: list[float | None] = [None] * len(flat)
        if teacher is not None:
            logps = reasoning_logps(teacher, [(prompt, completion.text) for _, prompt, _, completion in flat])
        yield [
            {
                **score_completion(one, completion, settings),
                "sample": sample,
                "prompt": prompt_text(prompt),
                "teacher_logp": logp,
                "content": content_of(one.question.text, prompt),
            }
            for (one, prompt, sample, completion), logp in zip(flat, logps, strict=True)
        ]


def identify(
    questions: Sequence[Question],
    kind: str,
    model: str,
    weights: str,
    settings: EvaluationSettings,
    teacher: LocalTeacher | None,
) -> dict[str, Any]:
    """What must be the same for records to belong together; `kind`, `model` and `weights` are of the backend.

    Args:
        questions: Those that are asked.
        kind: Of the backend.
        model: Its name.
        weights: A fingerprint of its weights.
        settings: How they are asked.
        teacher: Rates the reasoning; None: nobody does.
    """
    digest = hashlib.sha256()
    for question in questions:
        images = [str(image) if isinstance(image, str | Path) else "" for image in question.images]
        shown = [question.id, question.text, question.answer, question.options, images, dict(question.metadata)]
        digest.update(json.dumps(shown, sort_keys=True).encode())
    return {
        **asdict(settings),
        "backend": kind,
        "model": model,
        "weights": weights,
        "questions": f"{len(questions)} ({digest.hexdigest()[:16]})",
        "teacher": None if teacher is None else teacher.model.config._name_or_path,
    }
