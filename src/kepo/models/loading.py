"""A model with the class that its weights were saved from: a vision-language model, or a causal language model."""

from __future__ import annotations

from typing import Any


def load_model(name: str, *, config_of: str | None = None, trust_remote_code: bool = False, **options: Any) -> Any:
    """The model at `name`, a folder or a name on the hub.

    Args:
        name: What to load; a folder with a PEFT adapter is loaded with its base model.
        config_of: Where the config lies; None: at `name`. Of an adapter, its base model.
        trust_remote_code: Run code that comes with the model.
        options: For `from_pretrained`, such as `dtype` and `device_map`.

    Raises:
        OSError, ValueError: There is no such model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(config_of or name, trust_remote_code=trust_remote_code)
    auto = AutoModelForImageTextToText if _reads_images(config) else AutoModelForCausalLM
    return auto.from_pretrained(name, trust_remote_code=trust_remote_code, **options)


def _reads_images(config: Any) -> bool:
    """Whether the architecture that the weights were saved from reads images."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    names: set[str] = set()
    for entry in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values():
        names.update([entry] if isinstance(entry, str) else entry)
    remote = getattr(config, "auto_map", None) or {}
    return bool(names & set(config.architectures or ())) or "AutoModelForImageTextToText" in remote
