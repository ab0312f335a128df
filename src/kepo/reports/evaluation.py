"""The tables of one evaluation, and of two evaluations of the same questions compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kepo.errors import DataError
from kepo.evaluation.accuracy import accuracy_by, domains, majority_letter_accuracy, paired_scores, split_domains
from kepo.evaluation.contamination import in_words
from kepo.evaluation.reasoning import summarize_reasoning
from kepo.reports.document import NONE, Table, p_value, percent, points, span, tabulate
from kepo.reports.reasoning import UNREADABLE, measured, unreadable
from kepo.runs import Evaluation
from kepo.statistics.accuracy import chance_level, pass_at_k
from kepo.statistics.intervals import Interval
from kepo.statistics.paired import Difference, McNemar, mcnemar, paired_difference

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TwoEvaluations:
    """Two evaluations on the same questions, first minus second."""

    questions: str  # which of them: "all", "in-domain" or "out-of-domain"
    difference: Difference  # of their accuracies, with the interval over questions
    mcnemar: McNemar | None  # the exact test; None where questions were sampled several times


def accuracy_table(evaluation: Evaluation, title: str) -> Table:
    """Accuracy over all questions, in and out of domain, by modality, task and level, each with its 95 % interval."""
    found = [
        (label, percent(one.estimate), span(one.low, one.high), str(one.n)) for label, one in _accuracies(evaluation)
    ]
    found += [(label, percent(value), "", "") for label, value in _references(evaluation.table)]
    rows = [
        (label, {"accuracy, %": value, "95 % interval": interval, "number": number})
        for label, value, interval, number in found
    ]
    words = in_words(evaluation.description)
    return tabulate(title, "questions", rows, () if words is None else (words,))


def measures_table(evaluation: Evaluation) -> Table:
    """The reasoning measures that the records have."""
    values = {UNREADABLE: percent(unreadable(evaluation.table))} | measured([summarize_reasoning(evaluation.table)])
    return tabulate("Reasoning", "measure", [(name, {"value": text}) for name, text in values.items() if text != NONE])


def in_one_line(evaluation: Evaluation) -> str:
    """Accuracy in and out of domain, and how many questions that was."""
    parts = domains(evaluation.table, evaluation.description.get("in_domain", []))
    shown = [f"{name} {one.estimate:.1%} ({one.n})" for name, one in parts.items() if one.n]
    whole = accuracy_by(evaluation.table, None)[None]
    return ", ".join(shown) or f"accuracy {whole.estimate:.1%} ({whole.n})"


def compare(first: Evaluation, second: Evaluation) -> list[TwoEvaluations]:
    """`first` against `second` over all questions, and in and out of domain where the first says what that is.

    Raises:
        DataError: they hold different questions, or a question's correct answer differs.
    """
    _check_same_truth(first.table, second.table)
    results = [_compared("all", first.table, second.table)]
    in_domain: Sequence[str] = first.description.get("in_domain", [])
    ours, theirs = split_domains(first.table, in_domain), split_domains(second.table, in_domain)
    return results + [_compared(name, part, theirs[name]) for name, part in ours.items() if len(part)]


def comparison_table(compared: Sequence[TwoEvaluations], first: str, second: str) -> Table:
    """What `compare` found."""
    rows = [
        (
            one.questions,
            {
                "points": points(one.difference.estimate),
                "95 % interval": span(one.difference.low, one.difference.high, signed=True),
                "p": p_value(one.difference.p_value),
                "correct alone": f"{one.mcnemar.only_first} : {one.mcnemar.only_second}" if one.mcnemar else "",
                "McNemar p": p_value(one.mcnemar.p_value) if one.mcnemar else "",
                "number": str(one.difference.questions),
            },
        )
        for one in compared
    ]
    note = "Intervals over questions: they say nothing about another training seed."
    return tabulate(f"{first} minus {second}", "questions", rows, (note,))


def _accuracies(evaluation: Evaluation) -> Iterator[tuple[str, Interval]]:
    table, in_domain = evaluation.table, evaluation.description.get("in_domain", [])
    yield "all", accuracy_by(table, None)[None]
    yield from ((name, interval) for name, interval in domains(table, in_domain).items() if interval.n)
    for column in ("modality", "task", "level"):
        groups = accuracy_by(table, column)
        if len(groups) > 1:
            yield from ((f"{column}: {key or 'not given'}", interval) for key, interval in groups.items())


def _references(table: pa.Table) -> Iterator[tuple[str, float]]:
    rows = table.select(["id", "permutation", "sample", "correct", "options"]).to_pylist()
    own = [row for row in rows if row["permutation"] == 0]
    yield "chance", chance_level([len(row["options"]) for row in own if row["sample"] == 0])
    yield "always the most frequent letter", majority_letter_accuracy(table)
    samples: dict[str, list[bool]] = {}
    for row in own:
        samples.setdefault(row["id"], []).append(row["correct"])
    number = min(map(len, samples.values()))
    for k in (k for k in (1, 2, 4, 8, 16, 32, 64) if 1 < number >= k):
        correct = pass_at_k([flags[:number] for flags in samples.values()], k)
        yield f"correct in at least one of {k} (pass@{k})", correct


def _compared(name: str, first: pa.Table, second: pa.Table) -> TwoEvaluations:
    _, scores = paired_scores([first, second])
    yes_or_no = bool(((scores == 0) | (scores == 1)).all())
    difference = paired_difference(scores[:1], scores[1:])
    return TwoEvaluations(name, difference, mcnemar(scores[0] == 1, scores[1] == 1) if yes_or_no else None)


def _check_same_truth(first: pa.Table, second: pa.Table) -> None:
    def truths(table: pa.Table) -> dict[str, Any]:
        rows = table.select(["id", "permutation", "answer", "options"]).to_pylist()
        return {row["id"]: (row["answer"], row["options"]) for row in rows if row["permutation"] == 0}

    theirs = truths(second)
    for question, truth in truths(first).items():
        if theirs.get(question, truth) != truth:
            raise DataError(
                f"question {question!r} has the answer and options {truth!r} in one evaluation and "
                f"{theirs[question]!r} in the other; only evaluations of the same data can be compared"
            )
