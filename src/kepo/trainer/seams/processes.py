"""Several processes: agreeing on a number, sharding a teacher, the accelerate configs that TRL ships."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from trl.models import prepare_deepspeed, prepare_fsdp

from kepo.errors import ConfigError

if TYPE_CHECKING:
    from kepo.trainer.trainer import KEPOTrainer


def max_over_processes(trainer: KEPOTrainer, value: int) -> int:
    """The largest `value` of all processes; collective."""
    if trainer.accelerator.num_processes == 1:
        return value
    return int(trainer.accelerator.gather(torch.tensor([value], device=trainer.accelerator.device)).max())


def teacher_sharding(trainer: KEPOTrainer) -> Callable[[Any], Any] | None:
    """How a local teacher is sharded under this launch: as TRL shards its reference model; None: not at all."""
    if trainer.is_deepspeed_enabled:
        return lambda module: prepare_deepspeed(module, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return lambda module: prepare_fsdp(module, trainer.accelerator)
    return None


def accelerate_config_file(name: str) -> str:
    """The file of an accelerate config: a path, or the name of one that TRL ships.

    Raises:
        ConfigError: There is neither.
    """
    if Path(name).is_file():
        return name
    folder = Path(str(files("trl.accelerate_configs")))
    shipped = folder / f"{name}.yaml"
    if not shipped.is_file():
        names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ConfigError(f"accelerate_config {name!r} is neither a file nor one of TRL's: {names}.")
    return str(shipped)
