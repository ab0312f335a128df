"""`import kepo` and `kepo --help` load nothing heavy. Counted in modules, because seconds depend on the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "trl", "transformers", "datasets", "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "PIL"}


def _loaded(*arguments: str) -> set[str]:
    """The top-level packages that Python loads when it runs with `arguments`."""
    run = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


def test_importing_the_package_loads_the_standard_library_only() -> None:
    loaded = _loaded("-c", "import kepo")
    assert "kepo" in loaded
    assert not loaded & (HEAVY | {"rich", "typer", "yaml"})


@pytest.mark.parametrize("command", [["--help"], ["train", "--help"], ["prepare", "--help"]])
def test_help_is_typer_alone(command: list[str]) -> None:
    loaded = _loaded("-m", "kepo", *command)
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"rich", "yaml"})
