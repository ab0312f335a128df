"""Which models can read packs (see `kepo.models.packing`), and a check on the first batch that this one does.

Legend: B rows, N scored tokens.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kepo.models.head import backbone
from kepo.models.packing import Cost, Decoder, Packed, TokenRow, pack, plan_packs

logger = logging.getLogger(__name__)

_TAKE_MASKS = ("sdpa", "eager", "flex_attention")
_KINDS = ("full_attention", "sliding_attention")
# How far log-probabilities with a shared prompt may lie from the plain ones, on average, in nats. In bfloat16 SmolLM2's
# differ by 0.02 to 0.04.
_TOLERANCE, _TOLERANCE_HALF = 1e-3, 0.1


class SharedPrompt:
    """Packs rows for one model, as long as that model gives the same for packs as for separate rows.

    Args:
        model: A transformers model, or a PEFT model around one, before it is wrapped for distributed training.
        pad_id: Fills sequences up.
        who: Says in the log whose prompts are meant.
        enabled: False: every row is a sequence of its own.
        autocast: Whether the model computes in half precision although its weights do not have it.

    Attributes:
        enabled: Whether rows with equal prompts share a sequence.
    """

    def __init__(self, model: Any, pad_id: int, who: str, *, enabled: bool = True, autocast: bool = False) -> None:
        self._half = autocast or is_half(model)
        self._pad_id = pad_id
        self._who = who
        self._checked = False
        self._rope_index = getattr(backbone(model), "get_rope_index", None)
        self._decoder = _decoder_of(model)
        self._cost = Cost.of(model.config.get_text_config())
        self.enabled = enabled
        if enabled and (reason := refusal(model)) is not None:
            self._turn_off(reason)

    @property
    def unchecked(self) -> bool:
        """Whether `check_once` may still compare."""
        return self.enabled and not self._checked

    def pack(self, rows: Sequence[TokenRow], device: torch.device | str) -> Packed:
        """The batch of `rows`, see `kepo.models.packing.pack`."""
        return self._packed(rows, plan_packs(rows, self._cost if self.enabled else None), device)

    def check_once(
        self,
        rows: Sequence[TokenRow],
        device: torch.device | str,
        logps_of: Callable[[Packed], Tensor],
        most: Callable[[int], int] = int,
    ) -> None:
        """On the first rows that share a prompt, compare one of them with the same row alone.

        Where they differ, packs are turned off with one log line. Does nothing after that, and as long as no row shares
        its prompt.

        Args:
            rows: B >= 1, of a batch.
            device: Of the model.
            logps_of: The (N,) log-probabilities of the scored tokens of a batch, without gradient and dropout; called
                twice. Collective where the model is sharded.
            most: The largest of one integer per process, so that all processes decide alike; collective.
        """
        if not self.unchecked:
            return
        largest = max(plan_packs(rows, self._cost), key=len)
        if most(len(largest)) < 2:
            return
        self._checked = True
        pair = [rows[row] for row in sorted(largest, key=lambda row: len(rows[row].completion))[-2:]]
        reason = None
        try:
            packed = logps_of(self._packed(pair, [range(len(pair))], device))
            alone = logps_of(self._packed(pair[-1:], [(0,)], device))
            reason = difference(packed[len(packed) - len(alone) :], alone, half=self._half)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model says to packs, it can still read rows
            reason = f"this model does not take them ({type(error).__name__}: {error})"
        if most(int(reason is not None)):
            self._turn_off(reason or "another process found that they differ")

    def _packed(self, rows: Sequence[TokenRow], packs: Sequence[Sequence[int]], device: torch.device | str) -> Packed:
        in_space = self._rope_index is not None and any(row.images for row in rows)
        return pack(rows, packs, self._decoder, self._pad_id, device, self._positions if in_space else None)

    def _positions(self, fields: dict[str, Any]) -> Tensor:
        assert self._rope_index is not None
        taken = inspect.signature(self._rope_index).parameters
        positions: Tensor = self._rope_index(**{name: value for name, value in fields.items() if name in taken})[0]
        return positions

    def _turn_off(self, reason: str) -> None:
        self.enabled = False
        logger.warning(
            "The prompts of the %s are computed once per rollout, not once per group: %s.", self._who, reason
        )


def is_half(model: Any) -> bool:
    """Whether the weights of `model` are in half precision."""
    return model.dtype in (torch.bfloat16, torch.float16)


def difference(shared: Tensor, plain: Tensor, *, half: bool) -> str | None:
    """Why a shared prompt cannot be used; None: it can.

    Args:
        shared: Log-probabilities with a shared prompt, in nats.
        plain: The same without.
        half: Whether the model computed them in half precision; their own dtype does not tell.
    """
    tolerance = _TOLERANCE_HALF if half else _TOLERANCE
    error = (shared - plain).abs().mean().item() if plain.numel() else 0.0
    if error <= tolerance:  # not so for NaN
        return None
    return f"log-probabilities differ by {error:.2g} nats on average, more than rounding ({tolerance:g})"


def refusal(model: Any) -> str | None:
    """Why `model` cannot read packs, as far as its configuration tells; None: it may."""
    config = model.config.get_text_config()
    adapters = getattr(model, "peft_config", None) or {}
    implementation = config._attn_implementation
    kinds = set(getattr(config, "layer_types", None) or ())
    if any(adapter.is_prompt_learning for adapter in adapters.values()):
        return "prompt learning adds virtual tokens to every row"
    if getattr(model.config, "is_encoder_decoder", False):
        return "the model is an encoder and a decoder"
    if implementation not in _TAKE_MASKS:
        return f"attn_implementation {implementation!r} takes no block mask; use one of {', '.join(_TAKE_MASKS)}"
    if not kinds <= set(_KINDS):
        return f"the model has layers of the kind {', '.join(sorted(kinds - set(_KINDS)))}"
    if "position_ids" not in inspect.signature(backbone(model).forward).parameters:
        return "the model takes no positions"
    return None


def _decoder_of(model: Any) -> Decoder:
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if not getattr(config, "use_sliding_window", True):
        window = None
    given = getattr(config, "layer_types", None)
    kinds = tuple(sorted(set(given))) if given else ("full_attention" if window is None else "sliding_attention",)
    return Decoder(
        implementation=config._attn_implementation,
        dtype=model.dtype,
        kinds=kinds,
        window=window,
        # Gemma 3's; a model whose token types mean something else fails the check.
        bidirectional_images=config is not model.config,
    )
