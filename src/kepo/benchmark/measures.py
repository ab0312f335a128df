"""How the arms reason, how stable they train and what they cost: sections of the results, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from kepo.evaluation.reasoning import reasoning_text, statements, summarize_reasoning
from kepo.reports.study import RunData, Study
from kepo.runs import read_rollouts, rollout_files
from kepo.statistics.stability import measure

if TYPE_CHECKING:
    import pyarrow as pa


def reasoning_section(study: Study) -> str:
    """Form, agreement, truthfulness and length of the reasoning in the test answers."""
    rows = []
    for arm in study.arms:
        found = [summarize_reasoning(run.evaluation.table) for run in arm.runs if run.evaluation is not None]
        columns = ("format_rate", "agreement", "truthfulness", "all_true", "tokens")
        lucky = [_right_by_luck(run.evaluation.table) for run in arm.runs if run.evaluation is not None]
        cells = [_mean([getattr(one, name) for one in found], name) for name in columns]
        rows.append([arm.label, *cells, _mean(lucky, "lucky")])
    header = ["arm", "format", "reasoning agrees with answer", "true statements", "all statements true", "tokens"]
    header += ["right answers with a false statement"]
    return (
        "## Reasoning\n\nOn all test questions, in percent (tokens: mean length). A statement is true when it agrees "
        "with the scene. A right\nanswer after a false statement is luck, or a second mistake that made up for the "
        "first.\n\n" + markdown_table(header, rows)
    )


def _right_by_luck(table: pa.Table) -> float | None:
    """Share of the right answers whose reasoning states something false."""
    right = table.filter(table["correct"])
    if not len(right):
        return None
    return fmean(pc.less(right["true_statements"], right["statements"]).to_pylist())


def _mean(values: Sequence[float | None], name: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{fmean(known):.1f}" if name == "tokens" else f"{100 * fmean(known):.1f}"


def injected_section(study: Study, facts: Mapping[str, Mapping[str, str]]) -> str:
    """Whether right rollouts that were injected state true things as often as the others; empty without any.

    Args:
        study: Its runs have rollout logs.
        facts: Training question's id -> name -> true value.
    """
    rows = []
    for arm in study.arms:
        counts = {True: [0, 0, 0, 0], False: [0, 0, 0, 0]}
        for run in arm.runs:
            for injected, found in _right_rollouts(run.run.folder, facts):
                total, true = found
                count = counts[injected]
                count[0] += 1
                count[1] += total == true
                count[2] += total
                count[3] += true
        if counts[True][0]:
            rows.append([arm.label, *(part for flag in (True, False) for part in _shares(counts[flag]))])
    if not rows:
        return ""
    header = ["arm", "injected", "true statements", "all true", "other right rollouts", "true statements", "all true"]
    return (
        "## Does injected reasoning stay truthful?\n\nRight rollouts of training, injected and not: the share of their "
        "statements that are true, and of rollouts all of whose\nstatements are.\n\n" + markdown_table(header, rows)
    )


def _right_rollouts(folder: Path, facts: Mapping[str, Mapping[str, str]]) -> Iterable[tuple[bool, tuple[int, int]]]:
    """(injected, (statements, true statements)) of every right rollout of a run."""
    if not rollout_files(folder):
        return
    columns = ["id", "completion", "injected", "reward/choice_accuracy"]
    for row in read_rollouts(folder, columns).to_pylist():
        if row["reward/choice_accuracy"] == 1.0:
            yield row["injected"], statements(reasoning_text(row["completion"]), facts[row["id"]])


def _shares(count: Sequence[int]) -> list[str]:
    rollouts, all_true, total, true = count
    if not rollouts:
        return ["0", "-", "-"]
    return [str(rollouts), f"{100 * true / max(total, 1):.1f}", f"{100 * all_true / rollouts:.1f}"]


def stability_section(study: Study) -> str:
    """Last validation accuracy, its spread, the worst drop, gradient spikes and dead groups of every arm."""
    rows = []
    for arm in study.arms:
        if not arm.trained:
            continue
        found = [measure(run.metrics) for run in arm.runs]
        last = [100 * one.last_validation for one in found if one.last_validation is not None]
        drops = [100 * one.worst_drop for one in found if one.worst_drop is not None]
        first_dead = [one.dead_share_first for one in found if one.dead_share_first is not None]
        last_dead = [one.dead_share_last for one in found if one.dead_share_last is not None]
        rows.append(
            [
                arm.label,
                f"{fmean(last):.1f}" if last else "-",
                f"{stdev(last):.1f}" if len(last) > 1 else "-",
                f"{fmean(drops):.1f}" if drops else "-",
                str(sum(one.gradient_spikes for one in found)),
                f"{100 * fmean(first_dead):.0f} -> {100 * fmean(last_dead):.0f}" if first_dead else "-",
                f"{sum(_kept_the_start(run) for run in arm.runs)} of {len(arm.runs)}",
            ]
        )
    header = [
        "arm",
        "last in-domain validation",
        "its spread between runs (SD)",
        "worst drop from the best so far (mean)",
        "gradient spikes (sum)",
        "dead groups, first fifth -> last fifth",
        "runs best before training",
    ]
    return (
        "## Stability\n\nPercent and percentage points. Of a run that was never above its start on validation, the "
        "start itself was\ntested: it equals the base model, and two arms of such runs equal each other.\n\n"
        + markdown_table(header, rows)
    )


def _kept_the_start(run: RunData) -> bool:
    """Whether no checkpoint was better on validation than the weights that the run began with."""
    return 0 in run.series("validation/best_step").values()


def cost_section(study: Study) -> str:
    """Seconds and teacher tokens of an update of every arm."""
    rows = []
    for arm in study.arms:
        if not arm.trained:
            continue
        seconds = [value for run in arm.runs for value in run.series("step_time").values()]
        phases = [
            [value for run in arm.runs for value in run.series(f"time/{phase}_s").values()]
            for phase in ("rollouts", "exploration", "teacher")
        ]
        tokens = [value for run in arm.runs for value in run.series("teacher/tokens").values()]
        cells = [f"{fmean(values):.2f}" if values else "-" for values in (seconds, *phases)]
        rows.append([arm.label, *cells, f"{fmean(tokens):.0f}" if tokens else "-"])
    header = ["arm", "seconds an update", "rollouts", "exploration", "teacher", "teacher tokens an update"]
    return "## Cost\n\nOne thread a run, runs side by side; means over updates.\n\n" + markdown_table(header, rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
