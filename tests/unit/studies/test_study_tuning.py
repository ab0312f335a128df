"""The choice of settings: best on validation, equal chances for every arm, nothing of the test."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from kepo.runs import append_metrics, find_runs
from kepo.studies.commands import afterwards, stages
from kepo.studies.plan import RunPlan, plan_runs
from kepo.studies.reading import read_study
from kepo.studies.runner import mark_done
from kepo.studies.schema import StudySpec
from kepo.studies.study import plan_tuning, plans_for_now

CONTENT: dict[str, Any] = {
    "data": "data",
    "seeds": [1, 2],
    "modalities": ["MRI"],
    "models": {"small": "models/small", "big": "models/big"},
    "arms": {
        "zero-shot": {"recipe": "arms/grpo", "train": False},
        "grpo": "arms/grpo",
        "kepo": "arms/kepo",
        "kepo@odd": {"recipe": "arms/kepo", "tuned_as": "kepo", "last": True},
    },
    "main_arm": "kepo",
    "validation": {"every": 2},
    "tuning": {"grid": {"learning_rate": [1.0e-4, 3.0e-4]}, "seed": 100},
}
# arm and rate -> in-domain validation accuracy, step by step
SCORES = {
    ("grpo", 1.0e-4): [0.3, 0.6],
    ("grpo", 3.0e-4): [0.3, 0.5],
    ("kepo", 1.0e-4): [0.3, 0.4, 0.4],
    ("kepo", 3.0e-4): [0.3, 0.9, 0.1],
}


def _study(folder: Path, **changed: Any) -> StudySpec:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, "out": str(folder / "out"), **changed}, sort_keys=False))
    return read_study(str(file))


def _finish(plans: list[RunPlan], scores: dict[tuple[str, float], list[float]] = SCORES) -> None:
    """Leave the validation of `scores`, and misleading other numbers."""
    for plan in plans:
        for step, accuracy in enumerate(scores[plan.arm.name, plan.chosen["learning_rate"]]):
            append_metrics(plan.folder, step, {"reward": 1.0})
            found = {"validation/in_domain": accuracy, "validation/out_of_domain": 1.0 - accuracy}
            append_metrics(plan.folder, step, found)
        mark_done(plan)


def _rates(plans: list[RunPlan]) -> dict[str, Any]:
    return {plan.arm.name: plan.resolved()["learning_rate"] for plan in plans if plan.arm.train}


def test_every_trained_arm_tries_the_same_rates_once_with_a_seed_that_the_study_never_uses(tmp_path: Path) -> None:
    plans = plans_for_now(_study(tmp_path))
    assert [(plan.arm.name, plan.chosen["learning_rate"]) for plan in plans] == list(SCORES)
    assert {plan.model.name for plan in plans} == {"small"}
    assert {plan.seed for plan in plans} == {100}
    assert {plan.folder.parent for plan in plans} == {tmp_path / "out" / "MRI" / "tuning"}
    assert len({plan.folder for plan in plans}) == len({plan.log for plan in plans}) == 4
    assert plans[1].name == "grpo--small--seed-100--0.0003"


def test_a_run_of_the_tuning_never_reads_the_test_questions(tmp_path: Path) -> None:
    for changed in ({}, {"validation": None}):
        plans = plans_for_now(_study(tmp_path, **changed))
        words = [word for plan in plans for stage in stages(plan) for word in stage.arguments]
        assert words
        assert not any("test" in word.split("/") for word in words)
    assert "the same `kepo study`" in afterwards(plans)[0]


def test_the_rate_with_the_best_in_domain_validation_is_taken_and_kept(tmp_path: Path) -> None:
    study = _study(tmp_path)
    _finish(plans_for_now(study))
    plans = plans_for_now(study)
    assert len(plans) == 2 + 3 * 2 * 2
    assert _rates(plans) == {"grpo": 1.0e-4, "kepo": 3.0e-4, "kepo@odd": 3.0e-4}  # taken over: no run of its own
    kept = json.loads((tmp_path / "out" / "MRI" / "tuning.json").read_text())
    assert kept == {
        "field": "learning_rate",
        "scores": {"grpo": {"0.0001": 0.6, "0.0003": 0.5}, "kepo": {"0.0001": 0.4, "0.0003": 0.9}},
        "chosen": {"grpo": "0.0001", "kepo": "0.0003"},
    }
    assert json.loads((tmp_path / "out" / "MRI" / "study.json").read_text())["tuning"] == kept


def test_the_study_waits_for_all_runs_of_the_tuning(tmp_path: Path) -> None:
    study = _study(tmp_path)
    plans = plans_for_now(study)
    _finish(plans[:-1])
    assert [plan.name for plan in plans_for_now(study)] == [plan.name for plan in plans]


def test_of_equally_good_rates_the_first_is_taken(tmp_path: Path) -> None:
    study = _study(tmp_path)
    _finish(plans_for_now(study), {**SCORES, ("grpo", 3.0e-4): [0.6]})
    assert _rates(plans_for_now(study))["grpo"] == 1.0e-4


def test_only_named_arms_are_tuned_and_those_whose_choice_is_taken_over(tmp_path: Path) -> None:
    study = _study(tmp_path)
    assert {plan.arm.name for plan in plan_tuning(study, ["kepo@odd"])} == {"kepo"}
    assert {
        plan.arm.name for plan in plan_tuning(_study(tmp_path, tuning={**CONTENT["tuning"], "arms": ["grpo"]}))
    } == {"grpo"}
    assert plan_tuning(_study(tmp_path, tuning=None)) == []


def test_what_was_chosen_goes_over_the_arms_own_fields(tmp_path: Path) -> None:
    arms = {**CONTENT["arms"], "kepo": {"recipe": "arms/kepo", "fields": {"learning_rate": 5.0e-5, "gate": "token"}}}
    study = _study(tmp_path, arms=arms)
    _finish(plans_for_now(study))
    plan = next(plan for plan in plans_for_now(study) if plan.arm.name == "kepo")
    assert (plan.resolved()["learning_rate"], plan.resolved()["gate"]) == (3.0e-4, "token")


def test_without_validation_while_training_the_best_checkpoint_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"0.0001": 0.5, "0.0003": 0.7}
    monkeypatch.setattr(
        "kepo.evaluation.choosing.choose_checkpoint",
        lambda folder, by: SimpleNamespace(accuracy=values[Path(folder).name.rpartition("--")[2]]),
    )
    study = _study(tmp_path, validation=None)
    for plan in plans_for_now(study):
        mark_done(plan)
    assert set(_rates(plans_for_now(study)).values()) == {3.0e-4}


def test_reports_do_not_find_the_runs_of_the_tuning_unless_they_are_asked_for(tmp_path: Path) -> None:
    study = _study(tmp_path)
    tried, run = plan_tuning(study)[0].folder, plan_runs(study)[0].folder
    for folder in (tried, run):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    assert [found.folder for found in find_runs([tmp_path / "out"])] == [run]
    assert [found.folder for found in find_runs([tried])] == [tried]
