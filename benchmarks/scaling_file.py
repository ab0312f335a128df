"""benchmarks/scaling.json: what `benchmarks.scaling` and `benchmarks.cluster` measured, so that it is measured once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("scaling.json")


def load() -> dict[str, Any]:
    """`conditions`, `steps` (one record per arm of a point) and `seconds per rollout`."""
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {"conditions": {}, "steps": []}
    return found


def save(measured: Mapping[str, Any]) -> None:
    """Write the file, one line per record."""
    others = {name: value for name, value in measured.items() if name != "steps"}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in others.items()]
    steps = ",\n".join(f"  {json.dumps(record)}" for record in measured["steps"])
    FILE.write_text("\n".join(["{", *lines, ' "steps": [', steps, " ]", "}"]) + "\n")
