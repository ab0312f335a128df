"""The arms of PhantomVQA's studies: recipes that load, each with what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest
from trl import SFTConfig

from kepo.recipes.recipe import Recipe, load_recipe
from kepo.studies.plan import plan_runs, write_recipes
from kepo.studies.reading import read_study

# arm -> what makes it that arm
SETTINGS: dict[str, dict[str, object]] = {
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
STUDY, DEMO = read_study("studies/phantom"), read_study("studies/phantom-demo")
OTHER_TEACHERS = ("wrong-rules", "lost-after-errors")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recipe]:
    study = read_study("studies/phantom", out=str(tmp_path_factory.mktemp("study")))
    plans = {plan.arm.name: plan for plan in plan_runs(study)}
    write_recipes(list(plans.values()))
    return {name: load_recipe(str(plan.recipe_file)) for name, plan in plans.items() if plan.arm.train}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_arm_is_what_its_name_says(recipes: dict[str, Recipe], name: str) -> None:
    training = recipes[name].training
    assert {field: getattr(training, field) for field in SETTINGS[name]} == SETTINGS[name]


def test_supervised_fine_tuning_goes_through_trls_trainer_and_answers_as_long_as_the_others(
    recipes: dict[str, Recipe],
) -> None:
    assert isinstance(recipes["sft"].training, SFTConfig)
    assert recipes["sft"].run.validation_max_new_tokens == 40


def test_arms_differ_in_nothing_but_what_makes_them_that_arm(recipes: dict[str, Recipe]) -> None:
    kepo, grpo = recipes["kepo"], recipes["grpo"]
    fields = ("learning_rate", "num_generations", "max_steps", "max_completion_length", "temperature", "beta")
    assert [getattr(kepo.training, f) for f in fields] == [getattr(grpo.training, f) for f in fields]
    assert kepo.data == grpo.data
    assert (kepo.training.max_steps, kepo.run.validate_every) == (40, 20)


def test_every_arm_has_a_label_of_its_own_and_the_first_is_not_trained() -> None:
    assert len({arm.label for arm in STUDY.arms}) == len(STUDY.arms) == 20
    assert [arm.name for arm in STUDY.arms if not arm.train] == [STUDY.arms[0].name] == ["zero-shot"]
    assert [arm.name for arm in STUDY.arms if arm.baseline] == ["grpo", "opd", "grpo-uniform"]


def test_gates_are_compared_again_with_every_other_teacher_the_same_recipe_and_settings(
    recipes: dict[str, Recipe],
) -> None:
    others = [arm for arm in STUDY.arms if "@" in arm.name]
    names = {f"{arm}@{teacher}" for arm in ("kepo", "kepo-token", "kepo-uniform") for teacher in OTHER_TEACHERS}
    assert {arm.name for arm in others} == names
    for arm in others:
        name, _, teacher = arm.name.partition("@")
        assert (arm.recipe, arm.tuned_as, arm.last) == (STUDY.arm(name).recipe, name, True)
        assert Path(recipes[arm.name].teacher.teacher_model_name_or_path or "").name == f"teacher-{teacher}"


def test_the_demonstration_is_a_part_of_the_study() -> None:
    assert [arm.name for arm in DEMO.arms] == ["zero-shot", "grpo", "grpo-uniform", "grpo-gated", "kepo"]
    assert all(STUDY.arm(arm.name) == arm for arm in DEMO.arms)
    assert STUDY.models[:2] == tuple(
        type(one)(one.name, {"model_name_or_path": one.fields["model_name_or_path"].replace("demo", "study")})
        for one in DEMO.models
    )


def test_the_study_asks_which_gate_with_every_teacher() -> None:
    asked = {contrast.title: contrast.pairs for contrast in STUDY.contrasts}
    for teacher in OTHER_TEACHERS:
        at = f"@{teacher}"
        assert asked[f"Which gate, with the {teacher} teacher?"] == (
            (f"kepo{at}", f"kepo-uniform{at}"),
            (f"kepo-token{at}", f"kepo-uniform{at}"),
            (f"kepo-token{at}", f"kepo{at}"),
        )
