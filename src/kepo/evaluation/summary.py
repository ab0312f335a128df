"""An evaluation's numbers as tables for the terminal, and two evaluations of the same questions compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from kepo.errors import DataError
from kepo.evaluation.reasoning import ReasoningSummary, summarize_reasoning
from kepo.runs import Evaluation

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from kepo.statistics.intervals import Interval
    from kepo.statistics.paired import Difference, McNemar

_MEASURES = {
    "format_rate": "outputs in the form asked for",
    "finished": "outputs ended before the limit",
    "agreement": "answer agrees with the reasoning",
    "truthfulness": "stated facts that are true",
    "all_true": "outputs with only true facts",
    "option_consistency": "same option in another order",
    "teacher_logp": "log-probability per reasoning token, teacher (nats)",
    "tokens": "tokens",
}
_NOT_SHARES = ("teacher_logp", "tokens")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations on the same questions, first minus second.

    Attributes:
        questions: Which of them: "all", "in-domain" or "out-of-domain".
        difference: Of their accuracies, with the interval over questions.
        mcnemar: The exact test; None where questions were sampled several times.
    """

    questions: str
    difference: Difference
    mcnemar: McNemar | None


def accuracy_table(evaluation: Evaluation, title: str) -> Table:
    """Accuracy over all questions, in and out of domain, by modality, task and level, each with its 95 % interval."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("questions", title=escape(title))
    for heading in ("accuracy", "95 % interval", "number"):
        table.add_column(heading, justify="right")
    for label, interval in _accuracies(evaluation):
        table.add_row(
            escape(label), f"{interval.estimate:.1%}", f"{interval.low:.1%} to {interval.high:.1%}", str(interval.n)
        )
    table.add_section()
    for label, value in _references(evaluation.table):
        table.add_row(label, f"{value:.1%}", "", "")
    return table


def measures_table(evaluation: Evaluation) -> Table:
    """The reasoning measures that the records have."""
    from rich.table import Table

    table = Table("measure")
    table.add_column("value", justify="right")
    summary = summarize_reasoning(evaluation.table)
    names = [field.name for field in fields(ReasoningSummary)]
    for name in sorted(names, key=list(_MEASURES).index):
        value = getattr(summary, name)
        if value is not None:
            table.add_row(_MEASURES[name], f"{value:.2f}" if name in _NOT_SHARES else f"{value:.1%}")
    return table


def in_one_line(evaluation: Evaluation) -> str:
    """Accuracy in and out of domain, and how many questions that was."""
    from kepo.evaluation.accuracy import accuracy_by, domains

    parts = domains(evaluation.table, evaluation.description.get("in_domain", []))
    shown = [f"{name} {one.estimate:.1%} ({one.n})" for name, one in parts.items() if one.n]
    whole = accuracy_by(evaluation.table, None)[None]
    return ", ".join(shown) or f"accuracy {whole.estimate:.1%} ({whole.n})"


def _accuracies(evaluation: Evaluation) -> Iterator[tuple[str, Interval]]:
    from kepo.evaluation.accuracy import accuracy_by, domains

    table, in_domain = evaluation.table, evaluation.description.get("in_domain", [])
    yield "all", accuracy_by(table, None)[None]
    yield from ((name, interval) for name, interval in domains(table, in_domain).items() if interval.n)
    for column in ("modality", "task", "level"):
        groups = accuracy_by(table, column)
        if len(groups) > 1:
            yield from ((f"{column}: {key or 'not given'}", interval) for key, interval in groups.items())


def _references(table: pa.Table) -> Iterator[tuple[str, float]]:
    from kepo.evaluation.accuracy import chance_level, majority_letter_accuracy, pass_at_k

    rows = table.select(["id", "permutation", "sample", "correct", "options"]).to_pylist()
    own = [row for row in rows if row["permutation"] == 0]
    yield "chance", chance_level([len(row["options"]) for row in own if row["sample"] == 0])
    yield "always the most frequent letter", majority_letter_accuracy(table)
    samples: dict[str, list[bool]] = {}
    for row in own:
        samples.setdefault(row["id"], []).append(row["correct"])
    number = min(map(len, samples.values()))
    for k in (k for k in (1, 2, 4, 8, 16, 32, 64) if 1 < number >= k):
        yield f"right in at least one of {k} (pass@{k})", pass_at_k([flags[:number] for flags in samples.values()], k)


def compare(first: Evaluation, second: Evaluation) -> list[Comparison]:
    """`first` against `second` over all questions, and in and out of domain where the first says what that is.

    Raises:
        DataError: they hold different questions, or a question's right answer differs.
    """
    from kepo.evaluation.accuracy import split_domains

    _check_same_truth(first.table, second.table)
    results = [_compared("all", first.table, second.table)]
    in_domain: Sequence[str] = first.description.get("in_domain", [])
    ours, theirs = split_domains(first.table, in_domain), split_domains(second.table, in_domain)
    return results + [_compared(name, part, theirs[name]) for name, part in ours.items() if len(part)]


def _compared(name: str, first: pa.Table, second: pa.Table) -> Comparison:
    from kepo.evaluation.accuracy import paired_scores
    from kepo.statistics.paired import mcnemar, paired_bootstrap

    _, scores = paired_scores([first, second])
    yes_or_no = bool(((scores == 0) | (scores == 1)).all())
    difference = paired_bootstrap(scores[:1], scores[1:])
    return Comparison(name, difference, mcnemar(scores[0] == 1, scores[1] == 1) if yes_or_no else None)


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


def comparison_table(comparisons: Sequence[Comparison], first: str, second: str) -> Table:
    """What `compare` found."""
    from rich.markup import escape
    from rich.table import Table

    caption = "Intervals over questions: they say nothing about another training seed."
    table = Table(title=escape(f"{first} minus {second}"), caption=caption)
    table.add_column("questions", no_wrap=True)
    for heading in ("points", "95 % interval", "p", "right alone", "McNemar p", "number"):
        table.add_column(heading, justify="right", no_wrap=heading == "95 % interval")
    for one in comparisons:
        difference, test = one.difference, one.mcnemar
        exact = (f"{test.only_first} : {test.only_second}", _p_value(test.p_value)) if test else ("", "")
        table.add_row(
            one.questions,
            f"{100 * difference.estimate:+.1f}",
            f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}",
            _p_value(difference.p_value),
            *exact,
            str(difference.questions),
        )
    return table


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
