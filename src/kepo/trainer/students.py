"""Students that are saved as adapters: to go on with, or merged into their base model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kepo.errors import ConfigError
from kepo.models.adapters import base_model, processor_source
from kepo.models.loading import load_model


def load_adapter(folder: str, options: Mapping[str, Any], *, go_on: bool, trust_remote_code: bool = False) -> Any:
    """The student in a folder that holds an adapter.

    Args:
        folder: With `adapter_config.json`.
        options: For `from_pretrained` of the base model, such as `dtype`.
        go_on: True: the adapter itself is trained further. False: it is merged into the base model, all of whose
            weights are trained.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ConfigError: The base model or the adapter cannot be loaded.
    """
    from peft import PeftModel

    base = base_model(folder)
    try:
        model = load_model(base, trust_remote_code=trust_remote_code, **options)
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=go_on)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"model_name_or_path {folder!r} is an adapter of {base!r}, but they could not be loaded together: {error}"
        ) from error
    if go_on:
        return adapted
    merged = adapted.merge_and_unload()
    merged.requires_grad_(True)
    return merged


def load_student_processor(folder: str, trust_remote_code: bool = False) -> Any:
    """The processor (of a text model: the tokenizer) of the student in an adapter's folder, as TRL loads one."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(
        processor_source(folder),
        truncation_side="left",
        padding_side="left",
        trust_remote_code=trust_remote_code,
    )
