"""`kepo study` as a user meets it: printing, running, failing, and runs that another process works on."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from kepo.cli.study import study
from kepo.errors import ConfigError, DataError
from kepo.runs import read_evaluation
from tests.tiny_models import build_text_model


def _questions(file: Path, count: int = 6) -> None:
    rows = [
        {"id": f"{file.stem}{i}", "question": f"What is {file.stem}{i}?", "options": ["x", "y"], "answer": "AB"[i % 2],
         "modality": ("MRI", "CT")[i % 2], "task": "Shape"}
        for i in range(count)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of two models that are not trained, one of which is none."""
    monkeypatch.chdir(tmp_path)
    build_text_model(tmp_path / "model", "llama")
    for split in ("train", "validation", "test"):
        _questions(tmp_path / f"{split}.jsonl")
    content = {
        "out": "out",
        "data": {split: f"{split}.jsonl" for split in ("train", "validation", "test")},
        "seeds": [1],
        "modalities": ["MRI"],
        "arms": {
            "base": {"recipe": "arms/grpo", "train": False, "fields": {"model_name_or_path": "model"}},
            "lost": {"recipe": "arms/grpo", "train": False, "fields": {"model_name_or_path": "./nowhere"}},
        },
        "evaluation": {"max_new_tokens": 4},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def _study(*arguments: Any) -> Result:
    app = typer.Typer()
    app.command()(study)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_printing_runs_nothing(project: Path) -> None:
    done = _study("mine.yaml", "--print", "shell")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].startswith("kepo eval model --out out/MRI/runs/base ")
    assert not (project / "out" / "MRI" / "runs").exists()
    assert "#SBATCH --array=0-0" in _study("mine.yaml", "--print", "slurm", "--only", "lost").stdout


@pytest.mark.slow
def test_a_run_that_fails_stops_no_other_and_is_listed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = _study("mine.yaml", "--workers", 2, "--quiet")
    assert done.exit_code == 1
    said = " ".join(done.stderr.split())
    assert "MRI/lost: test failed: error: The model './nowhere' is neither a folder here" in said
    assert "1 of 2 runs failed" in said
    assert "out/MRI/logs/lost.log" in said
    assert len(read_evaluation("out/MRI/runs/base").table) == 6
    assert (project / "out" / "paper" / "table.csv").is_file()  # what there is, is reported
    assert (project / "out" / "MRI" / "report.html").is_file()

    build_text_model(project / "nowhere", "llama", seed=2)
    log = (project / "out" / "MRI" / "logs" / "base.log").read_bytes()
    again = _study("mine.yaml", "--quiet", "--no-report")
    assert again.exit_code == 0
    assert "2 runs, 1 of them done" in again.stderr
    assert (project / "out" / "MRI" / "logs" / "base.log").read_bytes() == log  # not started again


def test_a_run_that_another_process_works_on_is_left_alone(project: Path) -> None:
    logs = project / "out" / "MRI" / "logs"
    logs.mkdir(parents=True)
    with (logs / "base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = _study("mine.yaml", "--only", "base", "--quiet", "--no-report")
    assert done.exit_code == 1
    assert "another process works on this run" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--devices", "gpu"), "names no device"),
        (("--devices", "cuda:0,cuda:1", "--workers", 3), "--workers 3 with 2 --devices"),
        (("--data", "nowhere"), "there is no such file or folder"),
        (("--only", "nobody"), "--only 'nobody' is no arm"),
    ],
)
def test_options_that_cannot_work(project: Path, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        _study("mine.yaml", *arguments)


def test_runs_on_all_gpus_do_not_go_side_by_side(project: Path) -> None:
    content = yaml.safe_load((project / "mine.yaml").read_text())
    (project / "mine.yaml").write_text(yaml.safe_dump({**content, "accelerate_config": "zero3-8gpu"}))
    with pytest.raises(ConfigError, match="key 'accelerate_config': 'zero3-8gpu' puts every run on all GPUs"):
        _study("mine.yaml", "--workers", 2)
