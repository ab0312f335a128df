"""Whose weights a test is of: which optimizer step was chosen, and what validation says of it and of the end.

A choice on validation can fall on step 0. Such a run is tested as the model was before training, which a reader has to
know wherever its accuracy stands: the labels of these arms end in `MARK`, and each table explains it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kepo.reports.document import NONE, Cell, Table, mean, percent
from kepo.reports.study import Arm, RunData, Study

MARK = "†"


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights that were tested, of a run that trained."""

    step: int  # the optimizer step that they are of; 0: before training
    last: int  # the last step of training
    chosen_by: str = ""  # validation questions that chose the step; empty: the end of training was taken
    accuracy: float | None = None  # in-domain validation accuracy at the step, 0..1; None: not known
    accuracy_at_end: float | None = None  # the same at the last step that was validated


def weights_tested(run: RunData) -> Weights | None:
    """Which weights of a run were tested; None for a model that was not trained, or where the log does not say."""
    if not run.trained:
        return None
    logged = max((record["step"] for record in run.metrics if isinstance(record.get("step"), int)), default=None)
    last = run.run.manifest.get("steps") if logged is None else logged
    chosen = run.evaluation.description.get("chosen") if run.evaluation else None
    if isinstance(chosen, Mapping) and isinstance(chosen.get("step"), int):
        candidates = {one["step"]: one["accuracy"] for one in chosen.get("candidates", ())}
        at_end = candidates[max(candidates)] if candidates else None
        end = max(last or 0, chosen["step"], *candidates)
        return Weights(chosen["step"], end, str(chosen.get("chosen_by", "")), chosen.get("accuracy"), at_end)
    if not isinstance(last, int):
        return None
    best, validation = list(run.series("validation/best_step").values()), run.series("validation/in_domain")
    at_end = validation[max(validation)] if validation else None
    if not best:
        return Weights(last, last, "", at_end, at_end)
    return Weights(int(best[-1]), last, "validation", validation.get(int(best[-1])), at_end)


def untrained(arm: Arm) -> int:
    """How many of an arm's evaluated runs were tested at step 0, although they trained."""
    return sum(found.step == 0 < found.last for run in arm.evaluated if (found := weights_tested(run)))


def marked(arm: Arm) -> Arm:
    """The arm, with `MARK` behind its label where a run of it was tested at step 0."""
    return replace(arm, label=f"{arm.label} {MARK}") if untrained(arm) else arm


def steps_text(runs: Sequence[RunData]) -> str:
    """The steps whose weights were tested, in few words: "0 (4 runs), 20, 40 of 40"."""
    found = [weights_tested(run) for run in runs]
    known = [one for one in found if one is not None]
    if not known:
        return "not trained" if runs and not any(run.trained for run in runs) else NONE
    ends = sorted({one.last for one in known})
    if all(one.step == one.last for one in known):
        return f"{_range(ends)} (the end)"
    counted = Counter(one.step for one in known)
    steps = (f"{step} ({count} runs)" if count > 1 else str(step) for step, count in sorted(counted.items()))
    return f"{', '.join(steps)} of {_range(ends)}"


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def columns(study: Study) -> tuple[str, ...]:
    """Headings of `cells`; the second only where a run was validated."""
    return ("step tested", "validation there", "validation at the end")[: 3 if _validated(study) else 1]


def cells(study: Study, runs: Sequence[RunData]) -> list[Cell]:
    """Which steps were tested, and in-domain validation accuracy (in percent) at these and at the end of training."""
    found = [one for run in runs if (one := weights_tested(run))]
    mark = "note" if any(one.step == 0 < one.last for one in found) else ""
    shown = [Cell(steps_text(runs), mark=mark)]
    if _validated(study):
        shown.append(Cell(percent(mean([one.accuracy for one in found]))))
        shown.append(Cell(percent(mean([one.accuracy_at_end for one in found]))))
    return shown


def _validated(study: Study) -> bool:
    return any(one.accuracy_at_end is not None for run in study.evaluated if (one := weights_tested(run)))


def explained(study: Study, table: Table) -> Table:
    """The table, with notes on whose weights its numbers are, as far as it has no `columns` that say so."""
    said = _mark_explained(study.arms) if columns(study)[0] in table.columns else notes(study.arms)
    return replace(table, notes=(*table.notes, *said))


def notes(arms: Sequence[Arm]) -> list[str]:
    """Which steps were tested, arm by arm, and which of them are the model before training."""
    by_steps: dict[str, list[str]] = {}
    for arm in arms:
        if arm.evaluated:
            by_steps.setdefault(steps_text(arm.evaluated) + _beside(arm), []).append(arm.label)
    known = [f"{', '.join(labels)}: {steps}" for steps, labels in by_steps.items() if steps != NONE]
    found = [f"Step whose weights were tested: {'; '.join(known)}."] if known else []
    return found + _mark_explained(arms)


def _mark_explained(arms: Sequence[Arm]) -> list[str]:
    named = _named(arms)
    return [f"{MARK} Tested before training: {named}."] if named else []


def _beside(arm: Arm) -> str:
    """Validation accuracy of what was tested, beside that of the end of training; empty where these are the same."""
    found = [one for run in arm.evaluated if (one := weights_tested(run))]
    there, at_end = (mean(values) for values in ([o.accuracy for o in found], [o.accuracy_at_end for o in found]))
    if there is None or at_end is None or all(one.step == one.last for one in found):
        return ""
    return f" (in-domain validation {percent(there)} %, at the end of training {percent(at_end)} %)"


def before_training(arms: Sequence[Arm]) -> str | None:
    """Which arms were tested as the model before training, and why, in a sentence; None where none was."""
    named = _named(arms)
    return named and (
        f"{MARK} Tested at step 0, the model before training, because no later step was better on validation: {named}. "
        "Their end of training was not tested; the main table has its accuracy on validation questions."
    )


def _named(arms: Sequence[Arm]) -> str | None:
    found = [
        f"{arm.label.removesuffix(MARK).strip()} in {count} of {len(arm.evaluated)} runs"
        for arm in arms
        if (count := untrained(arm))
    ]
    return ", ".join(found) or None
