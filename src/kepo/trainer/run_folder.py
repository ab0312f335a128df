"""What a trainer writes into its run folder while it trains; the files themselves are those of `kepo.runs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from kepo.prompts import message_text, prompt_text
from kepo.runs import rollouts
from kepo.runs.metrics import append_metrics, drop_metrics_after
from kepo.trainer.adapter import TRLAdapter
from kepo.trainer.generation_batch import GenerationBatch
from kepo.types import Message, Rescue


class MetricsFile(TrainerCallback):
    """Appends every log of the trainer to `metrics.jsonl`; on resume, drops what lies after the checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            drop_metrics_after(self._folder, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs:
            append_metrics(self._folder, state.global_step, logs)


def chosen_device(model_device: torch.device, mixed_precision: str) -> str:
    """One sentence on where the run computes and how."""
    name = torch.cuda.get_device_name(model_device) if model_device.type == "cuda" else model_device.type
    precision = "float32" if mixed_precision == "no" else f"{mixed_precision} mixed precision"
    return f"{name}, {precision}"


def write_rollouts(trainer: TRLAdapter, batch: GenerationBatch, output: Mapping[str, Any]) -> None:
    """Gather the rollouts of a batch over the processes and write them to the rollout log (collective).

    Args:
        trainer: Of the run.
        batch: With its rewards.
        output: The batch as TRL returns it, with our keys.
    """
    step, names = trainer.state.global_step + 1, trainer.reward_func_names
    where = {"step": step, "process": trainer.processes.index}
    records = trainer.processes.gather_objects([where | record for record in _records(batch, names, output)])
    if trainer.accelerator.is_main_process:
        rollouts.write_rollouts(Path(trainer.args.output_dir), step, records, names)


def _records(batch: GenerationBatch, reward_names: list[str], output: Mapping[str, Any]) -> list[dict[str, Any]]:
    assert batch.rewards is not None
    assert batch.total is not None
    lengths = (output["completion_mask"] * output.get("tool_mask", 1)).sum(1)  # (B,)
    weights = output.get("gate_weights", torch.zeros_like(output["completion_mask"]))
    gates = (weights.sum(1) / lengths.clamp(min=1)).tolist()
    records = []
    for row, data in enumerate(batch.rows):
        kept, rescue = batch.injected.get(row), batch.rescues.get(row, Rescue(key=""))
        hint, answer = None if kept is None else kept.hint, data.get("answer")
        records.append(
            {
                **{name: data.get(name) for name in ("modality", "task", "question")},
                "row": row,
                "id": str(data.get("id", "")),
                "prompt": prompt_text(batch.prompts[row]),
                "completion": _text(batch.completions[row]),
                "options": list(data.get("options") or ()),
                "answer": None if answer is None else str(answer),
                "tokens": int(lengths[row]),
                **{f"{rollouts.REWARD}{name}": float(batch.rewards[row, i]) for i, name in enumerate(reward_names)},
                "reward": float(batch.total[row]),
                "advantage": float(output["advantages"][row]),
                "gate": gates[row],
                "group_all_failed": bool(batch.all_failed) and batch.all_failed[row],
                "injected": kept is not None,
                "attempt": None if kept is None else kept.attempt,
                "attempts": rescue.attempts,
                "hint": None if hint is None else hint.text,
                "hint_level": None if hint is None else hint.level,
                "hints_tried": [tried.raw for tried in rescue.hints],
                "leaked_hints": rescue.leaked_hints,
                "exploration_failure": rescue.failure,
                "images": list(data.get("image_paths") or ()),
                "metadata": _json(data.get("metadata")),
            }
        )
    return records


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else "\n".join(filter(None, map(_written, completion)))


def _written(message: Message) -> str:
    """All that a message says, with what a response schema took out of its content."""
    reasoning = [message.get(name) for name in ("reasoning_content", "thinking")]
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls") or ()]
    return "\n".join(filter(None, [*reasoning, message_text(message), *calls]))


def _json(metadata: Any) -> str:
    """`to_dataset` makes it JSON; a data set of the user's own may hold records."""
    return metadata if isinstance(metadata, str) else json.dumps(metadata or {}, ensure_ascii=False, default=str)
