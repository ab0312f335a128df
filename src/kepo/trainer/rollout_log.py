"""The rollout log: every rollout of every step, as Parquet in the run folder.

One file per generation batch, named by the optimizer step it was made for, written whole or not at all; a resumed run
writes the same names again. Columns are described in `docs/rollout-log.md`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate.utils import gather_object

from kepo.prompts import message_text, prompt_text
from kepo.runs import ROLLOUTS
from kepo.trainer.generation_batch import GenerationBatch
from kepo.types import Rescue

if TYPE_CHECKING:
    from kepo.trainer.adapter import TRLAdapter


def rollout_rows(
    batch: GenerationBatch,
    step: int,
    process: int,
    reward_names: Sequence[str],
    total: torch.Tensor,
    output: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One record per rollout of this process.

    Args:
        batch: The batch's state.
        step: Optimizer step the batch was generated for, counted from 1.
        process: Index of this process.
        reward_names: Names of the F reward functions.
        total: (B,) weighted reward.
        output: The batch as TRL returns it, with our keys.
    """
    assert batch.rewards is not None
    weights = output.get("gate_weights")
    lengths = output["completion_mask"].sum(1)
    records = []
    for row, data in enumerate(batch.rows):
        kept, rescue = batch.injected.get(row), batch.rescues.get(row, Rescue(key=""))
        gate = 0.0 if weights is None else float(weights[row].sum() / lengths[row].clamp(min=1))
        records.append(
            {
                "step": step,
                "process": process,
                "row": row,
                "id": str(data.get("id", "")),
                "modality": data.get("modality"),
                "task": data.get("task"),
                "prompt": prompt_text(batch.prompts[row]),
                "completion": _text(batch.completions[row]),
                "answer": None if data.get("answer") is None else str(data["answer"]),
                "tokens": int(lengths[row]),
                **{f"reward/{name}": float(batch.rewards[row, i]) for i, name in enumerate(reward_names)},
                "reward": float(total[row]),
                "advantage": float(output["advantages"][row]),
                "gate": gate,
                "group_all_failed": bool(batch.all_failed[row]) if batch.all_failed else False,
                "injected": kept is not None,
                "attempt": None if kept is None else kept.attempt,
                "attempts": rescue.attempts,
                "hint": None if kept is None or kept.hint is None else kept.hint.text,
                "hint_level": None if kept is None or kept.hint is None else kept.hint.level,
                "hints_tried": [hint.raw for hint in rescue.hints],
                "leaked_hints": rescue.leaked_hints,
                "exploration_failure": rescue.failure,
            }
        )
    return records


def _schema(reward_names: Sequence[str]) -> pa.Schema:
    # Fixed, because a batch without any hint would otherwise get columns of type null that no reader can join.
    fields: list[tuple[str, pa.DataType]] = [
        ("step", pa.int64()),
        ("process", pa.int32()),
        ("row", pa.int32()),
        ("id", pa.string()),
        ("modality", pa.string()),
        ("task", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("answer", pa.string()),
        ("tokens", pa.int32()),
        *[(f"reward/{name}", pa.float32()) for name in reward_names],
        ("reward", pa.float32()),
        ("advantage", pa.float32()),
        ("gate", pa.float32()),
        ("group_all_failed", pa.bool_()),
        ("injected", pa.bool_()),
        ("attempt", pa.int32()),
        ("attempts", pa.int32()),
        ("hint", pa.string()),
        ("hint_level", pa.int32()),
        ("hints_tried", pa.list_(pa.string())),
        ("leaked_hints", pa.int32()),
        ("exploration_failure", pa.string()),
    ]
    return pa.schema(fields)


def write_rollouts(trainer: TRLAdapter, batch: GenerationBatch, output: Mapping[str, Any]) -> None:
    """Gather this batch's rollouts over the processes and write them (collective)."""
    assert batch.rewards is not None
    total = (batch.rewards * trainer.reward_weights.to(batch.rewards.device)).nansum(1)
    step = trainer.state.global_step + 1
    names = trainer.reward_func_names
    records = rollout_rows(batch, step, trainer.accelerator.process_index, names, total, output)
    everything = records if trainer.accelerator.num_processes == 1 else gather_object(records)
    if trainer.accelerator.is_main_process:
        folder = Path(trainer.args.output_dir) / ROLLOUTS
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(pa.Table.from_pylist(everything, schema=_schema(names)), folder / f"step-{step:06d}.parquet")


def write_atomically(table: pa.Table, path: Path) -> None:
    """Write a Parquet file so that a reader, or a killed run, never meets half of one."""
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, path)


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else "\n".join(message_text(message) for message in completion)
