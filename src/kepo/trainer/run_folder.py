"""What a trainer writes into its run folder while it trains; the files themselves are those of `kepo.runs`.

`KEPOTrainer` has a `RunRecord` and writes by it, in a script as under `kepo train`. `kepo train` only tells the record
more (`describe`) and holds it open until the model is saved (`writing`), so that nothing is written twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from kepo.prompts import message_text, prompt_text
from kepo.rewards.imported import name_of
from kepo.runs import rollouts
from kepo.runs.manifest import describe, finish_manifest, write_manifest
from kepo.runs.metrics import append_metrics, drop_metrics_after
from kepo.teachers.base import Teacher
from kepo.trainer.adapter import TRLAdapter, distinct_names
from kepo.trainer.generation_batch import GenerationBatch
from kepo.trainer.rows import column_text, column_texts, row_prompt_style
from kepo.types import Message, Rescue


class RunRecord(TrainerCallback):
    """Writes `run.json` and `metrics.jsonl` of a trainer, from the main process.

    Args:
        trainer: A trainer of transformers; files go to its `output_dir`.
        parts: Its config as parts of `run.json` (see `kepo.runs.manifest.describe`), beside "training".
    """

    def __init__(self, trainer: Any, parts: Mapping[str, Any] | None = None) -> None:
        self._trainer = trainer
        self._folder = Path(trainer.args.output_dir)
        self._parts = dict(parts or {})
        self._facts: dict[str, Any] = {}
        self._writing = False

    def describe(self, parts: Mapping[str, Any], **facts: Any) -> None:
        """Say more of the run before it begins: parts of its config, and other entries of `run.json`."""
        self._parts |= parts
        self._facts |= facts

    @property
    def device(self) -> str:
        """One sentence on where the run computes and how."""
        accelerator = self._trainer.accelerator
        return chosen_device(accelerator.device, accelerator.mixed_precision)

    def manifest(self) -> dict[str, Any]:
        """The content of `run.json` of a run that begins now."""
        parts = {"training": self._trainer.args, **self._parts}
        return {**describe(parts, self._trainer.args.seed, self.device), **self._facts}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write `run.json` when this begins, and how the run ended when it ends; inside another, nothing."""
        if self._writing:
            yield
            return
        self._writing = True
        main = self._trainer.is_world_process_zero()
        if main:
            write_manifest(self._folder, self.manifest())
        try:
            yield
        except BaseException as error:
            if main:
                finish_manifest(self._folder, self._how_it_ended(error), **self._steps, error=repr(error))
            raise
        else:
            if main:
                finish_manifest(self._folder, "finished", **self._steps)
        finally:
            self._writing = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drop what an older run, or this one before it was stopped, wrote after the step that training begins at."""
        if state.is_world_process_zero:
            drop_metrics_after(self._folder, state.global_step)
            for step, file in rollouts.rollout_files(self._folder).items():
                if step > state.global_step:
                    file.unlink()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Append a log to `metrics.jsonl`."""
        if state.is_world_process_zero and logs:
            append_metrics(self._folder, state.global_step, logs)

    @property
    def _steps(self) -> dict[str, int]:
        return {"steps": self._trainer.state.global_step}

    def _how_it_ended(self, error: BaseException) -> str:
        # Also in good order, with a checkpoint, when the teacher or the hint bank failed on whatever process.
        stopped = isinstance(error, KeyboardInterrupt) or error is getattr(self._trainer, "failure", None)
        return "interrupted" if stopped else "failed"


def script_parts(trainer: TRLAdapter, functions: Sequence[Any], teacher: Teacher | None) -> dict[str, Any]:
    """What a trainer knows of its run beside its own settings, as `kepo train` writes it: model, rewards, teacher.

    And the prompt style, where the first prompt is one of `kepo.prompts`: evaluations then ask as it was trained.
    """
    model: Any = trainer.model
    rows, style = trainer.train_dataset, None
    if isinstance(rows, Dataset) and "prompt" in rows.column_names and len(rows) > 0:
        columns = [name for name in ("prompt", "prompt_style") if name in rows.column_names]
        style = row_prompt_style(rows.select_columns(columns)[0])
    names = [name_of(*pair) for pair in zip(functions, trainer.reward_func_names, strict=False)]
    return {
        "run": {"method": "kepo", "reward_funcs": names},
        "model": {"model_name_or_path": model.config._name_or_path},
        "teacher": {"teacher_model_name_or_path": None if teacher is None else teacher.name},
        **({} if style is None else {"data": {"prompt_style": style}}),
    }


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
    step, names = trainer.state.global_step + 1, distinct_names(trainer.reward_func_names)
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
                **{name: column_text(data.get(name)) for name in ("modality", "task", "question")},
                "row": row,
                "id": str(data.get("id", "")),
                "prompt": prompt_text(batch.prompts[row]),
                "completion": _text(batch.completions[row]),
                "options": list(column_texts(data.get("options"))),
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
                "images": list(column_texts(data.get("image_paths"))),
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
