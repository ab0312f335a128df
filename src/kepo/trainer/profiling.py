"""Profiles a few steps of a run: how long each phase takes, and a trace of torch.profiler.

    with profiled(trainer, steps=2):
        trainer.train()

After the warm-up, `steps` steps are measured, and as many are traced after them: the tracer itself costs time, which
the table of phases does not have. The run then goes on as if nothing had been.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, supported_activities
from transformers import TrainerCallback

from kepo.errors import ConfigError
from kepo.files import readable_errors, replacing
from kepo.runs.profile import PROFILE, TRACE, OperatorCost, PhaseCost, Profile, profile_as_markdown, write_profile
from kepo.trainer.phases import LOGGING, PHASES, REST, ROLLOUTS, PhaseCallback, PhaseClock, StepTimes

__all__ = ["StepProfiler", "check_profile_fits", "profiled"]

_WARM_UP = 1  # the first step allocates, compiles and chooses kernels
_OPERATORS = 15  # of the table


@contextmanager
def profiled(trainer: Any, steps: int = 2) -> Iterator[StepProfiler]:
    """Profile the training that happens inside.

    Args:
        trainer: A `KEPOTrainer`, or another trainer of transformers: one without clock has the phases of the training
            loop alone.
        steps: Optimizer steps to measure, and again to trace; rounded up to whole generation batches.
    """
    profiler = StepProfiler(trainer, steps)
    trainer.add_callback(profiler)
    try:
        yield profiler
    finally:
        profiler.close()
        trainer.remove_callback(profiler)


class StepProfiler(TrainerCallback):
    """What `profiled` gives a trainer. The main process measures, traces and writes; the others only train.

    Attributes:
        result: The profile, once it is written.
    """

    def __init__(self, trainer: Any, steps: int = 2) -> None:
        self.result: Profile | None = None
        self._trainer = trainer
        self._steps = whole_generation_batches(trainer.args, steps)
        self._first = 0  # finished steps when the measurement begins
        self._clock = _clock_of(trainer)
        self._measured: dict[int, StepTimes] = {}
        self._traced: list[StepTimes] = []
        self._tokens: Counter[str] = Counter()  # phase -> tokens that went through a model
        self._hooks: list[Any] = []
        self._tracer: profile | None = None
        self._peak = (0, "")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first = state.global_step + _WARM_UP
        check_profile_fits(args, self._steps, state.max_steps, done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.result is not None or not state.is_world_process_zero:
            return
        done = state.global_step - self._first
        if 0 < done <= self._steps:
            self._measured[state.global_step] = self._clock.last
        elif done > self._steps:
            self._traced.append(self._clock.last)
        if done == 0:
            self._begin()
        elif done == self._steps:
            self._peak = _peak_memory(self._device)
            self._unhook()
            self._trace()
        elif done == 2 * self._steps:
            self._finish()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.result is None and state.is_world_process_zero:
            self._say(f"The run ended after step {state.global_step}, before its profile was complete.")

    def close(self) -> None:
        """Take everything back that measures; a profile that is not complete is not written."""
        self._unhook()
        self._clock.synchronize = None
        if self._tracer is not None:
            self._tracer.__exit__(None, None, None)
            self._tracer = None

    def _begin(self) -> None:
        if self._device.type != "cpu":
            self._clock.synchronize = torch.accelerator.synchronize
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        # What is computed goes through the embedding, however a forward pass arranges its rows.
        for embedding in {model.get_input_embeddings() for model in _models(self._trainer)}:
            self._hooks.append(embedding.register_forward_pre_hook(self._count))

    def _count(self, module: Any, args: tuple[Any, ...]) -> None:
        self._tokens[self._clock.phase] += args[0].numel()

    def _trace(self) -> None:
        on_device = self._device.type != "cpu"
        activities = supported_activities() if on_device else {ProfilerActivity.CPU}
        # Recorded memory makes every allocation of the CPU an event; on a GPU there are few.
        self._tracer = profile(activities=activities, profile_memory=on_device)
        self._tracer.__enter__()
        self._clock.turn_to(LOGGING)  # again, so that the trace has all of it

    def _finish(self) -> None:
        tracer = self._tracer
        assert tracer is not None
        self._clock.turn_to(LOGGING)
        self.close()
        self.result = self._summary(tracer)
        folder = Path(self._trainer.args.output_dir) / PROFILE
        with readable_errors(folder), replacing(folder) as partial:
            partial.mkdir()
            write_profile(partial, self.result)
            tracer.export_chrome_trace(str(partial / TRACE))
        self._say(f"{profile_as_markdown(self.result)}\nThe trace is {folder / TRACE}.")

    def _summary(self, tracer: profile) -> Profile:
        steps = list(self._measured.values())
        phases = phase_costs(steps, self._tokens)
        tokens = sum(step.completion_tokens for step in steps) / len(steps)
        seconds = next((one.seconds for one in phases if one.phase == ROLLOUTS), 0.0)
        peak, memory_of = self._peak
        return Profile(
            device=_device_name(self._device),
            steps=tuple(self._measured),
            seconds=tuple(step.total for step in steps),
            traced_seconds=tuple(step.total for step in self._traced),
            phases=phases,
            completion_tokens=tokens,
            rollout_tokens_per_second=tokens / seconds if seconds and tokens else None,
            peak_memory=peak,
            memory_of=memory_of,
            operators=_operators(tracer, len(self._traced), self._device.type != "cpu"),
        )

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._trainer.accelerator.device
        return device

    def _say(self, text: str) -> None:
        self._trainer.accelerator.print(text)


def check_profile_fits(args: Any, steps: int, max_steps: int, done: int = 0) -> None:
    """Refuse a run with fewer optimizer steps than its profile needs.

    Args:
        args: Of the training.
        steps: To be profiled; rounded up, see `whole_generation_batches`.
        max_steps: Of the run.
        done: Steps that were made before.

    Raises:
        ConfigError: The run is too short.
    """
    steps = whole_generation_batches(args, steps)
    needed, left = _WARM_UP + 2 * steps, max_steps - done
    if left < needed:
        raise ConfigError(
            f"Profiling {steps} steps needs {needed}: {_WARM_UP} to warm up, {steps} that are measured, and "
            f"{steps} that are traced. This run makes {left}. Set max_steps to at least {done + needed}, or profile "
            "fewer steps."
        )


def whole_generation_batches(args: Any, steps: int) -> int:
    """`steps` rounded up, so that they have as many rollouts per step as the run.

    Raises:
        ConfigError: `steps` is below 1.
    """
    if steps < 1:
        raise ConfigError(f"The number of steps to profile is {steps}; it must be at least 1.")
    micro_batches = getattr(args, "steps_per_generation", None) or args.gradient_accumulation_steps
    uses = micro_batches * getattr(args, "num_iterations", 1)
    cycle = math.lcm(uses, args.gradient_accumulation_steps) // args.gradient_accumulation_steps
    return math.ceil(steps / cycle) * cycle


def phase_costs(steps: list[StepTimes], tokens: Counter[str]) -> tuple[PhaseCost, ...]:
    """The mean costs of phases over `steps`; `tokens` has those computed in all of them. What is 0 is left out."""
    whole = sum(step.total for step in steps)
    costs = []
    for phase, meaning in PHASES.items():
        seconds = sum(step.seconds.get(phase, 0.0) for step in steps)
        calls = 0 if phase == REST else sum(step.calls.get(phase, 0) for step in steps)
        if seconds or tokens[phase]:
            means = (value / len(steps) for value in (calls, tokens[phase]))
            costs.append(PhaseCost(phase, meaning, seconds / len(steps), seconds / whole, *means))
    return tuple(costs)


def _operators(tracer: profile, steps: int, on_device: bool) -> tuple[OperatorCost, ...]:
    """The operators that cost most, without the ranges of phases and others."""
    found: list[tuple[float, str, int]] = []
    for event in tracer.key_averages():
        # Kernels are listed beside the operators that started them, which have their time.
        if event.device_type == DeviceType.CPU and not event.is_user_annotation:
            microseconds = event.self_device_time_total if on_device else event.self_cpu_time_total
            found.append((microseconds / 1e6, event.key, event.count))
    whole = sum(seconds for seconds, _, _ in found) or 1.0
    top = sorted(found, reverse=True)[:_OPERATORS]
    return tuple(OperatorCost(name, seconds / steps, seconds / whole, calls / steps) for seconds, name, calls in top)


def _clock_of(trainer: Any) -> PhaseClock:
    """The trainer's own clock, else one that is turned by its training loop alone."""
    clock: PhaseClock | None = getattr(trainer, "phases", None)
    if clock is None:
        clock = PhaseClock()
        trainer.add_callback(PhaseCallback(clock))
    return clock


def _models(trainer: Any) -> list[Any]:
    """The student, its reference model and a teacher that is loaded here."""
    teacher = getattr(getattr(trainer, "teacher", None), "model", None)
    models = (trainer.model, getattr(trainer, "ref_model", None), teacher)
    # Below what shards or distributes it.
    return [getattr(model, "module", model) for model in models if isinstance(model, torch.nn.Module)]


def _peak_memory(device: torch.device) -> tuple[int, str]:
    """Bytes, and what they are the peak of."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "allocated on the GPU in the measured steps"
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "resident set since the process began"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
