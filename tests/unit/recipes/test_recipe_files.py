"""Recipes join: on the command line, by their names and by `base:`; names of earlier versions are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kepo.errors import ConfigError
from kepo.recipes.files import (
    check_names,
    find_recipe,
    override_values,
    parts_of,
    read_recipes,
    shipped_recipes,
    split_arguments,
    suites,
)

JOINED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("joined_recipes.json").read_text())
"""What 42 names held while each was a file of its own."""


@pytest.mark.parametrize("name", JOINED)
def test_a_joined_name_holds_what_its_file_held(name: str) -> None:
    assert len(JOINED) == 42
    assert read_recipes(name) == JOINED[name]
    assert name in shipped_recipes()


def test_a_name_is_the_suite_and_the_arm_joined_and_its_variant() -> None:
    assert parts_of("kepo/kepo") == ["kepo/_base", "arms/kepo"]
    assert read_recipes(["kepo/_base", "arms/kepo"]) == read_recipes("kepo/kepo")
    assert parts_of("kepo/grpo-gated-lora") == ["kepo/_base", "arms/grpo-gated", "kepo/_lora"]
    assert read_recipes(["kepo/_base", "arms/kepo", "kepo/_lora"]) == read_recipes("kepo/kepo-lora")


def test_a_name_with_a_file_is_that_file() -> None:
    assert parts_of("medical/sft") == []
    assert find_recipe("medical/sft")[0].name == "sft.yaml"
    # The supervised arm of this suite has settings of its own, so its variant stands on them.
    assert parts_of("kepo/sft-lora") == ["kepo/sft", "kepo/_lora"]


@pytest.mark.parametrize("name", ["paper/kepo", "kepo/magic", "kepo/kepo-base", "smollm2/kepo-lora", "nowhere/kepo"])
def test_what_cannot_be_joined_is_no_recipe(name: str) -> None:
    with pytest.raises(ConfigError, match=f"There is no recipe '{name}'.*`kepo recipes` lists"):
        read_recipes(name)


def test_suites_take_any_arm_and_the_paper_takes_none() -> None:
    assert suites() == ["kepo", "medical", "phantom", "smollm2"]
    assert not [name for name in shipped_recipes() if name.startswith(("studies/", "accelerate_configs/"))]


def test_later_recipes_win_and_name_the_folder(tmp_path: Path) -> None:
    (tmp_path / "fast.yaml").write_text("learning_rate: 0.5\ngate: token\n")
    fast = str(tmp_path / "fast.yaml")
    assert read_recipes(["kepo/_base", "arms/kepo", fast])["gate"] == "token"
    assert read_recipes([fast, "kepo/_base", "arms/kepo"])["gate"] == "trajectory"
    assert read_recipes(["kepo/_base", "arms/kepo", fast])["output_dir"] == "runs/kepo-kepo-fast"
    assert "output_dir" not in read_recipes(fast)


def test_a_base_may_be_a_joined_name_and_several(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: [smollm2/_base, arms/grpo]\nseed: 7\n")
    joined = read_recipes(["smollm2/_base", "arms/grpo"])
    del joined["output_dir"]
    assert read_recipes(str(file)) == {**joined, "seed": 7}
    file.write_text("base: smollm2/grpo\nseed: 7\n")
    assert read_recipes(str(file)) == {**read_recipes("smollm2/grpo"), "seed": 7}


def test_no_recipe_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="No recipe is named"):
        read_recipes([])


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("on_policy_share: 0.5", "on_policy_share", "lmbda"),
        ("hint_attempts: 5", "hint_attempts", "exploration_attempts"),
        ("hint_samples_per_attempt: 2", "hint_samples_per_attempt", "exploration_samples_per_attempt"),
        ("exploration_trigger: dead", "dead", "all_failed"),
    ],
)
def test_names_of_earlier_versions_are_refused_with_the_new_ones(tmp_path: Path, line: str, old: str, new: str) -> None:
    (tmp_path / "older.yaml").write_text(f"{line}\n")
    (tmp_path / "mine.yaml").write_text("base: [smollm2/kepo, older]\n")
    with pytest.raises(ConfigError, match=rf"older\.yaml: .*'{old}'.* is called '{new}' now"):
        read_recipes(str(tmp_path / "mine.yaml"))
    name, value = line.split(": ")
    with pytest.raises(ConfigError, match=f"study.yaml: .*'{new}' now"):
        check_names({name: value}, "study.yaml")


def test_recipes_stand_before_the_first_field() -> None:
    words = ["kepo/_base", "arms/kepo", "--seed", "3", "--overwrite"]
    assert split_arguments(words) == (words[:2], words[2:])
    assert split_arguments(["kepo/kepo"]) == (["kepo/kepo"], [])


def test_overrides_name_fields_and_the_first_word_of_their_values() -> None:
    words = ["--max-steps=3", "--overwrite", "--reasoning_tasks", "gcd", "chain_sum", "--max_steps", "4"]
    assert override_values(words) == {"max_steps": "4", "overwrite": None, "reasoning_tasks": "gcd"}
