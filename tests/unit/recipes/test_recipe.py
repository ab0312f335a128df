"""Recipes: what is shipped loads, what is misspelt is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from trl import SFTConfig

from kepo.errors import ConfigError
from kepo.recipes.files import read_recipes, shipped_recipes
from kepo.recipes.recipe import field_tables, load_recipe, own_fields
from kepo.trainer.config import KEPOConfig

# arm -> what makes it that arm
ARMS = {
    "grpo": {"exploration": "none", "distillation_weight": 0.0, "policy_weight": 1.0},
    "opd": {"exploration": "none", "gate": "always", "policy_weight": 0.0, "distillation_weight": 1.0},
    "grpo-uniform": {"exploration": "none", "gate": "always", "policy_weight": 1.0, "distillation_weight": 1.0},
    "grpo-gated": {"exploration": "none", "gate": "trajectory", "policy_weight": 1.0, "distillation_weight": 1.0},
    "kepo": {"exploration": "hint", "gate": "trajectory", "policy_weight": 1.0, "distillation_weight": 1.0},
    "kepo-token": {"exploration": "hint", "gate": "token"},
    "kepo-resample": {"exploration": "resample", "gate": "trajectory", "distillation_weight": 1.0},
    "hints-only": {"exploration": "hint", "distillation_weight": 0.0},
}


@pytest.mark.parametrize("setting", ["smollm2", "medical"])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_shipped_and_is_what_its_name_says(setting: str, arm: str) -> None:
    recipe = load_recipe(f"{setting}/{arm}", ["--data_path", "somewhere"])
    assert isinstance(recipe.training, KEPOConfig)
    for name, value in ARMS[arm].items():
        assert getattr(recipe.training, name) == value, name
    assert recipe.training.output_dir == f"runs/{setting}-{arm}"


def test_arms_of_one_setting_differ_in_their_arm_only() -> None:
    kepo = read_recipes("medical/kepo")
    grpo = read_recipes("medical/grpo")
    different = {name for name in kepo.keys() | grpo.keys() if kepo.get(name) != grpo.get(name)}
    assert different == {"output_dir", "exploration", "distillation_weight", "gate"}


def test_sft_goes_through_trls_trainer() -> None:
    assert isinstance(load_recipe("medical/sft", ["--data_path", "somewhere"]).training, SFTConfig)


def test_the_command_line_wins_over_the_recipe() -> None:
    recipe = load_recipe("smollm2/kepo", ["--learning_rate", "0.5", "--num_injected=1", "--reasoning_tasks", "gcd"])
    assert recipe.training.learning_rate == 0.5
    assert recipe.training.num_injected == 1
    assert recipe.data.reasoning_tasks == ["gcd"]


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_recipe_can_stand_on_a_shipped_one(write) -> None:
    recipe = load_recipe(write("base: smollm2/kepo\nnum_injected: 3\noutput_dir: runs/mine\n"))
    assert recipe.training.num_injected == 3
    assert recipe.model.model_name_or_path == "models/smollm2"


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("base: smollm2/kepo\ngate_treshold: 0.5\n", [], ["gate_treshold", "mine.yaml", "'gate_threshold'"]),
        ("base: smollm2/kepo\n", ["--num_injectd", "2"], ["num_injectd", "command line", "'num_injected'"]),
        ("base: smollm2/kepo\nnum_injected: 9\n", [], ["num_injected", "9", "8"]),
        ("base: smollm2/kepo\nmethod: magic\n", [], ["method", "'magic'", "kepo, sft"]),
        ("base: nowhere\n", [], ["nowhere", "`kepo recipes`"]),
        ("- a\n- list\n", [], ["mine.yaml", "name: value"]),
        ("a: [unclosed\n", [], ["mine.yaml", "YAML"]),
        ("base: smollm2/kepo\nnum_injected: many\n", [], ["mine.yaml", "num_injected"]),
        ("base: smollm2/kepo\n", ["--learning_rate", "fast"], ["learning_rate", "fast"]),
    ],
)
def test_a_recipe_that_cannot_work_is_named(write, text: str, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(write(text), overrides)
    for word in words:
        assert word in str(error.value)


def test_a_recipe_that_is_not_there_names_those_like_it() -> None:
    with pytest.raises(ConfigError, match=r"'smollm/kepo'.* Did you mean smollm2/kepo"):
        load_recipe("smollm/kepo")


def test_several_recipes_go_over_each_other_and_the_command_line_over_all(write) -> None:
    mine = write("learning_rate: 0.25\ngate_threshold: 0.5\nnum_injected: 3\n")
    recipe = load_recipe(["smollm2/_base", "arms/kepo", mine], ["--learning_rate", "0.5"])
    assert isinstance(recipe.training, KEPOConfig)
    assert (recipe.training.learning_rate, recipe.training.gate_threshold) == (0.5, 0.5)
    assert recipe.training.output_dir == "runs/smollm2-kepo-mine"
    assert recipe.source == f"smollm2/_base arms/kepo {mine}"


@pytest.mark.parametrize(
    ("names", "arm"),
    [
        (["smollm2/kepo"], "kepo"),
        (["kepo/grpo-lora"], "grpo-lora"),
        (["smollm2/_base", "arms/grpo-gated"], "grpo-gated"),
        (["paper/gkd-lambda0.5"], "gkd-lambda0.5"),
    ],
)
def test_the_arm_is_called_as_the_last_recipe_unless_it_is_named(names: list[str], arm: str) -> None:
    assert load_recipe(names).run.arm == arm
    assert load_recipe(names, ["--arm", "mine"]).run.arm == "mine"


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("smollm2/kepo", []),
        ("smollm2/kepo", ["--learning_rate", "1e-3", "--reasoning_tasks", "gcd", "chain_sum", "--replicate", "3"]),
        ("smollm2/kepo", ["--no_ds3_gather_for_generation", "--gradient_checkpointing", "--seed=7", "--overwrite"]),
        ("smollm2/sft", ["--max_steps", "2", "--model-init-kwargs", '{"use_cache": false}']),
        ("paper/kepo-tau1", ["--method", "sft"]),
    ],
)
def test_the_file_of_a_run_gives_its_recipe_again(name: str, overrides: list[str], write) -> None:
    recipe = load_recipe(name, overrides)
    again = load_recipe(write(recipe.as_yaml()))
    expected = recipe.values()
    expected["run"]["overwrite"] = False  # what becomes of an older run is not part of a recipe
    assert again.values() == expected


def test_an_older_name_on_the_command_line_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"command line: .*'hint_attempts' is called 'exploration_attempts'"):
        load_recipe("smollm2/kepo", ["--hint-attempts", "3"])
    with pytest.raises(ConfigError, match=r"command line: 'dead' of .*'all_failed'"):
        load_recipe("smollm2/kepo", ["--exploration_trigger=dead"])


@pytest.mark.parametrize("overrides", [["--seed", "3", "arms/grpo"], ["--method", "sft", "--gate_threshold", "1"]])
def test_words_that_no_field_takes_are_named(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"the command line: .* is no `--field value`"):
        load_recipe("smollm2/kepo", overrides)


def test_helpers_of_recipes_are_not_listed() -> None:
    assert "smollm2/kepo" in shipped_recipes()
    assert not any(name.split("/")[-1].startswith("_") for name in shipped_recipes())


def test_every_field_says_what_it_means() -> None:
    silent = [name for rows in own_fields().values() for name, _, text in rows if not text]
    assert silent == []
    assert "learning_rate" not in {name for name, _, _ in own_fields()["KEPOConfig"]}


def test_the_field_tables_in_the_docs_are_current() -> None:
    docs = Path(__file__).parents[3] / "docs" / "fields.md"
    assert docs.read_text() == field_tables(), "run `kepo fields --markdown > docs/fields.md`"
