"""What the name of a model stands for: a folder with a model, one with a PEFT adapter and its base model, the hub."""

from __future__ import annotations

import json
from pathlib import Path

from kepo.errors import ConfigError

ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(name: str) -> bool:
    """Whether `name` is a folder with an adapter and no whole model."""
    folder = Path(name)
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def looks_like_path(name: str) -> bool:
    """Whether `name` can only be a path, and none of the hub (`OWNER/NAME`)."""
    return name.count("/") > 1 or name.startswith((".", "/", "~"))


def base_model(name: str) -> str:
    """The base model of the adapter in folder `name`; `name` itself where it is no adapter.

    Raises:
        ConfigError: The adapter does not name its base model, or names a folder that is not there.
    """
    if not is_adapter(name):
        return name
    file = Path(name) / ADAPTER_CONFIG
    base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"{file}, field 'base_model_name_or_path': it is empty; name the base model.")
    if not Path(base).exists() and looks_like_path(str(base)):
        raise ConfigError(
            f"{file}, field 'base_model_name_or_path': {base!r} does not exist. Correct it, or put the base model "
            "there."
        )
    return str(base)


def processor_source(name: str) -> str:
    """Where the processor of the model `name` lies; an adapter saved without one uses that of its base model."""
    return name if not is_adapter(name) or any(Path(name).glob("tokenizer*")) else base_model(name)
