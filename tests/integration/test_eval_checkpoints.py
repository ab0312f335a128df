"""All checkpoints of a run in one call, one process per device, and the choice of one on validation questions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from kepo.cli.eval import evaluate
from kepo.errors import ConfigError, KepoError
from kepo.evaluation.tasks import check_devices
from kepo.runs import open_run, read_evaluation
from tests.tiny_models import build_text_model

SHORT = ("--max-new-tokens", 4, "--quiet")


def _questions(file: Path, prefix: str, count: int) -> Path:
    rows = [
        {"id": f"{prefix}{i}", "question": f"What is {prefix}{i}?", "options": ["x", "y", "z"], "answer": "ABC"[i % 3],
         "modality": ("MRI", "CT")[i % 2], "task": "Shape"}
        for i in range(count)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run trained on MRI with two checkpoints, one of them a PEFT adapter, and questions for validation and test."""
    _questions(tmp_path / "validation.jsonl", "v", 12)
    _questions(tmp_path / "test.jsonl", "t", 12)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    run = build_text_model(tmp_path / "run", "llama", seed=3)
    config = {
        "run": {"arm": "kepo", "reward_funcs": ["choice_accuracy"]},
        "training": {"max_completion_length": 5},
        "data": {"data_path": "train.jsonl", "prompt_style": "answer", "modality": "MRI"},
    }
    (run / "run.json").write_text(json.dumps({"status": "finished", "seed": 5, "config": config}))
    build_text_model(run / "checkpoint-2", "llama", seed=4)
    base = build_text_model(tmp_path / "base", "llama", seed=5)
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, init_lora_weights=False)).save_pretrained(run / "checkpoint-10")
    for step in (2, 10):
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    return tmp_path


def _eval(*arguments: Any) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def _validate(*more: Any) -> Result:
    return _eval("run", "--checkpoints", "--data", "validation.jsonl", "--name", "validation", *SHORT[:2], *more)


def _texts(folder: str, name: str) -> list[str]:
    return read_evaluation(folder, name).table["completion"].to_pylist()


def test_all_checkpoints_in_one_call_then_the_chosen_one_on_the_test(project: Path) -> None:
    done = _validate()
    shown = [line for line in done.stdout.splitlines() if "in-domain" in line]
    assert [line.split(":")[0] for line in shown] == ["run/checkpoint-2", "run/checkpoint-10"]
    described = read_evaluation("run/checkpoint-10", "validation").description
    assert (described["step"], described["in_domain"]) == (10, ["MRI"])
    assert described["generation"]["prompt_style"] == "answer"  # as the run was trained
    assert not (project / "run" / "checkpoint-2" / "run.json").exists()
    assert _texts("run/checkpoint-2", "validation") != _texts("run/checkpoint-10", "validation")

    _eval("run", "--best-by", "validation", "--data", "test.jsonl", *SHORT)
    tested = read_evaluation("run", "test")
    chosen = tested.description["chosen"]
    values = {one["step"]: one["accuracy"] for one in chosen["candidates"]}
    assert chosen["step"] == max(values, key=lambda step: (values[step], -step))
    assert tested.description["model"] == f"run/checkpoint-{chosen['step']}"
    assert not list(project.glob("run/checkpoint-*/evaluation/test.parquet"))


def test_two_processes_give_the_records_of_one_and_a_second_call_loads_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _validate("--quiet")
    alone = {step: _texts(f"run/checkpoint-{step}", "validation") for step in (2, 10)}
    assert _validate("--overwrite", "--devices", "cpu,cpu").exit_code == 0
    assert {step: _texts(f"run/checkpoint-{step}", "validation") for step in (2, 10)} == alone

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("kepo.evaluation.generate.load_backend", refuse)
    assert _validate("--quiet").exit_code == 0


def test_a_checkpoint_that_cannot_be_loaded_is_named_and_the_others_are_done(project: Path) -> None:
    (project / "run" / "checkpoint-2" / "config.json").write_text("{}")
    with pytest.raises(KepoError, match=r"checkpoint-2 on cpu: .*could not be loaded.*The same command goes on"):
        _validate("--devices", "cpu,cpu", "--quiet")
    assert len(_texts("run/checkpoint-10", "validation")) == 12


def test_a_process_that_is_killed_is_noticed(project: Path) -> None:
    (project / "run" / "checkpoint-2" / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(KepoError, match="checkpoint-2 on cpu"):
        _validate("--devices", "cpu", "--quiet")


@pytest.mark.slow
def test_ctrl_c_ends_the_processes_and_the_same_command_goes_on(project: Path) -> None:
    arguments = [
        "run",
        "--checkpoints",
        "--data",
        "validation.jsonl",
        "--name",
        "validation",
        "--max-new-tokens",
        "2000",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "kepo", "eval", *arguments, "--batch-size", "1", "--devices", "cpu,cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    parts = [project / "run" / f"checkpoint-{step}" / "evaluation" / ".validation.parts" for step in (2, 10)]
    deadline = time.monotonic() + 90
    while not all((part / "settings.json").is_file() for part in parts) and time.monotonic() < deadline:
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    # multiprocessing's own helper goes by itself a moment after its parent.
    while (left := [child for child in children if Path(f"/proc/{child}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoints", "--best-by", "validation"), "give one of the two"),
        (("--checkpoints", "--out", "o"), "leave out --out"),
        (("--best-by", "validation", "--server", "http://localhost/v1"), "leave out --server"),
        (("--devices", "cpu,cpu", "--device", "cpu"), "leave out --device"),
        (("--devices", " ,"), "names none"),
        (("--devices", "cpu,gpu7"), "'gpu7' is no device"),
        (("--best-by", "test"), "cannot choose what it tests"),
        (("--best-by", "validation"), "has no evaluation 'validation' to choose by"),
        (("--best-by", "../x"), "may only hold letters"),
    ],
)
def test_options_that_cannot_stand_together(project: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _eval("run", "--data", "test.jsonl", *SHORT, *arguments)
    assert not (project / "run" / "evaluation").exists()


def test_a_choice_by_the_questions_of_the_test_is_refused(project: Path) -> None:
    _validate("--quiet")
    with pytest.raises(ConfigError, match="12 of the questions have the same id"):
        _eval("run", "--best-by", "validation", "--data", "validation.jsonl", *SHORT)
    renamed = project / "renamed.jsonl"
    renamed.write_text((project / "validation.jsonl").read_text().replace('"id": "v', '"id": "w'))
    with pytest.raises(ConfigError, match="the same text and images"):
        _eval("run", "--best-by", "validation", "--data", renamed, *SHORT)


def test_a_model_named_as_an_arm_is_reported_as_one_that_was_not_trained(project: Path) -> None:
    _eval("run", "--data", "test.jsonl", "--out", "start", "--arm", "zero-shot", "--replicate", "small", *SHORT)
    found = open_run("start")
    assert (found.arm, found.replicate, found.setting("model", "model_name_or_path")) == ("zero-shot", "small", "run")
    assert "training" not in found.manifest["config"]
    assert read_evaluation("start").description["in_domain"] == ["MRI"]


def test_devices_that_are_not_there() -> None:
    import torch

    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"there is no '{missing}' here"):
        check_devices(["cpu", missing])
