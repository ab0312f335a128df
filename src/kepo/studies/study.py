"""A study from its file to its runs: settings chosen first, if the study says so, then all of it.

Every arm tries the same settings, on validation questions and a seed that the study never uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from kepo.files import write_json
from kepo.runs import read_metrics
from kepo.runs.study import TUNING, StudyTuning
from kepo.studies.commands import VALIDATION
from kepo.studies.plan import RunPlan, check_recipes, chosen_arms, combination, describe_study, plan_runs, write_recipes
from kepo.studies.runner import Failure, is_done, run_plans
from kepo.studies.schema import ArmSpec, StudySpec, TuningSpec
from kepo.workers import available_workers

_FILE = "tuning.json"


def plans_for_now(study: StudySpec, only: Sequence[str] = ()) -> list[RunPlan]:
    """The runs of the tuning while one of them is missing, then those of the study; recipes are written and checked.

    Raises:
        ConfigError: One of the arms `only` is none, or a recipe has an unknown field.
    """
    tuning = plan_tuning(study, only)
    runs = plan_runs(study, only)
    write_recipes([*tuning, *runs])
    check_recipes(runs)
    describe_study(study)
    if not tuning:
        return runs
    if not all(map(is_done, tuning)):
        return tuning
    found = choose(study, tuning)
    describe_study(study, found)
    runs = plan_runs(study, only, chosen_fields(study, found))
    write_recipes(runs)
    return runs


def run_study(
    study: StudySpec,
    only: Sequence[str] = (),
    *,
    workers: int | None = None,
    devices: Sequence[str] = (),
    say: Callable[[str], None],
    quiet: bool = False,
) -> list[Failure]:
    """Choose settings, if the study says so, and run all of it; what is done is not done again.

    Args:
        study: Its data must be there.
        only: Names of arms; empty: all.
        workers: Runs side by side; None: one per device, or per core where runs are in-process, else one.
        devices: As in `kepo.studies.runner.run_plans`.
        say: Called with a sentence about what happens.
        quiet: No progress bar.

    Returns:
        The runs that failed; when some of the tuning did, nothing else was run.
    """
    workers = workers or len(devices) or (available_workers() if study.workers == "in-process" else 1)
    plans = plans_for_now(study, only)
    if plans[0].stage == TUNING:
        say("Choosing settings on validation questions")
        failures = _run(plans, workers, devices, say, quiet)
        if failures:
            return failures
        plans = plans_for_now(study, only)
    return _run(plans, workers, devices, say, quiet)


def _run(
    plans: Sequence[RunPlan], workers: int, devices: Sequence[str], say: Callable[[str], None], quiet: bool
) -> list[Failure]:
    say(f"{len(plans)} runs, {sum(map(is_done, plans))} of them done; {workers} side by side")
    failures = run_plans(plans, workers, devices, say, quiet)
    if failures:
        say(f"{len(failures)} of {len(plans)} runs failed; the same command tries them again")
    return failures


def plan_tuning(study: StudySpec, only: Sequence[str] = ()) -> list[RunPlan]:
    """A run for each arm (of `only`) that is tuned, training modality and combination of the grid."""
    tuning = study.tuning
    if tuning is None:
        return []
    model = next((one for one in study.models if one.name == tuning.model), study.models[0])
    tuned = {_tuned_as(arm, tuning) for arm in chosen_arms(study, only)}
    return [
        RunPlan(study, arm, model, modality, tuning.seed, fields, TUNING)
        for modality in study.modalities
        for arm in study.arms
        if arm.name in tuned
        for fields in _combinations(tuning)
    ]


def choose(study: StudySpec, plans: Sequence[RunPlan]) -> dict[str, StudyTuning]:
    """What the runs of the tuning found, by training modality; also written to `tuning.json` of each.

    The combination with the best in-domain validation accuracy is chosen; of equal ones the first of the grid.
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for plan in plans:
        of_arm = scores.setdefault(plan.modality, {}).setdefault(plan.arm.name, {})
        of_arm[combination(plan.chosen)] = _score(plan)
    found: dict[str, StudyTuning] = {}
    names = ", ".join(plans[0].chosen)
    for modality, of_modality in scores.items():
        best: dict[str, str | float] = {arm: max(tried, key=tried.__getitem__) for arm, tried in of_modality.items()}
        found[modality] = StudyTuning(field=names, scores=of_modality, chosen=best)
        write_json(msgspec.to_builtins(found[modality]), study.out / modality / _FILE)
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
