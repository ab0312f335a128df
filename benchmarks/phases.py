"""Where a step spends its time and its tokens, seen from outside, so that TRL's trainers are measured like ours.

Methods of a trainer are wrapped on the instance. A phase inside another one is not counted in the outer one.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import TrainerCallback

ROLLOUTS, EXPLORATION, REWARDS, TEACHER = "rollouts", "exploration", "rewards", "teacher"
REFERENCE, BATCH, TRAINING, OPTIMIZER = "reference", "batch", "forward/backward", "optimizer"
PHASES = (ROLLOUTS, EXPLORATION, REWARDS, TEACHER, REFERENCE, BATCH, TRAINING, OPTIMIZER)
"""`batch`: tokenizing, image processing, padding, advantages. The rest is `other`, logging for example."""

# What the trainers of benchmarks/arms.py and TRL call these.
_METHODS = {
    "_generate_single_turn": ROLLOUTS,
    "_calculate_rewards": REWARDS,
    "teacher_output": TEACHER,
    "reference_logps": REFERENCE,
    "_prepare_inputs": BATCH,
    "training_step": TRAINING,
    "_clip_grad_norm": OPTIMIZER,
}


class PhaseClock:
    """Seconds and decoder tokens by phase.

    Args:
        synchronize: Called before the time is read: waits for an accelerator.
        now: Seconds since some moment.
    """

    def __init__(
        self, synchronize: Callable[[], None] = lambda: None, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._synchronize, self._now = synchronize, now
        self._open: list[str] = []
        self._since = 0.0
        self._values: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside belongs to phase `name`, until a phase inside it begins."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        """As `phase`, without a block."""
        self._book()
        # Exploration samples and scores as the rollouts do; that is its own.
        self._open.append(EXPLORATION if EXPLORATION in self._open else name)

    def end(self) -> None:
        """End of the phase that began last."""
        self._book()
        self._open.pop()

    def take(self) -> dict[str, float]:
        """`seconds/PHASE` and `tokens/ROLE/PHASE` since the last call."""
        values = dict(self._values)
        self._values.clear()
        return values

    def count_tokens(self, role: str, tokens: int) -> None:
        """`tokens` passed through the decoder of `role` in the current phase."""
        self._values[f"tokens/{role}/{self._open[-1] if self._open else 'other'}"] += tokens

    def _book(self) -> None:
        self._synchronize()
        now = self._now()
        if self._open:
            self._values[f"seconds/{self._open[-1]}"] += now - self._since
        self._since = now


def watch_trainer(trainer: Any, clock: PhaseClock) -> None:
    """Book a trainer's phases on `clock`, those of an exploration and a teacher of `KEPOTrainer` included."""
    for method, phase in _METHODS.items():
        if hasattr(trainer, method):
            _watch(trainer, method, phase, clock)
    if getattr(trainer, "_exploration", None) is not None:
        _watch(trainer._exploration, "run", EXPLORATION, clock)
    if getattr(trainer, "teacher", None) is not None:
        _watch(trainer.teacher, "score", TEACHER, clock)
    trainer.add_callback(_OptimizerPhase(clock))


def watch_decoder(model: Any, role: str, clock: PhaseClock) -> None:
    """Count the tokens, padding included, that pass through a model's decoder; those of images are among them."""

    def before(_module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tokens = kwargs.get("inputs_embeds")
        if tokens is None:
            tokens = kwargs["input_ids"] if kwargs.get("input_ids") is not None else args[0]
        clock.count_tokens(role, tokens.shape[0] * tokens.shape[1])

    model.get_decoder().register_forward_pre_hook(before, with_kwargs=True)


class PeakBytes:
    """Most bytes that tensors hold at once inside a `with` block beyond those that were there before, in `bytes`.

    On a CPU every operation's results are counted, on a GPU the allocator is asked.

    Args:
        device: Where to look.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes = 0
        self._storages = None if device.type == "cuda" else NewStorages()

    def __enter__(self) -> PeakBytes:
        if self._storages is not None:
            self._storages.__enter__()
        else:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._storages is not None:
            self._storages.__exit__(*error)
            self.bytes = self._storages.peak
        else:
            torch.cuda.synchronize()
            self.bytes = torch.cuda.max_memory_allocated() - self._before


class NewStorages(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until they are freed; `peak` is the most at once.

    torch's `MemTracker` does the same by module, and refuses a module that is called twice in one step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._held = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            self._known.setdefault(storage, True)  # not made here, or counted already
        results = func(*args, **(kwargs or {}))
        for storage in _storages(results):
            if storage not in self._known:
                self._known[storage] = True
                self._held += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self._held)
        return results

    def _free(self, size: int) -> None:
        self._held -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    for value in tree_leaves(values):
        if isinstance(value, torch.Tensor):
            yield value.untyped_storage()


class _OptimizerPhase(TrainerCallback):
    def __init__(self, clock: PhaseClock) -> None:
        self._clock = clock

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._clock.begin(OPTIMIZER)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._clock.end()


def _watch(owner: Any, method: str, phase: str, clock: PhaseClock) -> None:
    wrapped = getattr(owner, method)

    @functools.wraps(wrapped)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with clock.phase(phase):
            return wrapped(*args, **kwargs)

    setattr(owner, method, timed)
