"""The section on reasoning: of the evaluation, and of injected rollouts against others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kepo.evaluation.reasoning import ReasoningSummary, summarize_reasoning
from kepo.reports.document import Section, Table, mean, number, percent, tabulate, without_empty
from kepo.reports.rollouts import INJECTED, KINDS, Truth
from kepo.reports.study import Study
from kepo.reports.tested import explained

if TYPE_CHECKING:
    import pyarrow as pa

UNREADABLE = "no single answer could be read, %"
# Field of a summary -> heading, and how its mean is written.
_MEASURES = {
    "format_rate": ("in the form asked for, %", percent),
    "consistency": ("answer consistent with reasoning, %", percent),
    "factual_accuracy": ("true statements, %", percent),
    "all_true": ("only true statements, %", percent),
    "correct_but_false": ("correct answers with a false statement, %", percent),
    "option_order_robustness": ("same option in another order, %", percent),
    "teacher_logp": ("log-probability under the teacher, nats a token", number),
    "tokens": ("tokens", number),
    "finished": ("ended before the limit, %", percent),
}


def measured(summaries: Sequence[ReasoningSummary]) -> dict[str, str]:
    """Heading -> a measure as text, the mean over evaluations."""
    return {
        heading: shown(mean([getattr(one, name) for one in summaries])) for name, (heading, shown) in _MEASURES.items()
    }


def unreadable(table: pa.Table) -> float | None:
    """Share of answers (0..1) to questions with options from which no single option could be read.

    Hedged, cut off, or without an answer in the form asked for: all of them count as incorrect. None without options.
    """
    import pyarrow.compute as pc

    asked = table.filter(
        pc.and_(pc.equal(table["permutation"], 0), pc.greater(pc.list_value_length(table["options"]), 0))
    )
    return asked["predicted"].null_count / len(asked) if len(asked) else None


def reasoning_section(study: Study, truth: Mapping[tuple[str, str], Truth]) -> Section | None:
    """Reasoning of the evaluated models, and factual accuracy of what was injected in training."""
    tables = tuple(table for table in (_evaluation_table(study), _truth_table(study, truth)) if table.rows)
    return Section("reasoning", "Reasoning", tables) if tables else None


def _evaluation_table(study: Study) -> Table:
    rows = [
        (
            arm,
            {UNREADABLE: percent(mean([unreadable(run.table) for run in arm.evaluated]))}
            | measured([summarize_reasoning(run.table) for run in arm.evaluated]),
        )
        for arm in study.arms
        if arm.evaluated
    ]
    note = (
        "Means over replicates. Answers that hedge, are cut off or are not in the form asked for name no single option "
        "and count as incorrect. An answer is consistent when it is the option that the reasoning names last; over "
        "completions whose reasoning names one. Statements are those about facts that the question's data knows. A "
        "correct answer after a false statement is luck, or a second mistake that made up for the first."
    )
    table = tabulate("Reasoning of the evaluated models", "arm", rows, (note,), main=study.main)
    return explained(study, without_empty(table))


def _truth_table(study: Study, truth: Mapping[tuple[str, str], Truth]) -> Table:
    """Rows only where something was injected."""
    injected = any(kind == INJECTED for _, kind in truth)
    rows = [
        (
            arm,
            {
                "rollouts": kind,
                "number": f"{counts.rollouts:,}",
                "state a fact, %": percent(counts.stating / counts.rollouts),
                "true statements, %": percent(counts.true / counts.statements if counts.statements else None),
                "only true statements, %": percent(counts.all_true / counts.stating if counts.stating else None),
            },
        )
        for arm in study.arms
        for kind in KINDS
        if injected and (counts := truth.get((arm.name, kind)))
    ]
    note = (
        "Injected rollouts were sampled under a hint and kept because their answer was correct; own rollouts are the "
        "student's without a hint. Read from up to 3,000 rollouts of each run, spread over its steps."
    )
    caption = "Factual accuracy of injected and of other rollouts"
    return tabulate(caption, "arm", rows, (note,), ("rollouts",), main=study.main)
