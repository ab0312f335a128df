"""The section on reasoning: of the evaluation, and of injected rollouts against others."""

from __future__ import annotations

from collections.abc import Mapping

from kepo.evaluation.reasoning import ReasoningSummary, summarize_reasoning
from kepo.reports.document import Block, Section, Table, arm_row, mean, number, percent, without_empty
from kepo.reports.rollouts import INJECTED, KINDS, Truth
from kepo.reports.study import Study

# Field of a summary -> heading, and whether it is a share.
_MEASURES = {
    "format_rate": ("in the form asked for, %", True),
    "consistency": ("answer consistent with reasoning, %", True),
    "factual_accuracy": ("true statements, %", True),
    "all_true": ("only true statements, %", True),
    "correct_but_false": ("correct answers with a false statement, %", True),
    "option_order_robustness": ("same option in another order, %", True),
    "teacher_logp": ("log-probability under the teacher, nats a token", False),
    "tokens": ("tokens", False),
    "finished": ("ended before the limit, %", True),
}
MEASURES = tuple(heading for heading, _ in _MEASURES.values())
"""Headings of what `measured` gives."""


def measured(summaries: list[ReasoningSummary]) -> list[str]:
    """Every measure as text, the mean over evaluations."""
    values = [(mean([getattr(one, name) for one in summaries]), share) for name, (_, share) in _MEASURES.items()]
    return [percent(value) if share else number(value) for value, share in values]


def reasoning_section(study: Study, truth: Mapping[tuple[str, str], Truth]) -> Section | None:
    """Reasoning of the evaluated models, and factual accuracy of what was injected in training."""
    tables = (_evaluation_table(study), _truth_table(study, truth))
    blocks: list[Block] = [table for table in tables if table]
    return Section("reasoning", "Reasoning", tuple(blocks)) if blocks else None


def _evaluation_table(study: Study) -> Table | None:
    rows = []
    for arm in study.arms:
        summaries = [summarize_reasoning(run.evaluation.table) for run in arm.runs if run.evaluation]
        if summaries:
            rows.append(arm_row(study, arm, measured(summaries)))
    if not rows:
        return None
    notes = (
        "Means over replicates. An answer is consistent when it is the option that the reasoning names last; over "
        "completions whose reasoning names one. Statements are those about facts that the question's data knows. A "
        "correct answer after a false statement is luck, or a second mistake that made up for the first.",
    )
    return without_empty(Table("Reasoning of the evaluated models", ("arm", *MEASURES), tuple(rows), notes))


def _truth_table(study: Study, truth: Mapping[tuple[str, str], Truth]) -> Table | None:
    if not any(kind == INJECTED for _, kind in truth):
        return None
    rows, columns = [], dict[str, str]()
    for arm in study.arms:
        for kind in KINDS:
            counts = truth.get((arm.name, kind))
            if counts is None:
                continue
            columns = {
                "rollouts": kind,
                "number": f"{counts.rollouts:,}",
                "state a fact, %": percent(counts.stating / counts.rollouts),
                "true statements, %": percent(counts.true / counts.statements if counts.statements else None),
                "only true statements, %": percent(counts.all_true / counts.stating if counts.stating else None),
            }
            rows.append(arm_row(study, arm, tuple(columns.values())))
    notes = (
        "Injected rollouts were sampled under a hint and kept because their answer was correct; own rollouts are the "
        "student's without a hint. Read from up to 3,000 rollouts of each run, spread over its steps.",
    )
    return Table(
        "Factual accuracy of injected and of other rollouts", ("arm", *columns), tuple(rows), notes, ("rollouts",)
    )
