"""Several processes: agreeing on a number, sharding a teacher, the accelerate configs that TRL and we ship."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from trl.models import prepare_deepspeed, prepare_fsdp

from kepo.errors import ConfigError

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


def accelerate_config_names() -> list[str]:
    """Names of the accelerate configs at hand: those that TRL ships, then ours."""
    return [path.stem for folder in _config_folders() for path in sorted(folder.glob("*.yaml"))]


def accelerate_config_file(name: str) -> str:
    """The file of an accelerate config: the name of one of TRL's, of one of ours, or a path, in this order.

    Raises:
        ConfigError: There is none.
    """
    shipped = (folder / f"{name}.yaml" for folder in _config_folders())
    found = next((path for path in (*shipped, Path(name)) if path.is_file()), None)
    if found is None:
        names = ", ".join(accelerate_config_names())
        raise ConfigError(f"accelerate_config {name!r} is neither a file nor one of these: {names}.")
    return str(found)


def _config_folders() -> tuple[Path, ...]:
    # From the packages above, because a folder without Python files is no path to importlib.resources.
    return tuple(Path(str(files(package))) / "accelerate_configs" for package in ("trl", "kepo.trainer"))
