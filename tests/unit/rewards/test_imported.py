"""Rewards of the user's own: in a module or a file of the current folder, and what is said where they are not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kepo.errors import ConfigError
from kepo.rewards import choice_accuracy, get_rewards
from kepo.rewards.imported import name_of, reward_called

CODE = (
    "from own_helper import half\n\ndef good(completions, **columns):\n    return [half] * len(completions)\n\nX = 3\n"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_rewards.py").write_text(CODE)
    (tmp_path / "own_helper.py").write_text("half = 0.5\n")
    (tmp_path / "own_broken.py").write_text("x = 1\n\ndef f(:\n")
    (tmp_path / "own_needs.py").write_text("import nothing_of_that_name\n")
    monkeypatch.chdir(tmp_path)
    # As `kepo`, the installed script, is started: without the current folder.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "modules", {name: one for name, one in sys.modules.items() if not name.startswith("own_")})
    return tmp_path


@pytest.mark.parametrize("name", ["own_rewards.py:good", "./own_rewards.py:good", "own_rewards:good"])
def test_a_reward_of_the_current_folder_is_found(name: str) -> None:
    (found,) = get_rewards([name])
    assert found(["a", "b"]) == [0.5, 0.5]
    assert found.__name__ == "good"


def test_a_reward_of_another_folder_is_found_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert get_rewards([f"{folder}/own_rewards.py:good"])[0](["a"]) == [0.5]


def test_a_file_that_is_called_like_an_installed_module_hides_none(folder: Path) -> None:
    (folder / "json.py").write_text("def good(completions, **columns):\n    return [0.25]\n")
    import json

    assert get_rewards(["json.py:good"])[0](["a"]) == [0.25]
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_rewards.py:god", r"'god' does not exist in own_rewards.py; did you mean 'good'\?"),
        ("own_reward.py:good", r"there is no file own_reward.py .*Did you mean 'own_rewards.py'\?"),
        ("own_reward:good", r"there is no module 'own_reward'.*Did you mean 'own_rewards.py:good'\?"),
        ("own_rewards.py:X", "'X' in own_rewards.py is not a function"),
        ("own_broken.py:f", r"own_broken.py, line 3: SyntaxError"),
        ("own_needs.py:f", r"own_needs.py, line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("own_needs:f", r"own_needs.py, line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("own_rewards.py:", "write it as"),
        ("__main__:good", "defined in the script that trained"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        get_rewards([name])


def test_a_function_has_a_name_that_finds_it_again() -> None:
    (own,) = get_rewards(["own_rewards:good"])
    for function, name in ((choice_accuracy, "choice_accuracy"), (own, "own_rewards:good")):
        assert name_of(function, "logged") == name
        assert get_rewards([name]) == [function]
    assert name_of(object(), "reward_model") == "reward_model"
    assert reward_called("good", ["think_format", "own_rewards:good"]) == "own_rewards:good"
    assert reward_called("choice_accuracy", ["think_format"]) == "choice_accuracy"
