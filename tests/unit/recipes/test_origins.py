"""An error names the file and line of a value, or the command line, whichever it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from kepo.errors import ConfigError, KepoError
from kepo.recipes.recipe import load_recipe

GOOD = "base: smollm2/_base\n\nmax_steps: 3\noutput_dir: run\n"


def _error(names: str, *overrides: str) -> str:
    with pytest.raises(KepoError) as caught:
        load_recipe(names, overrides)
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(GOOD)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rat: 1", ["'learning_rat' in bad.yaml, line 5", "'learning_rate'"]),
        ("learning_rate: fast", ["bad.yaml, line 5", "learning_rate", "'fast'"]),
        ("num_train: 1.5", ["bad.yaml, line 5: num_train is 1.5; give a whole number"]),
        ("beta: [1]", ["bad.yaml, line 5: beta is [1]; give a number"]),
        ("seed:", ["bad.yaml, line 5: seed is empty; give a whole number"]),
        ("bf16: maybe", ["bad.yaml, line 5", "bf16", "maybe"]),
        ("gate: trajectroy", ["did you mean 'trajectory'?", "from bad.yaml, line 5"]),
        ("method: kpeo", ["bad.yaml, line 5: method is 'kpeo'; did you mean 'kepo'?"]),
        ("save_strategy: stepss", ["stepss is not a valid", "save_strategy 'stepss' is from bad.yaml, line 5"]),
        ("loss_type: grppo", ["bad.yaml, line 5: loss_type is 'grppo'; did you mean 'grpo'?"]),
        ("temperature: 0", ["bad.yaml, line 5: temperature is 0; give a number above 0"]),
        ("num_generations: 0", ["bad.yaml, line 5: num_generations is 0; give at least 1"]),
        ("learning_rate: .nan", ["bad.yaml, line 5: learning_rate is nan"]),
        ("max_steps: 4", ["bad.yaml: 'max_steps' stands in line 3 and again in line 5"]),
        ("x: [", ["bad.yaml is not valid YAML", "line 6"]),
        ("num_injected: 50", ["num_injected 50 is from bad.yaml, line 5", "smollm2/_base.yaml, line"]),
    ],
)  # fmt: skip
def test_a_line_of_a_file_is_named(folder: Path, line: str, words: list[str]) -> None:
    (folder / "bad.yaml").write_text(f"{GOOD}{line}\n")
    message = _error("bad.yaml")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--learning_rate", "fast"], ["the command line", "learning_rate", "'fast'"]),
        (["--learning_rate"], ["the command line", "expected one argument"]),
        (["--learning_rat", "1"], ["'learning_rat' in the command line", "'learning_rate'"]),
        (["--num_injected", "50"], ["num_injected 50 is from the command line", "smollm2/_base.yaml, line"]),
        (["--num_generations", "5"], ["num_generations 5 is from the command line"]),
        (["--gate", "allways"], ["did you mean 'always'?", "gate 'allways' is from the command line"]),
        (["--temperature=-1"], ["the command line: temperature is -1"]),
    ],
)
def test_the_command_line_is_named_and_no_file_is_blamed(overrides: list[str], words: list[str]) -> None:
    message = _error("mine.yaml", *overrides)
    for word in words:
        assert word in message
    assert "mine.yaml" not in message


def test_what_people_write_is_read(folder: Path) -> None:
    """1e-5 is a text in YAML, a list of one is written without brackets, a repetition is a number."""
    lines = "learning_rate: 1e-5\nreward_funcs: math_accuracy\nreplicate: 1\nlogging_steps: 1.0\nbeta: 0\nhint_bank:\n"
    (folder / "good.yaml").write_text(GOOD + lines)
    recipe = load_recipe("good.yaml")
    assert recipe.training.learning_rate == 1e-5
    assert recipe.run.reward_funcs == ["math_accuracy"]
    assert recipe.training.hint_bank is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mine.yml", "mine.yaml"),
        ("mine", "mine.yaml"),
        ("mine.yalm", "mine.yaml"),
        ("smollm2/kpeo", "smollm2/kepo"),
        ("smolm2/kepo", "smollm2/kepo"),
        ("grpo-uniform", "arms/grpo-uniform"),
    ],
)
def test_a_recipe_that_is_not_there_is_guessed(name: str, meant: str) -> None:
    assert f"{meant}" in _error(name).split("Did you mean")[1].split("?")[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"hello", "it begins with 'hello'"),
        (b"1: x", "name: value"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"base: 3", "line 1: base is 3"),
        (b"base: bad", "bad.yaml is its own base"),
    ],
)
def test_a_file_that_is_no_recipe(folder: Path, content: bytes, says: str) -> None:
    (folder / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load_recipe("bad.yaml")
