"""The figure of the paper: accuracy of every checkpoint over steps, in domain and out of domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kepo.evaluation.accuracy import IN_DOMAIN, OUT_OF_DOMAIN, macro_accuracy, split_domains
from kepo.reports.curves import Curve, over_replicates
from kepo.reports.figures import panels_figure
from kepo.reports.palette import arm_styles, drawn_arms
from kepo.reports.paper import PaperTable
from kepo.reports.study import RunData, Study
from kepo.runs import checkpoints_in, evaluation_file, read_evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = ("Accuracy in domain, %", "Mean accuracy out of domain, %")


def checkpoint_figures(
    study: Study, tables: list[PaperTable], name: str
) -> tuple[dict[str, Callable[[], Figure]], list[str]]:
    """The figure of each training modality and base model.

    Args:
        study: The study.
        tables: Its tables.
        name: Evaluation of the checkpoints, such as "validation".

    Returns:
        Name of the figure -> how to draw it, and what could not be drawn, in sentences.
    """
    figures: dict[str, Callable[[], Figure]] = {}
    problems = []
    for table in tables:
        for model in dict.fromkeys(row.model for row in table.rows):
            panels, drawn = _panels(study, table, model, name)
            suffix = "-".join(part for part in (table.source.replace(", ", "-"), model) if part)
            if not panels:
                problems.append(f"No checkpoint of {suffix or 'any run'} has an evaluation {name!r}: no figure.")
                continue
            if len(panels) < 2:
                problems.append(f"The evaluation {name!r} has no question out of domain, so the figure has one panel.")
            left_out = [row.label for row in table.rows if row.arm not in drawn and row.runs[0].trained]
            if left_out:
                problems.append(f"To keep the lines apart, the figure leaves out: {', '.join(left_out)}.")
            figures["-".join(part for part in ("checkpoints", suffix) if part)] = _drawing(study, panels)
    return figures, problems


def _drawing(study: Study, panels: Mapping[str, Mapping[str, Curve]]) -> Callable[[], Figure]:
    labels = {arm.name: arm.label for arm in study.arms}
    return lambda: panels_figure(panels, arm_styles(study), labels)


def _panels(study: Study, table: PaperTable, model: str, name: str) -> tuple[dict[str, dict[str, Curve]], list[str]]:
    """Title -> arm -> curve, and the arms that are drawn."""
    runs = {row.arm: row.runs for row in table.rows if row.model == model}
    kept = tuple(replace(arm, runs=runs[arm.name]) for arm in study.arms if arm.name in runs)
    courses = {arm: [found for run in runs[arm] if (found := _course(run, name))] for arm in runs}
    evaluated = tuple(arm for arm in kept if courses[arm.name])
    if not evaluated:
        return {}, []
    drawn = drawn_arms(replace(study, arms=evaluated))
    panels: dict[str, dict[str, Curve]] = {}
    for place, title in enumerate(_TITLES):
        curves = {}
        for arm in drawn:
            series = [
                {step: pair[place] for step, pair in one.items() if np.isfinite(pair[place])} for one in courses[arm]
            ]
            if any(series):
                curves[arm] = over_replicates([one for one in series if one])
        if curves:
            panels[title] = curves
    return panels, drawn


def _course(run: RunData, name: str) -> dict[int, tuple[float, float]]:
    """Step -> accuracy in domain, and mean over the other modalities (NaN where there are none)."""
    found = {}
    for step, folder in checkpoints_in(run.run.folder).items():
        if not evaluation_file(folder, name).is_file():
            continue
        evaluation = read_evaluation(folder, name, texts=False)
        parts = split_domains(evaluation.table, evaluation.in_domain)
        found[step] = (macro_accuracy(parts[IN_DOMAIN]), macro_accuracy(parts[OUT_OF_DOMAIN]))
    return found
