"""A model by its name: a folder, a checkpoint, a PEFT adapter, or a name on the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kepo.errors import ConfigError
from kepo.evaluation.generate import TransformersBackend
from kepo.models.loading import load_model

_ADAPTER = "adapter_config.json"
# Enough of a weights file to tell two trained models apart, without reading gigabytes.
_SPOTS, _SPOT = 256, 4096


def load_backend(
    name: str | Path,
    *,
    batch_size: int = 64,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> TransformersBackend:
    """A backend for a model folder, a checkpoint, a folder with a PEFT adapter, or a hub name.

    Args:
        name: What to load; the weights must be in safetensors format.
        batch_size: See `TransformersBackend`.
        device: Where to compute; None: a GPU if there is one.
        dtype: Of the weights; "auto" for the one they were saved in.
        trust_remote_code: Run code that comes with the model.
        chat_template_kwargs: Variables of the chat template, as in training.

    Raises:
        ConfigError: there is no model at `name`, or no processor or tokenizer.
    """
    import torch

    base = _base_model(str(name))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = load_model(
            str(name),
            config_of=base,
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            use_safetensors=True,
            device_map={"": device},
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the model {str(name)!r} could not be loaded: {error} Give a folder with config.json and weights in "
            "safetensors format, or the name of such a model on the hub that this machine can reach."
        ) from error
    return TransformersBackend(
        model.eval(),
        _load_processor(str(name), base, trust_remote_code),
        name=str(name),
        fingerprint=weights_fingerprint(name),
        batch_size=batch_size,
        chat_template_kwargs=chat_template_kwargs,
    )


def _base_model(name: str) -> str:
    """The model itself, or the one that the adapter in folder `name` belongs to.

    Raises:
        ConfigError: a folder that holds neither, or an adapter that names no base model.
    """
    folder = Path(name)
    if (folder / "config.json").is_file():
        return name
    if (folder / _ADAPTER).is_file():
        base = json.loads((folder / _ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ConfigError(f"{folder / _ADAPTER}, field 'base_model_name_or_path': it is empty; name the base model")
        return str(base)
    if folder.exists():
        raise ConfigError(
            f"{name} holds no model: there is neither config.json nor {_ADAPTER} in it. Give the folder of a model, a "
            "checkpoint, or a finished run."
        )
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise ConfigError(f"{name} does not exist. Give the folder of a model, or its name on the hub.")
    return name


def _load_processor(name: str, base: str, trust_remote_code: bool) -> Any:
    """The processor beside the weights; an adapter saved without one uses that of its base model."""
    from transformers import AutoProcessor

    source = name if name == base or any(Path(name).glob("tokenizer*")) else base
    try:
        return AutoProcessor.from_pretrained(source, trust_remote_code=trust_remote_code, padding_side="left")
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"{source}: no processor or tokenizer could be loaded from it: {error} Save the base model's there."
        ) from error


def weights_fingerprint(name: str | Path) -> str:
    """A short text that changes when the weights in the folder `name` do; empty for a name on the hub.

    Only evenly spread spots of each file are read: training moves every weight.
    """
    digest = hashlib.sha256()
    files = sorted(Path(name).glob("*.safetensors"))
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as weights:
            for spot in range(_SPOTS):
                weights.seek(size * spot // _SPOTS)
                digest.update(weights.read(_SPOT))
    return digest.hexdigest()[:16] if files else ""
