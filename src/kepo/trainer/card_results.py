"""What a model card says of the evaluations in a run folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from kepo.evaluation.accuracy import IN_DOMAIN, OUT_OF_DOMAIN, accuracy_by, split_domains
from kepo.evaluation.contamination import in_words
from kepo.runs import Evaluation, read_evaluation, read_metrics
from kepo.runs.evaluations import EVALUATIONS
from kepo.statistics.accuracy import chance_level
from kepo.statistics.intervals import Interval


def evaluations(folder: Path) -> Iterator[Evaluation]:
    """The evaluations of the run that have answers."""
    for file in sorted((folder / EVALUATIONS).glob("*.parquet")):
        found = read_evaluation(file, texts=False)
        if len(found.table):
            yield found


def rows_of(evaluation: Evaluation) -> Iterator[dict[str, str]]:
    """The rows of the table of results: all questions, in and out of domain."""
    table, in_domain = evaluation.table, evaluation.in_domain
    parts = {"all": table, **split_domains(table, in_domain)}
    for questions, part in parts.items():
        found = accuracy_by(part, None)[None]
        if found.n and (questions == "all" or found.n < accuracy_by(table, None)[None].n):
            options = part.filter([a == b == 0 for a, b in _firsts(part)])["options"].to_pylist()
            chance = chance_level([len(one) for one in options])
            yield {
                "evaluation": cell(evaluation.file.stem),
                "questions": {IN_DOMAIN: f"in domain ({cell(', '.join(in_domain))})"}.get(
                    questions, "out of domain" if questions == OUT_OF_DOMAIN else "all"
                ),
                "number": str(found.n),
                "accuracy": f"{100 * found.estimate:.1f}",
                "interval": _span(found),
                "chance": f"{100 * chance:.1f}" if chance and isfinite(chance) else "",
            }


def _firsts(table: Any) -> Sequence[tuple[int, int]]:
    return list(zip(table["permutation"].to_pylist(), table["sample"].to_pylist(), strict=True))


def _span(found: Interval) -> str:
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}" if isfinite(found.low) else ""


def notes_of(folder: Path, evaluation: Evaluation) -> Iterator[str]:
    """Whose weights were tested, on what, and whether the questions were trained on."""
    description, name = evaluation.description, evaluation.file.stem
    source = "/".join(Path(str(description.get("data") or "")).parts[-2:]).strip("/")
    temperature = (description.get("generation") or {}).get("temperature")
    parts = [f"{name}: {source}" if source else name]
    parts += [] if temperature is None else [f"temperature {temperature:g}"]
    chosen = description.get("chosen") or {}
    best = [one["validation/best_step"] for one in read_metrics(folder) if "validation/best_step" in one]
    if chosen:
        parts.append(
            f"measured on {chosen.get('checkpoint')}, chosen by {chosen.get('chosen_by')}, not on these weights"
        )
    elif best:
        parts.append(f"the weights are those of step {best[-1]}, the best on validation questions")
        parts += ["which is the model before training"] if best[-1] == 0 else []
    yield f"{', '.join(parts)}."
    if words := in_words(description):
        yield f"Contamination: {words}"


def eval_result(evaluation: Evaluation, vision: bool) -> EvalResult:
    """The accuracy of an evaluation as the hub reads it from the head of a card."""
    found = accuracy_by(evaluation.table, None)[None]
    name = plain(evaluation.file.stem)
    return EvalResult(
        task_type="visual-question-answering" if vision else "question-answering",
        dataset_type=re.sub(r"[^\w.-]+", "-", name),
        dataset_name=name,
        metric_type="accuracy",
        metric_name="accuracy",
        metric_value=round(found.estimate, 4),
        metric_args={"interval_95": [round(found.low, 4), round(found.high, 4)], "questions": found.n},
    )


def plain(text: str) -> str:
    """`text` in one line."""
    return " ".join(str(text).split()) or "model"


def cell(text: str) -> str:
    """A text that breaks no table and is no markup; the links that are made here stay."""
    return plain(text).replace("|", r"\|").replace("<", "&lt;")
