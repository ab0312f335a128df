"""What a generation batch adds to the rollout log; the log itself is `kepo.runs.rollouts`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from kepo.prompts import message_text, prompt_text
from kepo.runs import rollouts
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
                "question": data.get("question"),
                "options": list(data.get("options") or ()),
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
                "images": list(data.get("image_paths") or ()),
                "metadata": _json(data.get("metadata")),
            }
        )
    return records


def write_rollouts(trainer: TRLAdapter, batch: GenerationBatch, output: Mapping[str, Any]) -> None:
    """Gather this batch's rollouts over the processes and write them (collective)."""
    assert batch.rewards is not None
    total = (batch.rewards * trainer.reward_weights.to(batch.rewards.device)).nansum(1)
    step = trainer.state.global_step + 1
    names = trainer.reward_func_names
    records = rollout_rows(batch, step, trainer.accelerator.process_index, names, total, output)
    everything = records if trainer.accelerator.num_processes == 1 else gather_object(records)
    if trainer.accelerator.is_main_process:
        rollouts.write_rollouts(Path(trainer.args.output_dir), step, everything, names)


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else "\n".join(message_text(message) for message in completion)


def _json(metadata: Any) -> str:
    """`to_dataset` makes it JSON; a data set of the user's own may hold records."""
    return metadata if isinstance(metadata, str) else json.dumps(metadata or {}, ensure_ascii=False, default=str)
