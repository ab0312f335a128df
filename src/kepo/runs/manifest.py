"""`run.json`: what is needed to run it again (config, versions, seed, command, git state), and how it ended."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kepo.errors import DataError
from kepo.files import write_json

MANIFEST = "run.json"
_PACKAGES = ("kepo", "torch", "trl", "transformers", "accelerate", "datasets", "peft", "vllm", "deepspeed")
_SECRET_WORDS = {"token", "key", "password", "secret"}


def describe(parts: Mapping[str, Any], seed: int, device: str) -> dict[str, Any]:
    """The manifest of a run that starts now; `parts` are its config: dataclasses, mappings, or what has `to_dict`."""
    return {
        "status": "running",
        "started": now(),
        "command": shlex.join(sys.argv),
        "seed": seed,
        "device": device,
        "versions": installed_versions(_PACKAGES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git_state(),
        "config": {name: _plain(part) for name, part in parts.items()},
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `run.json`, whole or not at all; a failure of the disk is a DataError.

    Args:
        folder: The run folder.
        manifest: What JSON can hold; other values are written as text.
    """
    write_json(manifest, folder / MANIFEST)


def is_run(folder: str | Path) -> bool:
    """Whether `folder` holds a run."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        DataError: There is none, or it does not describe a run.
    """
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} is no run folder: it has no {MANIFEST}. Give the output_dir of a run.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not JSON ({error}); the run cannot be read.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config", {}), dict):
        raise DataError(f"{file} does not describe a run: a record with a record 'config' was expected.")
    return manifest


def finish_manifest(folder: Path, status: str, **facts: Any) -> None:
    """Note how the run ended ("finished", "interrupted", "failed")."""
    write_manifest(folder, {**read_manifest(folder), "status": status, "ended": now(), **facts})


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(part: Any) -> dict[str, Any]:
    """A part of the config as JSON, without secrets."""
    values = part.to_dict() if hasattr(part, "to_dict") else part if isinstance(part, Mapping) else asdict(part)
    words = {name: set(name.lower().split("_")) for name in values}
    secret = {name for name in values if words[name] & _SECRET_WORDS and "tokens" not in words[name]}
    return {name: "<hidden>" if value and name in secret else value for name, value in values.items()}


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Package -> its version, of those that are installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the working directory, when it is a git checkout."""
    try:
        commit, status = (
            subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "clean": not status}
