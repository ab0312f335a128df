"""Run folders describe themselves, hold no secrets, and are never overwritten silently."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from kepo.errors import ConfigError
from kepo.recipes.arguments import RunArguments
from kepo.runs.folder import claim, older_run_set_aside
from kepo.runs.manifest import describe, finish_manifest, write_manifest
from kepo.trainer.config import KEPOConfig
from kepo.trainer.run_folder import RunRecord


def test_an_empty_or_missing_folder_is_free(tmp_path: Path) -> None:
    assert claim(tmp_path / "new", overwrite=False, resume=None) is None
    assert claim(tmp_path, overwrite=False, resume=None) is None


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(ConfigError, match="not empty"):
        claim(tmp_path, overwrite=False, resume=None)
    with pytest.raises(ConfigError, match="not made by this program"):
        claim(tmp_path, overwrite=True, resume=None)
    assert (tmp_path / "thesis.txt").read_text() == "do not lose me"


def test_an_older_run_is_deleted_only_when_asked(tmp_path: Path) -> None:
    write_manifest(tmp_path / "run", {"status": "finished"})
    with pytest.raises(ConfigError, match="--overwrite"):
        claim(tmp_path / "run", overwrite=False, resume=None)
    assert (tmp_path / "run" / "run.json").is_file()
    claim(tmp_path / "run", overwrite=True, resume=None)
    with pytest.raises(ZeroDivisionError):
        _start_and_fail(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
    with older_run_set_aside(tmp_path / "run"):
        (tmp_path / "run").mkdir()
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    assert list((tmp_path / "run").iterdir()) == []


def _start_and_fail(folder: Path) -> None:
    with older_run_set_aside(folder):
        folder.mkdir()
        (folder / "half").write_text("a new run that could not start")
        raise ZeroDivisionError


def test_resume_finds_the_latest_checkpoint(tmp_path: Path) -> None:
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-15").mkdir()  # half of one: the run was killed while it saved
    assert claim(tmp_path, overwrite=False, resume="latest") == str(tmp_path / "checkpoint-10")
    assert claim(tmp_path, overwrite=False, resume=str(tmp_path / "checkpoint-5")) == str(tmp_path / "checkpoint-5")
    with pytest.raises(ConfigError, match="no checkpoint"):
        claim(tmp_path / "other", overwrite=False, resume="latest")


def test_the_manifest_tells_what_is_needed_to_run_it_again(tmp_path: Path) -> None:
    config = KEPOConfig(output_dir=str(tmp_path), hub_token="hf_secret", num_injected=1)
    manifest = describe({"training": config, "run": RunArguments()}, seed=7, device="cpu, float32")
    write_manifest(tmp_path, manifest)
    finish_manifest(tmp_path, "finished", steps=3)
    text = (tmp_path / "run.json").read_text()
    read = json.loads(text)
    assert "hf_secret" not in text
    assert read["config"]["training"]["num_injected"] == 1
    assert read["config"]["training"]["max_completion_length"] == config.max_completion_length
    assert read["config"]["run"]["method"] == "kepo"
    assert {"torch", "trl", "transformers"} <= read["versions"].keys()
    assert (read["seed"], read["status"], read["steps"]) == (7, "finished", 3)
    assert {"command", "git", "started", "ended", "device"} <= read.keys()


def test_metrics_are_appended_and_cut_on_resume(tmp_path: Path) -> None:
    callback = RunRecord(SimpleNamespace(args=SimpleNamespace(output_dir=tmp_path)))
    state = SimpleNamespace(is_world_process_zero=True, global_step=0)
    for step in (1, 2, 3):
        state.global_step = step
        callback.on_log(None, state, None, logs={"loss": step / 10})
    state.global_step = 2
    callback.on_train_begin(None, state, None)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.2}]
