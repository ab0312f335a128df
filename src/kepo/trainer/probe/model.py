"""Which parameters of a model will be trained, and how much it can read."""

from __future__ import annotations

from typing import Any

from transformers.utils import is_peft_available

from kepo.errors import ConfigError

_STRETCHES = ("linear", "dynamic", "yarn")  # position schemes that read beyond max_position_embeddings by a factor


def check_trainable(model: Any) -> tuple[int, int]:
    """How many parameters are trained, and how many there are.

    Raises:
        ConfigError: None are trained, or the active adapter is frozen.
    """
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    frozen = _frozen_adapter(model)
    if frozen is not None:
        raise ConfigError(
            f"The adapter {frozen!r} of the model is frozen, so it would not be trained. Load it with "
            "PeftModel.from_pretrained(model, folder, is_trainable=True), or call model.set_adapter again with "
            "trainable parameters."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "No parameter of the model requires a gradient, so nothing would be trained. Call "
            "model.requires_grad_(True), or train an adapter (peft_config, use_peft)."
        )
    return trainable, total


def _frozen_adapter(model: Any) -> str | None:
    """The name of an active adapter without a parameter that is trained; None: there is no such adapter."""
    if not is_peft_available():
        return None
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return None
    for adapter in model.active_adapters:
        parts = [p for name, p in model.named_parameters() if adapter in name.split(".")]
        if parts and not any(parameter.requires_grad for parameter in parts):
            return str(adapter)
    return None


def context_length(config: Any) -> int | None:
    """Tokens that a model reads at most, prompt and completion together; None: its config does not say."""
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if not isinstance(length, int) or length < 1:
        return None
    positions = getattr(text, "rope_parameters", None)
    stretched = isinstance(positions, dict) and positions.get("rope_type") in _STRETCHES
    factor = positions.get("factor", 1.0) if isinstance(positions, dict) and stretched else 1.0
    return int(length * max(1.0, float(factor)))
