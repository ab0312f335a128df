"""What a recipe needs of the machine: optional packages, models that can be reached, devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kepo.errors import ConfigError, KepoError
from kepo.models.adapters import is_adapter, looks_like_path

# Value of a field -> package that is imported, and how it is installed; several fields name such values.
_LOGGERS = {
    **{name: (name, f"pip install {name}") for name in ("wandb", "mlflow", "neptune", "trackio", "codecarbon")},
    **{name: (name, f"pip install {name}") for name in ("clearml", "dagshub", "dvclive", "swanlab", "comet_ml")},
    "tensorboard": ("tensorboard", "pip install tensorboard"),
}
_REWARDS = {
    "math_accuracy": ("math_verify", "pip install 'kepo[math]'"),
    "reasoning_gym_score": ("reasoning_gym", "pip install 'kepo[reasoning]'"),
}
_ATTENTION = {
    "flash_attention_2": ("flash_attn", "pip install flash-attn --no-build-isolation"),
    "flash_attention_3": ("flash_attn_interface", "see github.com/Dao-AILab/flash-attention"),
}
_BITSANDBYTES = ("bitsandbytes", "pip install 'kepo[quantization]'")
# The optimizers of bitsandbytes by a part of their names; torch's own of 4 and 8 bit are not among them.
_BNB_OPTIMIZERS = ("bnb", "paged_", "adamw_8bit", "lion_", "ademamix")
_OPTIMIZERS = {
    "galore": ("galore_torch", "pip install galore-torch"),
    "lomo": ("lomo_optim", "pip install lomo-optim"),
    "schedule_free": ("schedulefree", "pip install schedulefree"),
    "apollo": ("apollo_torch", "pip install apollo-torch"),
    "grokadamw": ("grokadamw", "pip install grokadamw"),
    "stable_adamw": ("optimi", "pip install torch-optimi"),
    "adamw_torch_4bit": ("torchao", "pip install torchao"),
    "adamw_torch_8bit": ("torchao", "pip install torchao"),
}
_REACHED_WITHIN = 5.0  # seconds for the model hub to answer at all


@dataclass(frozen=True, slots=True)
class Missing:
    """An optional package that a recipe needs and that is not installed."""

    setting: str  # what needs it, as "field: value"
    package: str  # as it is imported
    install: str  # the command


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported."""
    return find_spec(package) is not None


def missing_packages(values: Mapping[str, Any], installed: Callable[[str], bool] = is_installed) -> list[Missing]:
    """The optional packages that the fields of a recipe need and that are not there, each once per setting.

    Args:
        values: Field -> value, of all parts of a recipe; a field that is not there has its default.
        installed: Whether a package, by the name it is imported as, is there.
    """
    needed: list[tuple[str, tuple[str, str]]] = []
    if values.get("use_vllm"):
        needed.append(("use_vllm: true", ("vllm", "pip install 'kepo[vllm]'")))
    if values.get("deepspeed"):
        needed.append((f"deepspeed: {values['deepspeed']}", ("deepspeed", "pip install 'kepo[deepspeed]'")))
    if values.get("use_liger_kernel"):
        needed.append(("use_liger_kernel: true", ("liger_kernel", "pip install liger-kernel")))
    needed += [
        (f"{name}: true", _BITSANDBYTES)
        for name in ("load_in_4bit", "load_in_8bit", "teacher_load_in_4bit")
        if values.get(name)
    ]
    needed += [(f"report_to: {name}", _LOGGERS[name]) for name in _listed(values, "report_to") if name in _LOGGERS]
    needed += [
        (f"reward_funcs: {name}", _REWARDS[name]) for name in _listed(values, "reward_funcs") if name in _REWARDS
    ]
    if values.get("data_format") == "reasoning_gym" or values.get("reasoning_tasks"):
        needed.append(("reasoning_tasks", ("reasoning_gym", "pip install 'kepo[reasoning]'")))
    if (attention := values.get("attn_implementation")) in _ATTENTION:
        needed.append((f"attn_implementation: {attention}", _ATTENTION[attention]))
    elif "/" in str(attention or ""):
        needed.append((f"attn_implementation: {attention}", ("kernels", "pip install kernels")))
    needed += _optimizer(str(getattr(values.get("optim"), "value", values.get("optim")) or ""))
    return [Missing(setting, *part) for setting, part in needed if not installed(part[0])]


def _listed(values: Mapping[str, Any], name: str) -> list[str]:
    value = values.get(name) or []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def _optimizer(name: str) -> list[tuple[str, tuple[str, str]]]:
    own = [part for start, part in _OPTIMIZERS.items() if start in name]
    bnb = [_BITSANDBYTES] if name.startswith(_BNB_OPTIMIZERS) or "bnb" in name or "galore_adamw_8bit" in name else []
    return [(f"optim: {name}", part) for part in own + bnb]


def check_packages(values: Mapping[str, Any], installed: Callable[[str], bool] = is_installed) -> None:
    """Refuse fields of a recipe whose packages are not installed, all at once; see `missing_packages`.

    Raises:
        ConfigError: Names every field, the package it needs, and the command that installs it.
    """
    if missing := missing_packages(values, installed):
        told = "\n".join(f"  {one.setting} needs the package '{one.package}': {one.install}" for one in missing)
        raise ConfigError(f"The recipe needs what is not installed. Install it, or leave out the setting:\n{told}")


def check_device(field: str, name: str | None) -> None:
    """Refuse a device that is none, or that this machine lacks; None is left alone.

    Raises:
        ConfigError: Names the field, and the devices that there are.
    """
    import torch

    if name is None:
        return
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{field} is {name!r}, which is no device; write cpu, cuda:0, cuda:1, ...") from error
    if device.type in ("cpu", "meta"):
        return
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if there is not None and there.type == device.type else 0
    if (device.index or 0) >= count:
        kind = device.type
        have = ", ".join(f"{kind}:{index}" for index in range(count)) or f"no {kind} device"
        raise ConfigError(
            f"{field} is {name!r}, but this machine has {have}. Name another, or leave the field out; "
            "CUDA_VISIBLE_DEVICES may hide some."
        )


def check_launch(file: str) -> None:
    """Refuse an accelerate config that cannot start here: DeepSpeed is missing, or GPUs for its processes are.

    Raises:
        ConfigError: Names the file, and what would do.
    """
    import torch
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        config: Any = load_config_from_file(file)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is not an accelerate config: {error}") from error
    kind = str(getattr(config.distributed_type, "value", config.distributed_type))
    if kind == "DEEPSPEED" and not is_installed("deepspeed"):
        raise ConfigError(
            f"{file} trains with DeepSpeed, which is not installed. Run: pip install 'kepo[deepspeed]', or take a "
            "config of FSDP (fsdp2-4gpu)."
        )
    if config.use_cpu or kind in ("NO", "MULTI_CPU"):
        return
    processes = -(-int(config.num_processes or 1) // int(config.num_machines or 1))
    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if processes > count:
        raise ConfigError(
            f"{file} starts {processes} processes on this machine, each on a GPU of its own, but there "
            f"{'is 1 GPU' if count == 1 else f'are {count} GPUs' if count else 'is no GPU'}. Take a config for fewer "
            "(`kepo recipes` lists them), or leave out --accelerate-config: "
            f"`kepo train` alone is one process on {'one GPU' if count else 'the CPU'}."
        )


def check_processes() -> None:
    """Refuse more processes on this machine than it has GPUs, where it has any; a launcher has started them."""
    import torch

    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if 0 < count < processes:
        raise ConfigError(f"{processes} processes were started on {count} GPUs; start at most one per GPU.")


def check_model(field: str, name: str, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Refuse a model that is not there, is not reachable, or that this version of transformers does not know.

    Args:
        field: The field that names it, for the message.
        name: A folder, or a name on the hub.
        revision: Of a model on the hub.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        ConfigError: Names the field, the model, and what to do.
    """
    from transformers import AutoConfig

    if is_adapter(name):
        return  # an adapter; its base model is looked for when it is loaded
    check_reachable(field, name, revision)
    try:
        AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field} {name!r} cannot be loaded: {_first_line(error)} {_advice(name)}") from error


def check_reachable(field: str, name: str, revision: str | None = None) -> None:
    """Refuse a model that is no folder, not in the cache, and on a hub that does not answer; else a ConfigError."""
    if not Path(name).exists() and not _cached(field, name, revision):
        _check_hub(field, name)


def _cached(field: str, name: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    except HFValidationError as error:
        raise ConfigError(
            f"{field} {name!r} is neither a folder here nor a name on the hub. {_advice(name)}"
        ) from error


def _check_hub(field: str, name: str) -> None:
    import httpx
    from huggingface_hub import constants

    problem = f"{field} {name!r} is no folder here, and not in the cache of the Hugging Face hub"
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"{problem}, which is offline (HF_HUB_OFFLINE is set). {_advice(name)}")
    try:
        # One try, because transformers' own takes half a minute of tries.
        httpx.head(constants.ENDPOINT, timeout=_REACHED_WITHIN)
    except httpx.HTTPError as error:
        raise ConfigError(
            f"{problem}, which cannot be reached ({error or type(error).__name__}). {_advice(name)}"
        ) from error


def _advice(name: str) -> str:
    if Path(name).exists():
        return "Give a folder that holds a model, as `save_pretrained` writes it."
    if looks_like_path(name):
        return "Check the path; `kepo models --help` builds models without a hub."
    return (
        f"Check the name. Without network: `hf download {name}` on a machine that has it, and give the folder; "
        "`kepo models --help` builds models without a hub. A private or gated model: `hf auth login`."
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


@contextmanager
def readable_errors(what: str) -> Iterator[None]:
    """What transformers, PEFT and TRL say of models and settings that they cannot take becomes a ConfigError.

    `what` is done inside, such as "The trainer cannot be built".
    """
    from huggingface_hub.errors import HTTPError
    from safetensors import SafetensorError

    try:
        yield
    except KepoError:
        raise
    except HTTPError as error:
        raise ConfigError(
            f"{what}: the Hugging Face hub does not answer as it should: {error}. Check the network, the name and "
            "`hf auth login`; push_to_hub needs the hub from the start."
        ) from error
    except (OSError, ImportError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{what}: {str(error).strip()}") from error
