"""A run folder that describes itself, and that is never overwritten silently.

`run.json` holds what is needed to run it again (resolved config, versions, seed, command, git state) and how it ended;
`metrics.jsonl` holds every logged metric, a line per logging step.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from kepo.errors import ConfigError
from kepo.runs import MANIFEST, METRICS, read_metrics

_PACKAGES = ("kepo", "torch", "trl", "transformers", "accelerate", "datasets", "peft", "vllm", "deepspeed")
_SECRET_WORDS = ("token", "key", "password", "secret")


def claim(folder: Path, *, overwrite: bool, resume: str | None) -> str | None:
    """Decide what a run may do with `folder`, before anything is loaded; nothing is changed yet.

    Args:
        folder: The run folder.
        overwrite: An older run there may be deleted (see `older_run_set_aside`).
        resume: "latest", a checkpoint folder, or None.

    Returns:
        The checkpoint to resume from; None for a new run.

    Raises:
        ConfigError: The folder holds something and neither was asked for, or there is no checkpoint to resume from.
    """
    if resume is not None:
        checkpoint = get_last_checkpoint(str(folder)) if resume == "latest" and folder.is_dir() else resume
        if checkpoint is None or not Path(checkpoint).is_dir():
            raise ConfigError(
                f"There is no checkpoint to resume from: {resume!r} in {folder}. Start without resume_from_checkpoint."
            )
        return str(checkpoint)
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not overwrite:
        raise ConfigError(
            f"{folder} is not empty. Choose another --output_dir, continue the run with "
            "--resume_from_checkpoint latest, or delete it and start again with --overwrite."
        )
    if not (folder / MANIFEST).is_file():
        raise ConfigError(
            f"{folder} was not made by this program (it has no {MANIFEST}), so --overwrite does not delete it. Choose "
            "another --output_dir."
        )
    return None


@contextmanager
def older_run_set_aside(folder: Path) -> Iterator[None]:
    """Delete the older run in `folder`, but only when what happens inside succeeds; else put it back."""
    aside = folder.with_name(f".{folder.name}.older")
    older = folder.is_dir() and any(folder.iterdir())
    if older:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        yield
    except BaseException:
        if older:
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def describe(parts: Mapping[str, Any], seed: int, device: str) -> dict[str, Any]:
    """The manifest of a run that starts now; `parts` are its config dataclasses by name."""
    return {
        "status": "running",
        "started": _now(),
        "command": shlex.join(sys.argv),
        "seed": seed,
        "device": device,
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git_state(),
        "config": {name: _plain(part) for name, part in parts.items()},
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `run.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps(manifest, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(temporary, folder / MANIFEST)


def finish_manifest(folder: Path, status: str, **facts: Any) -> None:
    """Note how the run ended ("finished", "interrupted", "failed")."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    write_manifest(folder, {**manifest, "status": status, "ended": _now(), **facts})


class MetricsFile(TrainerCallback):
    """Appends every log of the trainer to `metrics.jsonl`; on resume, drops what lies after the checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / METRICS

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self._path.is_file():
            records = [record for record in read_metrics(self._path.parent) if record["step"] <= state.global_step]
            self._path.write_text("".join(f"{json.dumps(record)}\n" for record in records))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs:
            append_metrics(self._path.parent, state.global_step, logs)


def append_metrics(folder: Path, step: int, metrics: Mapping[str, Any]) -> None:
    """Add one record to the metrics of a run (one process only)."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **metrics}) + "\n")


def chosen_device(model_device: torch.device, mixed_precision: str) -> str:
    """One sentence on where the run computes and how."""
    name = torch.cuda.get_device_name(model_device) if model_device.type == "cuda" else model_device.type
    precision = "float32" if mixed_precision == "no" else f"{mixed_precision} mixed precision"
    return f"{name}, {precision}"


def _plain(part: Any) -> Any:
    """A dataclass as JSON, without secrets."""
    values = part.to_dict() if hasattr(part, "to_dict") else part if isinstance(part, Mapping) else asdict(part)
    return {name: "<hidden>" if value and _is_secret(name) else value for name, value in values.items()}


def _is_secret(name: str) -> bool:
    words = name.lower().split("_")
    return any(word in _SECRET_WORDS for word in words) and "tokens" not in words


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the working directory, when it is a git checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        status = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "clean": not status.stdout.strip()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
