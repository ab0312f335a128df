"""Where a step spends its time and its tokens, seen from outside, so that TRL's trainers are measured like ours.

Methods of a trainer are wrapped on the instance. A phase inside another one is not counted in the outer one.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import TrainerCallback

ROLLOUTS, EXPLORATION, REWARDS, TEACHER = "rollouts", "exploration", "rewards", "teacher"
REFERENCE, BATCH, TRAINING, OPTIMIZER = "reference", "batch", "forward/backward", "optimizer"
PHASES = (ROLLOUTS, EXPLORATION, REWARDS, TEACHER, REFERENCE, BATCH, TRAINING, OPTIMIZER)
"""`batch`: tokenizing, image processing, padding, advantages. What is in none of them is `other`: logging, data loading."""

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

    On a CPU torch's tracker counts the tensors, on a GPU the allocator does.

    Args:
        device: Where to look.
        models: What is there before: their weights do not count.
        optimizer: Whose states do not count.
    """

    def __init__(self, device: torch.device, models: list[Any], optimizer: Any) -> None:
        self.bytes = 0
        self._device = device
        self._tracker: MemTracker | None = None
        if device.type != "cuda":
            self._tracker = MemTracker()
            self._tracker.track_external(*models, optimizer)

    def __enter__(self) -> PeakBytes:
        if self._tracker is None:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._before = self._total("current")
            self._tracker.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._tracker is None:
            torch.cuda.synchronize()
            self.bytes = torch.cuda.max_memory_allocated() - self._before
        else:
            self._tracker.__exit__(*error)
            self.bytes = self._total("peak") - self._before

    def _total(self, when: str) -> int:
        assert self._tracker is not None
        return int(self._tracker.get_tracker_snapshot(when)[self._device]["Total"])


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
