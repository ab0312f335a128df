"""Choosing settings: every arm tries the same ones, on validation questions and a seed that the study never uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from kepo.files import write_json
from kepo.runs import read_metrics
from kepo.runs.study import TUNING, StudyTuning
from kepo.studies.commands import VALIDATION
from kepo.studies.plan import RunPlan, chosen_arms, combination
from kepo.studies.schema import ArmSpec, StudySpec, TuningSpec

_FILE = "tuning.json"


def plan_tuning(study: StudySpec, only: Sequence[str] = ()) -> list[RunPlan]:
    """A run for each arm that is tuned, training modality and combination of the grid; none without tuning.

    Args:
        study: The study.
        only: Names of arms; empty: all.
    """
    tuning = study.tuning
    if tuning is None:
        return []
    model = next((one for one in study.models if one.name == tuning.model), study.models[0])
    wanted = {_tuned_as(arm, tuning) for arm in chosen_arms(study, only)}
    return [
        RunPlan(study, arm, model, modality, tuning.seed, fields, TUNING)
        for modality in study.modalities
        for arm in study.arms
        if arm.name in wanted
        for fields in _combinations(tuning)
    ]


def choose(study: StudySpec, plans: Sequence[RunPlan]) -> dict[str, StudyTuning]:
    """What the runs of the tuning found, by training modality; also written to `tuning.json` of each.

    The combination with the best in-domain validation accuracy is chosen; of equal ones the first of the grid.

    Args:
        study: The study.
        plans: Of `plan_tuning`, all done.
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for plan in plans:
        of_arm = scores.setdefault(plan.modality, {}).setdefault(plan.arm.name, {})
        of_arm[combination(plan.chosen)] = _score(plan)
    found = {
        modality: StudyTuning(
            field=", ".join(plans[0].chosen),
            scores=of_modality,
            chosen={arm: max(tried, key=tried.__getitem__) for arm, tried in of_modality.items()},
        )
        for modality, of_modality in scores.items()
    }
    for modality, tuning in found.items():
        write_json(msgspec.to_builtins(tuning), study.out / modality / _FILE)
    return found


def chosen_fields(study: StudySpec, found: Mapping[str, StudyTuning]) -> dict[str, dict[str, dict[str, Any]]]:
    """Training modality -> arm -> the recipe fields chosen for it, or for the arm whose choice it takes over."""
    if study.tuning is None:
        return {}
    fields = {combination(one): one for one in _combinations(study.tuning)}
    names = {arm.name: _tuned_as(arm, study.tuning) for arm in study.arms}
    return {
        modality: {arm: fields[str(tuned.chosen[name])] for arm, name in names.items() if name in tuned.chosen}
        for modality, tuned in found.items()
    }


def _tuned_as(arm: ArmSpec, tuning: TuningSpec) -> str | None:
    """The arm whose choice it takes; None: it has no part in the tuning."""
    name = arm.tuned_as or arm.name
    return name if arm.train and name in (tuning.arms or [name]) else None


def _combinations(tuning: TuningSpec) -> list[dict[str, Any]]:
    return [dict(zip(tuning.grid, values, strict=True)) for values in product(*tuning.grid.values())]


def _score(plan: RunPlan) -> float:
    """The in-domain validation accuracy of the weights that the run would be tested with."""
    if plan.study.validation is None:
        from kepo.evaluation.choosing import choose_checkpoint

        return choose_checkpoint(plan.folder, VALIDATION).accuracy
    logged = [record.get("validation/in_domain") for record in read_metrics(plan.folder)]
    return max(accuracy for accuracy in logged if accuracy is not None)
