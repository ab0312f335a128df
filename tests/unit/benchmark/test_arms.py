"""The arms of the study: recipes that load, each with what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest
from trl import SFTConfig

from kepo.benchmark.arms import OTHER_TEACHERS, RELIABLE, ZERO_SHOT, Arm, all_arms, demo_arms
from kepo.benchmark.plan import RunPlan, StudySettings
from kepo.phantom.build import MODEL_PLANS
from kepo.recipes.recipe import Recipe, load_recipe

# arm -> what makes it that arm
SETTINGS = {
    "grpo": {"exploration": "none", "distillation_weight": 0.0, "policy_weight": 1.0},
    "opd-0": {"gate": "always", "policy_weight": 0.0, "lmbda": 0.0},
    "opd-0.5": {"gate": "always", "policy_weight": 0.0, "lmbda": 0.5},
    "opd": {"gate": "always", "policy_weight": 0.0, "lmbda": 1.0},
    "grpo-uniform": {"exploration": "none", "gate": "always", "policy_weight": 1.0},
    "grpo-gated": {"exploration": "none", "gate": "trajectory"},
    "grpo-token": {"exploration": "none", "gate": "token"},
    "kepo": {"exploration": "hint", "gate": "trajectory"},
    "kepo-token": {"exploration": "hint", "gate": "token"},
    "kepo-uniform": {"exploration": "hint", "gate": "always"},
    "kepo-resample": {"exploration": "resample", "gate": "trajectory"},
    "hints-only": {"exploration": "hint", "distillation_weight": 0.0},
}
BY_NAME = {arm.name: arm for arm in all_arms()}


def _recipe(arm: Arm) -> Recipe:
    return load_recipe(f"phantom/{arm.recipe}", RunPlan(Path("s"), arm, "student-1", 1, StudySettings()).overrides())


@pytest.mark.parametrize("name", SETTINGS)
def test_an_arm_is_what_its_name_says(name: str) -> None:
    training = _recipe(BY_NAME[name]).training
    assert {field: getattr(training, field) for field in SETTINGS[name]} == SETTINGS[name]


def test_supervised_fine_tuning_goes_through_trls_trainer_and_needs_no_teacher() -> None:
    recipe = _recipe(BY_NAME["sft"])
    assert isinstance(recipe.training, SFTConfig)


def test_arms_differ_in_nothing_but_what_makes_them_that_arm() -> None:
    kepo, grpo = (_recipe(BY_NAME[name]) for name in ("kepo", "grpo"))
    fields = ("learning_rate", "num_generations", "max_steps", "max_completion_length", "temperature", "beta")
    assert [getattr(kepo.training, f) for f in fields] == [getattr(grpo.training, f) for f in fields]
    assert kepo.data == grpo.data


def test_every_arm_has_a_name_and_a_label_of_its_own() -> None:
    arms = all_arms()
    assert len({arm.name for arm in arms}) == len({arm.label for arm in arms}) == len(arms)
    assert arms[0].name == ZERO_SHOT
    assert [arm.name for arm in arms if arm.recipe is None] == [ZERO_SHOT]


def test_gates_are_compared_again_with_every_other_teacher_and_the_same_recipe() -> None:
    others = [arm for arm in all_arms() if arm.teacher != RELIABLE]
    assert {arm.teacher for arm in others} == set(OTHER_TEACHERS)
    for arm in others:
        same = BY_NAME[arm.name.partition("@")[0]]
        assert (arm.recipe, arm.settings) == (same.recipe, same.settings)
    per_teacher = [{a.recipe for a in others if a.teacher == teacher} for teacher in OTHER_TEACHERS]
    assert per_teacher[0] == per_teacher[1] == {"kepo", "kepo-token", "kepo-uniform"}


def test_every_teacher_can_be_built() -> None:
    assert {f"teacher-{arm.teacher}" for arm in all_arms()} <= set(MODEL_PLANS)


def test_the_demonstration_is_a_part_of_the_study() -> None:
    assert {arm.name for arm in demo_arms()} == {ZERO_SHOT, "grpo", "grpo-uniform", "grpo-gated", "kepo"}
    assert all(BY_NAME[arm.name] == arm for arm in demo_arms())
