"""The whole chain on real medical images: prepare, two arms, checkpoints validated, one chosen and tested, reports.

The study is killed on its way, with all that it started, and started again.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from kepo.data.omnimedvqa import MODALITIES
from kepo.runs import checkpoints_in, open_run, read_evaluation

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
STUDY = {
    "title": "Real images",
    "out": "out",
    "data": "data",
    "seeds": [1],
    "modalities": ["MRI"],
    "models": {"tiny": "student"},
    "main_arm": "grpo",
    "arms": {
        "zero-shot": {"recipe": "medical/grpo", "train": False},
        "sft": {"recipe": "medical/sft"},
        "grpo": {"recipe": "medical/grpo", "label": "GRPO"},
    },
    "fields": {
        "num_train": None,
        "num_eval": 0,
        "eval_strategy": "no",
        "eval_on_start": False,
        "image_size": 32,
        "max_steps": 6,
        "save_steps": 2,
        "logging_steps": 1,
        "max_completion_length": 4,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
    },
    "evaluation": {"batch_size": 64, "max_new_tokens": 4},
}


def _kepo(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kepo", *map(str, arguments)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
        **more,  # type: ignore[call-overload]
    )


def _killed_after_the_first_checkpoint(run: Path) -> None:
    """Start the study, and kill it and its command without warning once `run` has a whole checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kepo", "study", "mine.yaml", "--quiet"],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 1200
    while not checkpoints_in(run) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    commands = [
        int(pid)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    for pid in (process.pid, *commands):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert checkpoints_in(run)
    assert open_run(run).status == "running"


@pytest.mark.slow
def test_from_a_data_set_on_disk_to_the_table(
    mini_omnimedvqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kepo.data import load_omnimedvqa
    from kepo.models import build_llava

    monkeypatch.chdir(tmp_path)
    sizes = ("--train", 24, "--validation", 4, "--test", 4, "--size", 32, "--workers", 1)
    prepared = _kepo("prepare", "omnimedvqa", "--root", mini_omnimedvqa, "--out", "data", *sizes)
    assert prepared.returncode == 0, prepared.stderr
    build_llava(Path("student"), load_omnimedvqa(mini_omnimedvqa))
    Path("mine.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    sft, grpo = (Path("out") / "MRI" / "runs" / f"{arm}--tiny--seed-1" for arm in ("sft", "grpo"))

    _killed_after_the_first_checkpoint(sft)
    done = _kepo("study", "mine.yaml", "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr

    manifest = open_run(sft).manifest
    assert manifest["status"] == "finished"
    assert manifest["config"]["training"]["resume_from_checkpoint"] is not None  # it did not begin again
    assert open_run(grpo).manifest["config"]["training"]["resume_from_checkpoint"] is None
    for run in (sft, grpo):
        assert list(checkpoints_in(run)) == [2, 4, 6]
        tested = read_evaluation(run, "test")
        values = {step: _right_on_mri(folder) for step, folder in checkpoints_in(run).items()}
        chosen = tested.description["chosen"]
        assert chosen["step"] == max(values, key=lambda step: (values[step], -step))
        assert tested.description["in_domain"] == ["MRI"]
        asked = tested.table["modality"].to_pylist()
        assert {name: asked.count(name) for name in MODALITIES} == dict.fromkeys(MODALITIES, 4)
    rows = {row["arm"]: row for row in csv.DictReader(Path("out/paper/table.csv").read_text().splitlines())}
    assert list(rows) == ["zero-shot", "sft", "grpo"]
    right = read_evaluation(grpo, "test").table.to_pylist()
    assert float(rows["grpo"]["CT"]) == sum(row["correct"] for row in right if row["modality"] == "CT") / 4
    assert Path("out/paper/checkpoints-MRI.png").is_file()
    assert "GRPO" in Path("out/MRI/report.html").read_text()

    before = {file: file.stat().st_mtime_ns for file in Path("out/MRI/runs").rglob("*") if file.is_file()}
    again = _kepo("study", "mine.yaml", "--quiet", "--no-report")
    assert "3 runs, 3 of them done" in again.stderr
    assert {file: file.stat().st_mtime_ns for file in Path("out/MRI/runs").rglob("*") if file.is_file()} == before
    Path("mine.yaml").write_text(
        yaml.safe_dump({**STUDY, "fields": {**STUDY["fields"], "learning_rate": 1e-6}}, sort_keys=False)
    )
    other = _kepo("study", "mine.yaml", "--quiet", "--no-report", "--only", "grpo")
    assert other.returncode == 1
    assert "holds a run with other settings (learning_rate: 0.0002 there, 1e-06 now)" in " ".join(other.stderr.split())


def _right_on_mri(checkpoint: Path) -> float:
    rows = [row for row in read_evaluation(checkpoint, "validation").table.to_pylist() if row["modality"] == "MRI"]
    return sum(row["correct"] for row in rows) / len(rows)
