"""Several processes: agreeing on a number, sharding a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from trl.models import prepare_deepspeed, prepare_fsdp

if TYPE_CHECKING:
    from kepo.trainer.trainer import KEPOTrainer


def max_over_processes(trainer: KEPOTrainer, value: int) -> int:
    """The largest `value` of all processes; collective."""
    if trainer.accelerator.num_processes == 1:
        return value
    return int(trainer.accelerator.gather(torch.tensor([value], device=trainer.accelerator.device)).max())


def sums_over_processes(trainer: KEPOTrainer, values: Mapping[str, float]) -> dict[str, float]:
    """The sums of named values over all processes, which may name different ones; collective."""
    if trainer.accelerator.num_processes == 1:
        return dict(values)
    sums: dict[str, float] = {}
    for one in gather_object([dict(values)]):
        for name, value in one.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def teacher_sharding(trainer: KEPOTrainer) -> Callable[[Any], Any] | None:
    """How a local teacher is sharded under this launch: as TRL shards its reference model; None: not at all."""
    if trainer.is_deepspeed_enabled:
        return lambda module: prepare_deepspeed(module, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return lambda module: prepare_fsdp(module, trainer.accelerator)
    return None
