"""How a run is spread over GPUs: what an accelerate config says about memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kepo.errors import ConfigError
from kepo.recipes.files import find_accelerate_config

STRATEGIES = ("single", "ddp", "zero1", "zero2", "zero3", "fsdp")


@dataclass(frozen=True, slots=True)
class Launch:
    """GPUs and what is sharded over them."""

    strategy: str  # one of STRATEGIES
    gpus: int  # processes, one per GPU
    offload_optimizer: bool = False  # optimizer states lie in the memory of the machine
    offload_parameters: bool = False  # so do the weights

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"strategy {self.strategy!r} is unknown; use one of {', '.join(STRATEGIES)}.")

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed trains."""
        return self.strategy.startswith("zero")

    @property
    def parameter_shards(self) -> int:
        """Over how many GPUs the weights are spread, those of a teacher without device of its own too."""
        return self.gpus if self.strategy in ("zero3", "fsdp") else 1

    @property
    def gradient_shards(self) -> int:
        """Over how many GPUs the gradients are spread."""
        return self.gpus if self.strategy in ("zero2", "zero3", "fsdp") else 1

    @property
    def optimizer_shards(self) -> int:
        """Over how many GPUs the optimizer states are spread."""
        return self.gpus if self.strategy not in ("single", "ddp") else 1

    def __str__(self) -> str:
        return f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}, {self.strategy}"


def read_launch(name: str | None, gpus: int | None = None) -> Launch:
    """What an accelerate config asks for.

    Args:
        name: The config, as `kepo.recipes.files.find_accelerate_config` finds it; None: one GPU alone, or several with
            the paper's ZeRO-3.
        gpus: Instead of its `num_processes`.

    Raises:
        ConfigError: Not an accelerate config, or a way of training that is not planned for.
    """
    if name is None:
        return Launch("zero3", gpus) if gpus and gpus > 1 else Launch("single", 1)
    from accelerate.commands.config.config_args import load_config_from_file

    file = find_accelerate_config(name)
    try:
        config: Any = load_config_from_file(file)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is not an accelerate config: {error}") from error
    kind = str(getattr(config.distributed_type, "value", config.distributed_type))
    count = gpus or config.num_processes or 1
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        launch = Launch("single" if count == 1 else "ddp", count)
    elif kind == "FSDP":
        launch = Launch("fsdp", count, *([bool((config.fsdp_config or {}).get("fsdp_offload_params"))] * 2))
    elif kind == "DEEPSPEED":
        launch = _deepspeed(config.deepspeed_config or {}, count, file)
    else:
        raise ConfigError(f"{file}: distributed_type {kind} is not planned for; use DDP, DeepSpeed or FSDP.")
    return replace(launch, strategy="single") if count == 1 and not launch.deepspeed else launch


def _deepspeed(config: dict[str, Any], gpus: int, file: str) -> Launch:
    stage, own = config.get("zero_stage", 2), config.get("deepspeed_config_file")
    optimizer, parameters = config.get("offload_optimizer_device"), config.get("offload_param_device")
    if own:
        path = Path(own) if Path(own).is_file() else Path(file).parent / own
        try:
            zero = json.loads(path.read_text(encoding="utf-8")).get("zero_optimization", {})
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: deepspeed_config_file {own!r} cannot be read: {error}") from error
        stage = zero.get("stage", 0)
        optimizer = zero.get("offload_optimizer", {}).get("device")
        parameters = zero.get("offload_param", {}).get("device")
    if stage == 0:
        return Launch("ddp", gpus)
    return Launch(f"zero{stage}", gpus, optimizer in ("cpu", "nvme"), parameters in ("cpu", "nvme"))
