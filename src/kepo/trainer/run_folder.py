"""What a trainer writes into its run folder while it trains; the files themselves are those of `kepo.runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from kepo.runs.metrics import append_metrics, drop_metrics_after


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
