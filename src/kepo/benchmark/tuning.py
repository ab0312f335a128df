"""Choosing settings: every arm tries the same ones, on validation questions and a seed that the study never uses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from kepo.benchmark.arms import RELIABLE, Arm
from kepo.benchmark.plan import TUNING, RunPlan, StudySettings
from kepo.benchmark.study import run_plans
from kepo.runs import read_metrics

LEARNING_RATES = ("1e-4", "3e-4")
_SEED = 100
_CHOSEN = "chosen.json"


def tune(
    study: Path, arms: Sequence[Arm], settings: StudySettings, workers: int, console: Console
) -> dict[str, dict[str, str]]:
    """The learning rate of every arm: the one with the best in-domain validation accuracy, of `LEARNING_RATES`.

    One run each on the first base student; of equal scores the smallest rate is taken. An arm with another teacher
    takes over what the reliable one got.

    Returns:
        Arm -> recipe fields. The scores are in `chosen.json`.
    """
    trained = [arm for arm in arms if arm.recipe is not None and arm.teacher == RELIABLE]
    plans = [
        RunPlan(study, arm, settings.bases[0], _SEED, settings, (("learning_rate", rate),), TUNING)
        for arm in trained
        for rate in LEARNING_RATES
    ]
    run_plans(plans, workers, console)
    scores: dict[str, dict[str, float]] = {arm.name: {} for arm in trained}
    for plan in plans:
        scores[plan.arm.name][dict(plan.chosen)["learning_rate"]] = _score(plan)
    best = {name: max(rates, key=lambda rate: rates[rate]) for name, rates in scores.items()}
    (study / _CHOSEN).write_text(json.dumps({"scores": scores, "learning_rate": best}, indent=2) + "\n")
    return _for_every_arm(arms, best)


def _score(plan: RunPlan) -> float:
    """The run's best in-domain validation accuracy; the one that decides which weights it ends with."""
    return max(
        record["validation/in_domain"] for record in read_metrics(plan.folder) if "validation/in_domain" in record
    )


def _for_every_arm(arms: Sequence[Arm], best: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {arm.name: {"learning_rate": best[arm.name.partition("@")[0]]} for arm in arms if arm.recipe is not None}
