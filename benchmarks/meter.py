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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad_out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad_out, query, key, value)


# torch's own table has the attention kernels of GPUs only; without these, attention on a CPU would count as nothing. A
# mask counts as dense, as it does there: what it hides is computed all the same.
CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
_FORMULAS = {**flop_registry, **{operation: shape_wrapper(formula) for operation, formula in CPU_ATTENTION.items()}}
# Where SDPA takes no fused kernel it is made of batched products, which our models use for hardly anything else.
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


class OperationCosts(TorchDispatchMode):
    """Adds up what torch's operations do while the mode is on.

    Operations are counted by the formulas of torch's `FlopCounterMode`, in one mode with the bytes: that mode beside
    another one takes three times as long. Bytes are those of the storages that were made meanwhile and are still
    there; memory that a kernel takes and gives back by itself is not seen.

    Attributes:
        flops: By operation.
        current: Bytes now.
        peak: Most bytes since it was last set.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[Any] = Counter()
        self.current = self.peak = 0
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        operation = getattr(func, "_overloadpacket", func)
        if operation in _FORMULAS:
            self.flops[operation] += _FORMULAS[operation](*args, **kwargs, out_val=out)
        given: set[int] | None = None
        for tensor in _tensors((out,)):
            storage = tensor.untyped_storage()
            if id(storage) in self._held:
                continue
            if given is None:
                given = {id(each.untyped_storage()) for each in _tensors((*args, *kwargs.values()))}
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


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among arguments or results of an operation, and in lists of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


class CostMeter:
    """Costs by phase, of the work inside `running`.

    Attributes:
        costs: By phase. Of nested phases, the innermost pays.
    """

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}
        self.phase = ""
        self._operations: OperationCosts | None = None

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
        self.costs, self.phase = {}, phase
        # When cycles of garbage are collected depends on the history of the process; nothing here may.
        gc.collect()
        gc.disable()
        self._operations = OperationCosts()
        self._operations.__enter__()

    def stop(self) -> None:
        """End counting."""
        assert self._operations is not None
        self._settle(self._operations)
        self._operations.__exit__(None, None, None)
        self._operations = None
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
            if self._operations is not None:
                states = args[0] if args else kwargs["hidden_states"]  # (B, L, H)
                self._cost().tokens += states.shape[0] * states.shape[1]

        model.get_decoder().layers[0].register_forward_pre_hook(count, with_kwargs=True)

    def _switch(self, phase: str) -> None:
        if self._operations is not None:
            self._settle(self._operations)
        self.phase = phase

    def _cost(self) -> Cost:
        return self.costs.setdefault(self.phase, Cost())

    def _settle(self, done: OperationCosts) -> None:
        """Charge the current phase with what was done since the last change of phases."""
        cost = self._cost()
        cost.flops += done.flops.total()
        cost.attention_flops += sum(done.flops[operation] for operation in _ATTENTION)
        cost.peak_bytes = max(cost.peak_bytes, done.peak)
        done.flops.clear()
        done.peak = done.current
