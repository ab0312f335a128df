"""A study from its file to its runs: what is to be run now, and running all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kepo.runs.study import TUNING
from kepo.studies.done import is_done
from kepo.studies.plan import RunPlan, check_recipes, describe_study, plan_runs, write_recipes
from kepo.studies.runner import Failure, run_plans
from kepo.studies.schema import StudySpec
from kepo.studies.tuning import choose, chosen_fields, plan_tuning
from kepo.workers import available_workers


def plans_for_now(study: StudySpec, only: Sequence[str] = ()) -> list[RunPlan]:
    """The runs of the tuning while one of them is missing, then those of the study; recipes are written and checked.

    Args:
        study: The study.
        only: Names of arms; empty: all.

    Raises:
        ConfigError: One of `only` is no arm, or a recipe has an unknown field.
        DataError: The disk refuses.
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
        study: The study; its data must be there.
        only: Names of arms; empty: all.
        workers: Runs side by side; None: one per device, or per core where runs are in-process, else one.
        devices: As in `kepo.studies.runner.run_plans`.
        say: Told what happens, a sentence each.
        quiet: No progress bar.

    Returns:
        The runs that failed; when some of the tuning did, nothing else was run.

    Raises:
        KeyboardInterrupt: Stopped by the user; what was finished stays.
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
