"""Plans: one per run, named apart, and the same plan wherever the study lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kepo.benchmark.arms import Arm, all_arms
from kepo.benchmark.plan import TUNING, RunPlan, StudySettings, plan_runs
from kepo.benchmark.worker import is_done

ARM = Arm("kepo", "KEPO", "kepo")
PLAN = RunPlan(Path("study"), ARM, "student-2", 7, StudySettings(), (("learning_rate", "1e-3"),))


def _value(plan: RunPlan, field: str) -> str:
    overrides = plan.overrides()
    return overrides[overrides.index(f"--{field}") + 1]


def test_a_plan_turns_the_recipe_into_its_run() -> None:
    assert _value(PLAN, "arm") == "kepo"
    assert _value(PLAN, "replicate") == "student-2/seed-7"
    assert _value(PLAN, "seed") == "7"
    assert _value(PLAN, "max_steps") == "100"
    assert _value(PLAN, "learning_rate") == "1e-3"
    assert Path(_value(PLAN, "model_name_or_path")) == Path("study/models/student-2")
    assert Path(_value(PLAN, "teacher_model_name_or_path")) == Path("study/models/teacher-reliable")
    assert Path(_value(PLAN, "data_path")) == Path("study/data/train.jsonl")
    assert Path(_value(PLAN, "output_dir")) == PLAN.folder == Path("study/runs/kepo--student-2--seed-7")


def test_an_arm_with_another_teacher_asks_that_one() -> None:
    plan = replace(PLAN, arm=replace(ARM, teacher="wrong-rules"))
    assert Path(_value(plan, "teacher_model_name_or_path")) == Path("study/models/teacher-wrong-rules")


def test_what_was_chosen_wins_over_the_arms_own_settings() -> None:
    plan = replace(PLAN, arm=replace(ARM, settings={"learning_rate": "5e-5", "gate": "token"}))
    assert _value(plan, "learning_rate") == "1e-3"
    assert _value(plan, "gate") == "token"


def test_runs_of_tuning_are_named_by_what_they_try_and_lie_apart() -> None:
    tried = [replace(PLAN, stage=TUNING, chosen=(("learning_rate", rate),)) for rate in ("1e-4", "1e-3")]
    assert tried[0].folder == Path("study/tuning/kepo--student-2--seed-7--1e-4")
    assert len({plan.folder for plan in (*tried, PLAN)}) == len({plan.log for plan in (*tried, PLAN)}) == 3


def test_all_plans_of_a_study_have_folders_of_their_own_and_each_arm_every_base_and_seed() -> None:
    settings = StudySettings(bases=("a", "b"), seeds=(1, 2))
    plans = plan_runs(Path("s"), all_arms(), settings)
    assert len({plan.folder for plan in plans}) == len(plans) == 4 * len(all_arms())


def test_one_repetition_comes_after_the_other_and_other_teachers_last() -> None:
    arms = [Arm("x", "X", "grpo"), Arm("x@odd", "X odd", "grpo", teacher="odd"), Arm("y", "Y", "grpo")]
    plans = plan_runs(Path("s"), arms, StudySettings(bases=("a", "b"), seeds=(1, 2)))
    order = [(plan.arm.name, plan.base, plan.seed) for plan in plans]
    assert order[:4] == [("x", "a", 1), ("y", "a", 1), ("x", "b", 1), ("y", "b", 1)]
    assert order[8:] == [("x@odd", "a", 1), ("x@odd", "b", 1), ("x@odd", "a", 2), ("x@odd", "b", 2)]


def test_every_arm_gets_what_was_chosen_for_it() -> None:
    chosen = {"x": {"learning_rate": "1e-3"}}
    plans = plan_runs(Path("s"), [Arm("x", "X", "grpo"), Arm("y", "Y", "grpo")], StudySettings(), chosen)
    assert [plan.chosen for plan in plans] == [(("learning_rate", "1e-3"),), ()]


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, seed=8),
        replace(PLAN, base="student-1"),
        replace(PLAN, chosen=(("learning_rate", "3e-4"),)),
        replace(PLAN, arm=replace(ARM, recipe="grpo")),
        replace(PLAN, arm=replace(ARM, settings={"gate": "token"})),
        replace(PLAN, arm=replace(ARM, teacher="wrong-rules")),
        replace(PLAN, settings=StudySettings(steps=50)),
        replace(PLAN, settings=StudySettings(test=7)),
        replace(PLAN, settings=StudySettings(validate_every=5)),
        replace(PLAN, settings=StudySettings(data_seed=1)),
    ],
)
def test_a_run_with_other_settings_is_another_run(other: RunPlan) -> None:
    assert other.identity() != PLAN.identity()


@pytest.mark.parametrize(
    "same",
    [
        replace(PLAN, study=Path("/elsewhere/study")),
        replace(PLAN, settings=StudySettings(bases=("student-1", "student-2"), seeds=(7, 8))),
        replace(PLAN, arm=replace(ARM, label="another label")),
    ],
    ids=["folder", "more bases and seeds", "label"],
)
def test_a_run_stays_the_same_when_the_study_is_moved_or_grows(same: RunPlan) -> None:
    assert same.identity() == PLAN.identity()


def test_a_run_of_a_recipe_that_was_changed_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PLAN.identity()
    monkeypatch.setattr("kepo.benchmark.plan.read_recipes", lambda names: {"learning_rate": 1.0})
    assert PLAN.identity() != before
    assert PLAN.identity()["recipe"] == {"learning_rate": 1.0}


def test_a_plan_survives_json() -> None:
    assert json.loads(json.dumps(PLAN.identity())) == PLAN.identity()


def test_a_run_is_done_when_its_note_says_so(tmp_path: Path) -> None:
    plan = replace(PLAN, study=tmp_path)
    assert not is_done(plan)
    plan.folder.mkdir(parents=True)
    (plan.folder / "plan.json").write_text(json.dumps(plan.identity()))
    assert is_done(plan)
    assert not is_done(replace(plan, chosen=()))
