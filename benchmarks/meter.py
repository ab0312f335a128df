"""Counts what a piece of work costs, by phase: tokens, floating-point operations, tensor bytes. No time is measured.

    meter = CostMeter()
    meter.count_tokens(model)
    meter.wrap(trainer.accelerator, "backward", "backward")
    with meter.running("elsewhere"):
        trainer.train()
    meter.costs["backward"].flops

The same work on the same versions of the libraries gives the same numbers, however busy the machine is.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


def _cpu_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _cpu_attention_backward(grad_out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad_out, query, key, value)


# torch's table has the attention kernels of GPUs only, so attention on a CPU would count as nothing. A mask counts as
# dense, as it does there: what it hides is computed all the same.
CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
}
# Where SDPA takes no fused kernel, it is made of batched products, which these models use for nothing else.
_ATTENTION = (*CPU_ATTENTION, aten.bmm, aten.baddbmm)


@dataclass(slots=True)
class Cost:
    """What a phase costs.

    Attributes:
        tokens: Positions that went through a decoder, padding included; of a recomputed layer again.
        flops: Floating-point operations of products, convolutions and attention.
        attention_flops: Those of attention among them.
        peak_bytes: Most bytes of tensors held at once that were made while the meter ran, in earlier phases or here.
    """

    tokens: int = 0
    flops: int = 0
    attention_flops: int = 0
    peak_bytes: int = 0


class TensorBytes(TorchDispatchMode):
    """Bytes of the storages that were made while the mode is on and are still there.

    Memory that a kernel takes and gives back by itself is not seen.

    Attributes:
        current: Bytes now.
        peak: Most bytes since it was last set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given: set[int] | None = None
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if id(storage) in self._held:
                continue
            if given is None:
                given = {id(each.untyped_storage()) for each in _tensors((args, kwargs))}
            if id(storage) not in given:  # not a view of what was there before
                self._add(storage)
        return out

    def _add(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()

        def freed(_: Any) -> None:
            del self._held[key]
            self.current -= size

        self._held[key] = weakref.ref(storage, freed)
        self.current += size
        self.peak = max(self.peak, self.current)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor))


class CostMeter:
    """Costs by phase, of the work inside `running`.

    Attributes:
        costs: By phase. Of nested phases, the innermost pays.
    """

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}
        self.phase = ""
        self._bytes: TensorBytes | None = None
        self._counter: FlopCounterMode | None = None
        self._settled: tuple[int, int] = (0, 0)

    @contextmanager
    def running(self, phase: str) -> Iterator[None]:
        """Count what is done inside; `phase` pays for what is in no other phase."""
        self.start(phase)
        try:
            yield
        finally:
            self.stop()

    def start(self, phase: str) -> None:
        """Begin to count, from nothing."""
        self.costs, self.phase, self._settled = {}, phase, (0, 0)
        # When cycles of garbage are collected depends on the history of the process; nothing here may.
        gc.collect()
        gc.disable()
        self._bytes = TensorBytes()
        self._counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        # In this order the bytes are those of the operations that the counter takes others apart to.
        self._bytes.__enter__()
        self._counter.__enter__()

    def stop(self) -> None:
        """End counting."""
        assert self._counter is not None
        assert self._bytes is not None
        self._settle()
        self._counter.__exit__(None, None, None)
        self._bytes.__exit__(None, None, None)
        self._counter = self._bytes = None
        gc.enable()

    @contextmanager
    def in_phase(self, phase: str) -> Iterator[None]:
        """Let `phase` pay for what is done inside; nothing happens while the meter does not run."""
        before = self.phase
        self._switch(phase)
        try:
            yield
        finally:
            self._switch(before)

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Let `phase` pay for every call of the method `name` of `owner`."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.in_phase(phase):
                return method(*args, **kwargs)

        setattr(owner, name, counted)

    def count_tokens(self, model: Any) -> None:
        """Count the positions that go through the decoder of a transformers model."""

        def count(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._counter is not None:
                states = args[0] if args else kwargs["hidden_states"]  # (B, L, H)
                self._cost().tokens += states.shape[0] * states.shape[1]

        model.get_decoder().layers[0].register_forward_pre_hook(count, with_kwargs=True)

    def _switch(self, phase: str) -> None:
        if self._counter is not None:
            self._settle()
        self.phase = phase

    def _cost(self) -> Cost:
        return self.costs.setdefault(self.phase, Cost())

    def _settle(self) -> None:
        """Charge the current phase with what was done since the last change of phases."""
        assert self._counter is not None
        assert self._bytes is not None
        by_operation = self._counter.get_flop_counts().get("Global", {})
        totals = sum(by_operation.values()), sum(by_operation.get(each, 0) for each in _ATTENTION)
        cost = self._cost()
        cost.flops += totals[0] - self._settled[0]
        cost.attention_flops += totals[1] - self._settled[1]
        cost.peak_bytes = max(cost.peak_bytes, self._bytes.peak)
        self._settled = totals
        self._bytes.peak = self._bytes.current
