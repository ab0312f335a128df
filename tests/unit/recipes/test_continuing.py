"""`kepo train --continue`: what becomes of a run that lies there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kepo.errors import ConfigError
from kepo.recipes.files import how_to_continue, stated


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(f"base: arms/grpo\nlearning_rate: 1.0e-6\noutput_dir: {tmp_path / 'run'}\n")
    return file


def _run(recipe: Path, status: str, overrides: tuple[str, ...] = (), **manifest: Any) -> Path:
    folder = recipe.parent / "run"
    folder.mkdir(exist_ok=True)
    described = {"status": status, "stated": stated(str(recipe), overrides), **manifest}
    (folder / "run.json").write_text(json.dumps(described))
    return folder


def test_a_run_that_is_not_there_is_begun(recipe: Path) -> None:
    assert how_to_continue([str(recipe)], []) == []


def test_a_finished_run_is_left_alone(recipe: Path) -> None:
    _run(recipe, "finished")
    assert how_to_continue([str(recipe)], []) is None


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_goes_on_from_its_last_whole_checkpoint(recipe: Path, status: str) -> None:
    folder = _run(recipe, status)
    assert how_to_continue([str(recipe)], []) == ["--overwrite", "true"]
    for step in (5, 10, 15):
        (folder / f"checkpoint-{step}").mkdir()
    for step in (5, 10):
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert how_to_continue([str(recipe)], []) == ["--resume_from_checkpoint", str(folder / "checkpoint-10")]


def test_a_run_with_other_settings_is_refused(recipe: Path) -> None:
    _run(recipe, "finished")
    recipe.write_text(recipe.read_text().replace("1.0e-6", "2.0e-6"))
    with pytest.raises(ConfigError, match="learning_rate: 1e-06 there, 2e-06 now"):
        how_to_continue([str(recipe)], [])


def test_arguments_count_as_settings_but_not_those_about_older_runs(recipe: Path) -> None:
    overrides = ("--seed", "3", "--resume_from_checkpoint", "latest", "--overwrite")
    _run(recipe, "finished", overrides)
    assert how_to_continue([str(recipe)], ["--seed", "3"]) is None
    with pytest.raises(ConfigError, match="arguments"):
        how_to_continue([str(recipe)], ["--seed", "4"])


def test_a_run_of_nobody_knows_what_is_refused(recipe: Path) -> None:
    folder = _run(recipe, "finished")
    (folder / "run.json").write_text('{"status": "finished"}')
    with pytest.raises(ConfigError, match="does not say by which settings"):
        how_to_continue([str(recipe)], [])


def test_a_folder_given_on_the_command_line_counts(recipe: Path, tmp_path: Path) -> None:
    _run(recipe, "finished")
    assert how_to_continue([str(recipe)], [f"--output_dir={tmp_path / 'other'}"]) == []
    assert how_to_continue(["arms/grpo"], ["--output_dir", str(tmp_path / "third")]) == []
    with pytest.raises(ConfigError, match="output_dir is missing"):
        how_to_continue(["arms/grpo"], [])
