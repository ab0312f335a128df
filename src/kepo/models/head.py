"""The parts of a Hugging Face language model that scoring needs: its backbone and its output head.

`backbone` and `output_head` take a model as users pass it, a PEFT adapter around it included, teacher or student.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from kepo.errors import KepoError
from kepo.objective.divergence import OutputHead

# Factors on the logits, by the name that a model's configuration gives them.
_FACTORS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
# `logits_scaling` divides (Granite and others), except in the models that multiply by it.
_MULTIPLYING = ("hyperclovax",)


def backbone(model: Any) -> Any:
    """The module of `model` that returns `last_hidden_state` (for a vision-language model: tower and decoder).

    Raises:
        KepoError: `model` is not split into a backbone and an output head.
    """
    inner = _without_adapter(model)
    if inner.base_model is inner:
        raise KepoError(
            f"{type(inner).__name__} has no backbone apart from its output head, so its hidden states cannot be read. "
            "Use a model of the transformers library with a language-model head."
        )
    return inner.base_model


def output_head(model: Any) -> OutputHead:
    """The output head of `model`, sharing its parameters.

    Logits are scaled and capped as the model's configuration says: `final_logit_softcapping`, `logit_scale`,
    `logits_scaling`, `output_multiplier`, `lm_head_multiplier`, where None means 1 (or no cap).

    Raises:
        KepoError: the model has no output head, or one whose weight is not a plain matrix (an adapter on the head, a
            quantized head).
    """
    inner = _without_adapter(model)
    layer = inner.get_output_embeddings()
    if layer is None:
        raise KepoError(f"{type(inner).__name__} has no output head; use a language model.")
    if hasattr(layer, "lora_A"):
        raise KepoError(
            "The output head carries a LoRA adapter, which is not seen where log-probabilities and the divergence are "
            "computed from hidden states. Take it (often 'lm_head') out "
            "of the adapter's target_modules, or list it in modules_to_save to train it whole."
        )
    weight: torch.Tensor = layer.weight
    if not weight.is_floating_point():
        raise KepoError(
            f"The output head is quantized ({weight.dtype}); leave it out of the quantization, for example with "
            "llm_int8_skip_modules=['lm_head']."
        )
    config = inner.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    return OutputHead(weight=weight, bias=getattr(layer, "bias", None), scale=_scale(config), softcap=softcap)


def check_head(head: OutputHead, hidden: torch.Tensor, logits: torch.Tensor) -> None:
    """Refuse a model whose logits are not `head` of its hidden states: one with a factor that nobody knows here.

    Args:
        head: As `output_head` read it.
        hidden: (N, H) hidden states of the model.
        logits: (N, V) what the model itself made of them.

    Raises:
        KepoError: they differ by more than rounding.
    """
    expected = head.logits(hidden.to(head.weight.device))
    error = (expected - logits.to(expected.device, expected.dtype)).abs().max()
    if error > 0.05 * expected.abs().max().clamp_min(1.0):
        raise KepoError(
            "The model's logits are not the product of its hidden states and its output head with the scale and the "
            "softcap of its configuration, so it cannot be scored with here. Serve it and use RemoteTeacher, or use "
            "another model."
        )


def whole_copy(head: OutputHead, device: torch.device | str) -> OutputHead:
    """A copy of `head` on `device` that stays whole when the model is sharded.

    A weight that DeepSpeed ZeRO-3 has partitioned already is gathered; every process must call this together then.
    """
    parameters = [tensor for tensor in (head.weight, head.bias) if tensor is not None]
    gathered: AbstractContextManager[Any] = nullcontext()
    if any(hasattr(tensor, "ds_id") for tensor in parameters):
        from deepspeed.zero import GatheredParameters

        gathered = GatheredParameters(parameters)
    with gathered:
        bias = None if head.bias is None else head.bias.detach().to(device, copy=True)
        return OutputHead(head.weight.detach().to(device, copy=True), bias, head.scale, head.softcap)


def _without_adapter(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _scale(config: Any) -> float:
    scale = math.prod(_number(config, name) for name in _FACTORS)
    divisor = _number(config, "logits_scaling")
    return scale * divisor if config.model_type in _MULTIPLYING else scale / divisor


def _number(config: Any, name: str) -> float:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) else 1.0
