"""The choice of settings: best on validation, equal chances for every arm, nothing of the test."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from kepo.benchmark import tuning, worker
from kepo.benchmark.arms import Arm
from kepo.benchmark.plan import TUNING, RunPlan, StudySettings
from kepo.benchmark.tuning import LEARNING_RATES, tune
from kepo.runs import append_metrics

ARMS = [
    Arm("zero-shot", "Base", None),
    Arm("grpo", "GRPO", "grpo"),
    Arm("kepo", "KEPO", "kepo"),
    Arm("kepo@odd", "KEPO odd", "kepo", teacher="odd"),
]
SETTINGS = StudySettings(bases=("student-1", "student-2"), seeds=(1, 2))
# arm and rate -> in-domain validation accuracy, step by step
SCORES = {
    ("grpo", "1e-4"): [0.3, 0.6],
    ("grpo", "3e-4"): [0.3, 0.5],
    ("kepo", "1e-4"): [0.3, 0.4, 0.4],
    ("kepo", "3e-4"): [0.3, 0.9, 0.1],
}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RunPlan]:
    """The plans that were run; each leaves the validation of `SCORES`, and misleading other numbers."""
    plans: list[RunPlan] = []

    def run_plans(todo: Sequence[RunPlan], workers: int, console: Console) -> None:
        for plan in todo:
            plans.append(plan)
            for step, accuracy in enumerate(SCORES[plan.arm.name, dict(plan.chosen)["learning_rate"]]):
                append_metrics(plan.folder, step, {"reward": 1.0})
                found = {"validation/in_domain": accuracy, "validation/out_of_domain": 1.0 - accuracy}
                append_metrics(plan.folder, step, found)

    monkeypatch.setattr(tuning, "run_plans", run_plans)
    return plans


def _tune(study: Path) -> dict[str, dict[str, str]]:
    return tune(study, ARMS, SETTINGS, 1, Console(file=io.StringIO()))


def test_the_rate_with_the_best_in_domain_validation_is_taken(tmp_path: Path, ran: list[RunPlan]) -> None:
    chosen = _tune(tmp_path)
    assert chosen == {
        "grpo": {"learning_rate": "1e-4"},
        "kepo": {"learning_rate": "3e-4"},
        "kepo@odd": {"learning_rate": "3e-4"},  # taken over: no run of its own
    }


def test_every_trained_arm_tries_the_same_rates_once_with_a_seed_that_the_study_never_uses(
    tmp_path: Path, ran: list[RunPlan]
) -> None:
    _tune(tmp_path)
    assert [(plan.arm.name, dict(plan.chosen)["learning_rate"]) for plan in ran] == [
        (arm, rate) for arm in ("grpo", "kepo") for rate in LEARNING_RATES
    ]
    assert {plan.base for plan in ran} == {"student-1"}
    assert not {plan.seed for plan in ran} & set(SETTINGS.seeds)
    assert {plan.stage for plan in ran} == {TUNING}


def test_the_scores_are_kept(tmp_path: Path, ran: list[RunPlan]) -> None:
    _tune(tmp_path)
    kept = json.loads((tmp_path / "chosen.json").read_text())
    assert kept["scores"]["kepo"] == {"1e-4": 0.4, "3e-4": 0.9}
    assert kept["learning_rate"] == {"grpo": "1e-4", "kepo": "3e-4"}


def test_of_equally_good_rates_the_smallest_is_taken(
    tmp_path: Path, ran: list[RunPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORES, ("grpo", "3e-4"), [0.6])
    assert _tune(tmp_path)["grpo"] == {"learning_rate": "1e-4"}


def test_a_run_of_tuning_never_reads_the_test_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(worker, "_train", lambda plan: plan.folder.mkdir(parents=True))
    monkeypatch.setattr(worker, "_evaluate", lambda plan, model: read.append(plan.name))
    plan = RunPlan(tmp_path, ARMS[1], "student-1", 100, SETTINGS, (("learning_rate", "1e-4"),), TUNING)
    worker.run(plan)
    assert worker.is_done(plan)
    assert read == []
