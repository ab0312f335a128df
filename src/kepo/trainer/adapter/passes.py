"""Log-probabilities of a batch's completions: each prompt computed once, rows without gradient left out.

B rows, T completion tokens, N tokens that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from kepo.models.packing import Packed, TokenRow
from kepo.models.shared_prompt import SharedPrompt
from kepo.trainer.adapter.forward import DistillationTarget, TokenOutput, TokenPass


@dataclass(frozen=True)
class PassSettings:
    """What is the same in every pass: see `TokenPass`."""

    temperature: float
    float32_head: bool


@dataclass(frozen=True)
class PassResult:
    """What a pass says of a batch; rows that were left out hold zeros."""

    logps: torch.Tensor  # (B, T) in nats
    entropies: torch.Tensor | None  # (B, T) in nats
    divergence: torch.Tensor | None  # of the gated tokens, rows first
    aux_loss: torch.Tensor | None
    computed: int  # tokens that the decoder computed, padding included


class StudentPasses:
    """Forward passes of one policy, the student or its reference, over completions.

    Args:
        shared: Packs its rows.
        settings: Of every pass.
        autocast: Makes the context that a forward pass runs in.
        most: The largest of one integer per process.
    """

    def __init__(
        self,
        shared: SharedPrompt,
        settings: PassSettings,
        autocast: Callable[[], Any],
        most: Callable[[int], int],
    ) -> None:
        self._shared = shared
        self._settings = settings
        self._autocast = autocast
        self._most = most

    @property
    def shares_prompts(self) -> bool:
        """Whether a prompt is computed once for the rows that share it."""
        return self._shared.enabled

    def run(
        self,
        model: Any,
        rows: Sequence[TokenRow],
        width: int,
        device: torch.device,
        *,
        idle: torch.Tensor | None = None,
        entropy: bool = False,
        target: DistillationTarget | None = None,
        **options: Any,
    ) -> PassResult:
        """One forward pass. Collective where the model is sharded.

        Args:
            model: As the trainer calls it.
            rows: B >= 1.
            width: T.
            device: Of the model.
            idle: (B,) bool, rows that need not be computed; None: all must be. See `_read`.
            entropy: Whether the entropies are wanted.
            target: The teacher's view.
            **options: More arguments of the model.
        """
        read = _read(rows, idle)
        self._check(model, list(read.values()), device)
        packed = self._shared.pack(list(read.values()), device)
        lengths = torch.zeros(len(rows), dtype=torch.long)
        lengths[list(read)] = torch.tensor([len(row.completion) for row in read.values()])
        scored = (torch.arange(width) < lengths.unsqueeze(1)).to(device)  # (B, T)
        wanted = self._wanted(packed, entropy)
        if target is not None:
            wanted = replace(wanted, target=target, gated=target.weights.to(device)[scored] > 0)
        output = self._forward(model, packed, wanted, options)
        assert output.logps is not None
        logps = _spread(output.logps, scored)
        entropies = None if output.entropy is None else _spread(output.entropy, scored)
        return PassResult(logps, entropies, output.divergence, output.aux_loss, packed.computed)

    def _wanted(self, packed: Packed, entropy: bool) -> TokenPass:
        settings = self._settings
        return TokenPass(packed.states, packed.tokens, settings.temperature, entropy, settings.float32_head)

    def _forward(self, model: Any, packed: Packed, wanted: TokenPass, options: dict[str, Any]) -> TokenOutput:
        with self._autocast():
            output: TokenOutput = model(**packed.inputs, token_pass=wanted, **options)
        return output

    def _check(self, model: Any, rows: Sequence[TokenRow], device: torch.device) -> None:
        """On the first rows that share a prompt, see that packs give the same."""

        def logps_of(packed: Packed) -> torch.Tensor:
            logps = self._forward(model, packed, self._wanted(packed, entropy=False), {}).logps
            assert logps is not None
            return logps

        if not self._shared.unchecked:
            return
        with _undisturbed(model):
            self._shared.check_once(rows, device, logps_of, self._most)


def _read(rows: Sequence[TokenRow], idle: torch.Tensor | None) -> dict[int, TokenRow]:
    """The rows that a pass computes, by their index.

    A pass without any would have no graph, and one without images would leave out the image tower, whose weights other
    processes may wait to gather: then the first token of the shortest idle row is computed, too.
    """
    read = {row: rows[row] for row in range(len(rows)) if idle is None or not idle[row]}
    seeing = [row for row in range(len(rows)) if _sees(rows[row])]
    if not read or (seeing and not any(_sees(row) for row in read.values())):
        least = min(seeing or range(len(rows)), key=lambda row: len(rows[row].completion))
        read[least] = replace(rows[least], completion=rows[least].completion[:1])
    return dict(sorted(read.items()))


def _sees(row: TokenRow) -> bool:
    return any(len(value) for value in row.images.values())


def _spread(values: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """(B, T) the (N,) values where `scored`, zeros elsewhere; part of the graph also where N is 0."""
    return values.new_zeros(scored.shape).masked_scatter(scored.to(values.device), values)


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Without gradient and dropout."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
