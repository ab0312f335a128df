"""Run folders with a rollout log, as `kepo inspect` meets them, without any training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kepo.runs.rollouts import rollout_schema

REWARDS = ("choice_accuracy", "think_format")
NAN = float("nan")


def rollout(step: int, row: int, id_: str, right: float, **fields: Any) -> dict[str, Any]:
    """One row of the rollout log; `fields` replace its defaults."""
    return {
        "step": step,
        "process": 0,
        "row": row,
        "id": id_,
        "modality": "MRI",
        "task": "Disease Diagnosis",
        "prompt": f"user: [image] What does {id_} show?\nA) cyst\nB) tumour",
        "question": f"What does {id_} show?",
        "options": ["cyst", "tumour"],
        "completion": f"<think>It is round, so I think that it is a cyst ({row}).</think><answer>A</answer>",
        "answer": "A",
        "tokens": 37,
        "reward/choice_accuracy": right,
        "reward/think_format": 0.5,
        "reward": right + 0.5,
        "advantage": right - 0.5,
        "gate": 1.0 if right else 0.0,
        "group_all_failed": False,
        "injected": False,
        "attempt": None,
        "attempts": 0,
        "hint": None,
        "hint_level": None,
        "hints_tried": [],
        "leaked_hints": 0,
        "exploration_failure": None,
        "images": [f"/data/images/{id_}.png"],
        "metadata": "{}",
        **fields,
    }


def kepo_step(step: int) -> list[dict[str, Any]]:
    """Three groups of four: one alive, one dead and rescued by one of its rollouts, one dead for lack of a hint."""
    alive = [rollout(step, row, "q1", float(row % 2)) for row in range(4)]
    rescued = [
        rollout(step, 4 + row, "q2", 0.0, group_all_failed=True, attempts=3, hints_tried=["Look at the rim."])
        for row in range(4)
    ]
    rescued[0] |= {
        "injected": True,
        "attempt": 3,
        "hint": "Look at the rim.",
        "hint_level": 1,
        "gate": 0.5,
        "reward/choice_accuracy": 1.0,
        "reward": 1.5,
        "advantage": 1.5,
    }
    failed = [
        rollout(step, 8 + row, "q3", 0.0, group_all_failed=True, exploration_failure="no hint") for row in range(4)
    ]
    return [*alive, *rescued, *failed]


SCHEMA = rollout_schema(REWARDS)


def write_run(
    folder: Path,
    steps: Mapping[int, Sequence[Mapping[str, Any]]],
    metrics: Sequence[Mapping[str, Any]] = (),
    status: str = "finished",
    **training: Any,
) -> Path:
    """A run folder with these rollouts and metrics; `training` is its config's part of that name."""
    (folder / "rollouts").mkdir(parents=True)
    manifest = {
        "status": status,
        "started": "2026-01-02T03:04:05+00:00",
        "seed": 7,
        "device": "cpu, float32",
        "config": {"run": {"arm": "kepo"}, "training": {"num_generations": 4, **training}},
    }
    if status == "finished":
        manifest |= {"ended": "2026-01-02T03:12:05+00:00", "steps": max(steps, default=0)}
    (folder / "run.json").write_text(json.dumps(manifest))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    for step, rows in steps.items():
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
        pq.write_table(table, folder / "rollouts" / f"step-{step:06d}.parquet")
    return folder
