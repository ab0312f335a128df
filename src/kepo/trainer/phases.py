"""Where the seconds of a training step go: one clock, and the callback that reads it after every optimizer step.

Every moment belongs to exactly one phase, so the phases of a step add up to its time. The clock reads
`time.perf_counter`. A GPU computes after the call that started it has returned, and its time is then counted in the
phase that first waits for a result. `PhaseClock.synchronize` makes every phase wait for its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import record_function
from transformers import TrainerCallback

DATA, ROLLOUTS, EXPLORATION, REWARDS = "data", "rollouts", "exploration", "rewards"
TEACHER, LOGPROBS, TRAINING, OPTIMIZER = "teacher", "logprobs", "training", "optimizer"
LOGGING, EVALUATION, REST = "logging", "evaluation", "rest"

PHASES: dict[str, str] = {
    DATA: "reading data",
    ROLLOUTS: "rollouts",
    EXPLORATION: "exploration",
    REWARDS: "rewards",
    TEACHER: "waiting for the teacher",
    LOGPROBS: "old and reference log-probabilities",
    TRAINING: "forward and backward",
    OPTIMIZER: "optimizer",
    LOGGING: "logging and writing",
    EVALUATION: "evaluation",
    REST: "rest",
}
"""The phases in the order of a step, and what they are called in words."""

_WHOLE = frozenset({EXPLORATION, EVALUATION})  # what they call is theirs: samples, rewards, log-probabilities
RANGE = "kepo/"  # what the names of the phases begin with in a trace of torch.profiler


@dataclass
class StepTimes:
    """What the clock counted in one optimizer step of this process."""

    seconds: dict[str, float] = field(default_factory=dict)  # phase -> seconds outside of the phases inside it
    calls: dict[str, int] = field(default_factory=dict)  # phase -> how often it began
    completion_tokens: int = 0  # of the rollouts

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return sum(self.seconds.values())


class PhaseClock:
    """Counts the seconds of phases; the innermost open one counts, so none is counted twice.

    Phases inside exploration or evaluation are not told apart. Below the phases opened with `clock(phase)` lies one
    that `turn_to` exchanges. What other threads do is not counted: it overlaps with what this one does.

    Args:
        now: Seconds since some moment.

    Attributes:
        synchronize: Called before the clock is read; None: nothing is waited for.
        times: What was counted since the last `take`.
        last: What the last `take` gave.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.synchronize: Callable[[], None] | None = None
        self.times = self.last = StepTimes()
        self._now = now
        self._thread = threading.get_ident()
        self._known: dict[str, None] = {}  # phases seen so far: later steps without them log 0
        self._open: list[str] = [REST]
        self._range: record_function | None = None
        self._since = now()

    @property
    def phase(self) -> str:
        """The phase that counts now."""
        return self._open[-1]

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the seconds spent inside as those of `phase`."""
        if threading.get_ident() != self._thread or self.phase in _WHOLE:
            yield
            return
        self._charge()
        self._open.append(phase)
        self._begin(phase)
        try:
            with record_function(RANGE + phase):
                yield
        finally:
            self._charge()
            self._open.pop()

    def turn_to(self, phase: str) -> None:
        """End the phase below all open ones, and begin `phase` in its place."""
        self._charge()
        self._close_range()
        self._open[0] = phase
        self._begin(phase)
        self._range = record_function(RANGE + phase)
        self._range.__enter__()

    def start(self) -> None:
        """Begin to count, from nothing and in this thread."""
        self._close_range()
        self._thread = threading.get_ident()
        self._known, self._open, self.times = {}, [REST], StepTimes()
        self._since = self._now()

    def take(self) -> StepTimes:
        """What was counted since the last call; phases of earlier steps that this one did not have are 0."""
        self._charge()
        self._known |= dict.fromkeys(self.times.seconds)
        taken, self.times = self.times, StepTimes()
        order = sorted(self._known, key=_place)
        taken.seconds = {phase: taken.seconds.get(phase, 0.0) for phase in order}
        self.last = taken
        return taken

    def _begin(self, phase: str) -> None:
        self.times.calls[phase] = self.times.calls.get(phase, 0) + 1

    def _charge(self) -> None:
        if self.synchronize is not None:
            self.synchronize()
        now = self._now()
        self.times.seconds[self.phase] = self.times.seconds.get(self.phase, 0.0) + now - self._since
        self._since = now

    def _close_range(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None


class PhaseCallback(TrainerCallback):
    """Turns the clock with transformers' training loop, and reports its seconds after every optimizer step.

    A step reaches from the end of the step before it: what is logged, saved and evaluated after a step counts for the
    next one.

    Args:
        clock: Of the trainer.
        log: Takes a metric's name and value; None: nothing is reported.
    """

    def __init__(self, clock: PhaseClock, log: Callable[[str, float], None] | None = None) -> None:
        self._clock, self._log = clock, log

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.start()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.turn_to(TRAINING)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.turn_to(TRAINING)  # of the next micro-batch

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.turn_to(OPTIMIZER)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        times = self._clock.take()
        self._clock.turn_to(LOGGING)
        if self._log is not None:
            for name, seconds in as_metrics(times.seconds).items():
                self._log(name, seconds)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.turn_to(REST)


class WithPhases:
    """Gives a trainer of transformers a clock; stands before it among the base classes.

    Attributes:
        phases: Where the seconds of a step go.
    """

    # What takes the seconds of every step, as name and value; None: they are not logged.
    log_metric: Callable[[str, float], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.phases = PhaseClock()
        super().__init__(*args, **kwargs)
        self.add_callback(PhaseCallback(self.phases, self.log_metric))  # type: ignore[attr-defined]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As in `transformers.Trainer`."""
        with self.phases(DATA):
            return super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in `transformers.Trainer`."""
        with self.phases(EVALUATION):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)  # type: ignore[misc]
        return metrics


def as_metrics(seconds: Mapping[str, float]) -> dict[str, float]:
    """`time/PHASE_s` of every phase, and `time/step_s`, their sum."""
    return {f"time/{phase}_s": value for phase, value in seconds.items()} | {"time/step_s": sum(seconds.values())}


def phase_of(trainer: Any, phase: str) -> AbstractContextManager[None]:
    """`phase` on the clock of a trainer; nothing where it has none."""
    clock: PhaseClock | None = getattr(trainer, "phases", None)
    return nullcontext() if clock is None else clock(phase)


def logprobs_phase(clock: PhaseClock) -> AbstractContextManager[None]:
    """For a forward pass of the student: without gradient it makes old or reference log-probabilities."""
    return nullcontext() if torch.is_grad_enabled() else clock(LOGPROBS)


def _place(phase: str) -> int:
    names = list(PHASES)
    return names.index(phase) if phase in PHASES else len(names)
