"""An evaluation from questions to records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
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
from kepo.evaluation.backend import Backend
from kepo.evaluation.parts import Parts, now
from kepo.evaluation.records import Record, to_table
from kepo.evaluation.scoring import reasoning_logps, score_completion
from kepo.evaluation.settings import EvaluationSettings
from kepo.prompts import prompt_text
from kepo.types import Question

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
    data: str = "",
    split: str | None = None,
    in_domain: Sequence[str] = (),
    teacher: LocalTeacher | None = None,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Ask every question and write the records to `out/evaluation/NAME.parquet`, with `NAME.json` beside it.

    Stopped at any point, the same call goes on from the last part. Once finished, it returns at once.

    Args:
        questions: At least one, with unique ids.
        backend: Who answers.
        settings: How they are asked.
        out: The run folder, or any other; made if needed.
        name: Name of the evaluation.
        data: Where the questions come from, for the description.
        split: Which part of the data they are, for the description.
        in_domain: The modalities that the model was trained on; empty where unknown.
        teacher: Gives `teacher_logp`; None leaves it null.
        facts: More for the description, such as which checkpoint this is and why.
        overwrite: Replace records of this name.
        quiet: No progress bar.

    Returns:
        The Parquet file.

    Raises:
        ConfigError: records of this name were made with other settings, or the backend refuses the questions.
        DataError: questions that cannot be used, a part that cannot be read, or a folder that cannot be written.
    """
    check_questions(questions)
    identity = identify(questions, backend.kind, backend.model, backend.fingerprint, settings, teacher)
    parts = Parts(out, name, identity, overwrite=overwrite)
    if parts.finished:
        return parts.file
    everything = list(ordered_questions(questions, settings))
    done = parts.done()
    missing = [asked for asked in everything if asked.key not in done]
    with _progress(name, len(everything), len(everything) - len(missing), quiet) as advance:
        try:
            for records in _answers(missing, backend, settings, teacher):
                parts.add(records)
                advance(len(records) // settings.samples)
        finally:
            # Also when interrupted: what was answered is not asked again.
            parts.flush()

    known = {"name": name, "data": data, "split": split, "in_domain": list(in_domain), "questions": len(questions)}
    return parts.join(
        [asked.key for asked in everything],
        lambda started, seconds: {
            **known,
            **(facts or {}),
            **_described(backend, settings, started, seconds),
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

    Raises:
        ConfigError: the backend refuses the questions.
        DataError: questions that cannot be used.
    """
    check_questions(questions)
    asked = list(ordered_questions(questions, settings))
    return to_table([record for records in _answers(asked, backend, settings, teacher) for record in records])


def _answers(
    asked: Sequence[OrderedQuestion], backend: Backend, settings: EvaluationSettings, teacher: LocalTeacher | None
) -> Iterator[list[Record]]:
    """The records of one batch after the other."""
    start = 0
    while start < len(asked):
        batch = asked[start : start + backend.batch_size]
        start += len(batch)
        prompts = conversations(batch, settings)
        completions = backend.generate(prompts, settings.sampling, [sampling_seed(one, settings.seed) for one in batch])
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
    """What must be the same for records to belong together.

    Args:
        questions: What is asked.
        kind: The backend's kind.
        model: The backend's name of the model.
        weights: The backend's fingerprint.
        settings: How it is asked.
        teacher: As in `evaluate`.
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


def _described(backend: Backend, settings: EvaluationSettings, started: str, seconds: float) -> dict[str, Any]:
    return {
        "model": backend.model,
        "backend": backend.kind,
        "generation": asdict(settings),
        "started": started,
        "ended": now(),
        "seconds": round(seconds, 3),
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
    }


@contextmanager
def _progress(name: str, total: int, done: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=quiet) as progress:
        task = progress.add_task(f"Evaluating {name}", total=total, completed=done)
        yield lambda steps: progress.advance(task, steps)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
