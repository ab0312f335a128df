"""The section on reasoning: of the evaluation, and of injected rollouts against others."""

from __future__ import annotations

from collections.abc import Mapping

from kepo.evaluation.reasoning import summarize_reasoning
from kepo.reports.document import Block, Cell, Row, Section, Table, mean, number, percent, without_empty
from kepo.reports.rollouts import INJECTED, KINDS, Truth
from kepo.reports.study import Study

# Field of a summary -> heading, and whether it is a share.
_MEASURES = {
    "format_rate": ("in the form asked for, %", True),
    "agreement": ("answer agrees with reasoning, %", True),
    "truthfulness": ("true statements, %", True),
    "all_true": ("only true statements, %", True),
    "option_consistency": ("same option in another order, %", True),
    "teacher_logp": ("log-probability under the teacher, nats a token", False),
    "tokens": ("tokens", False),
    "finished": ("ended before the limit, %", True),
}


def reasoning_section(study: Study, truth: Mapping[tuple[str, str], Truth]) -> Section | None:
    """Reasoning of the evaluated models, and truthfulness of what was injected in training."""
    tables = (_evaluation_table(study), _truth_table(study, truth))
    blocks: list[Block] = [table for table in tables if table]
    return Section("reasoning", "Reasoning", tuple(blocks)) if blocks else None


def _evaluation_table(study: Study) -> Table | None:
    rows = []
    for arm in study.arms:
        summaries = [summarize_reasoning(run.evaluation.table) for run in arm.runs if run.evaluation]
        if not summaries:
            continue
        values = [(mean([getattr(one, name) for one in summaries]), share) for name, (_, share) in _MEASURES.items()]
        cells = tuple(Cell(percent(value) if share else number(value)) for value, share in values)
        rows.append(Row(arm.label, cells, arm.name, "main" if arm.name == study.main else ""))
    if not rows:
        return None
    columns = ("arm", *(heading for heading, _ in _MEASURES.values()))
    notes = (
        "Means over replicates. Agreement: of outputs whose reasoning names an option, those that answer with the last "
        "one named. Statements are those about facts that the question's data knows.",
    )
    return without_empty(Table("Reasoning of the evaluated models", columns, tuple(rows), notes))


def _truth_table(study: Study, truth: Mapping[tuple[str, str], Truth]) -> Table | None:
    if not any(kind == INJECTED for _, kind in truth):
        return None
    rows = []
    for arm in study.arms:
        for kind in KINDS:
            counts = truth.get((arm.name, kind))
            if counts is None:
                continue
            cells = (
                Cell(kind),
                Cell(f"{counts.rollouts:,}"),
                Cell(percent(counts.stating / counts.rollouts)),
                Cell(percent(counts.true / counts.statements if counts.statements else None)),
                Cell(percent(counts.all_true / counts.stating if counts.stating else None)),
            )
            rows.append(Row(arm.label, cells, arm.name, "main" if arm.name == study.main else ""))
    columns = ("arm", "rollouts", "number", "state a fact, %", "true statements, %", "only true statements, %")
    notes = (
        "Injected rollouts were sampled under a hint and kept because their answer was right; own rollouts are the "
        "student's without a hint. Read from up to 3,000 rollouts of each run, spread over its updates.",
    )
    return Table("Is what was injected in training true?", columns, tuple(rows), notes, text_columns=("rollouts",))
