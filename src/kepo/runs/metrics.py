"""`metrics.jsonl`: every logged metric, a record per logging step, each with its `step`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kepo.files import write_text
from kepo.runs.renamed import RENAMED

METRICS = "metrics.jsonl"


def append_metrics(folder: Path, step: int, metrics: Mapping[str, Any]) -> None:
    """Add one record to the metrics of a run (one process only).

    Args:
        folder: The run folder; made if needed.
        step: Optimizer step, from 0.
        metrics: Name -> value, what JSON can hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **metrics}) + "\n")


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The logged metrics of a run in order, each with its `step`; empty when nothing was logged yet."""
    file = Path(folder) / METRICS
    if not file.is_file():
        return []
    records = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):  # a run that is being written, or was killed, may end in half a line
            record = json.loads(line)
            if isinstance(record, dict) and "step" in record:
                records.append({RENAMED.get(str(name), str(name)): value for name, value in record.items()})
    return records


def drop_metrics_after(folder: Path, step: int) -> None:
    """Drop what was logged after `step`, and half a line at the end: a run that resumes there logs it again."""
    records = read_metrics(folder)
    if records:
        kept = [json.dumps(record) + "\n" for record in records if record["step"] <= step]
        write_text("".join(kept), folder / METRICS)
