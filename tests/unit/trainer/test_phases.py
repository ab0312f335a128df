"""Every second of a step belongs to one phase, however phases lie inside each other."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from kepo.trainer.phases import (
    EVALUATION,
    EXPLORATION,
    LOGGING,
    LOGPROBS,
    OPTIMIZER,
    REST,
    REWARDS,
    ROLLOUTS,
    TRAINING,
    PhaseCallback,
    PhaseClock,
    logprobs_phase,
    phase_of,
)


class _Time:
    """Stands still, but for `passes`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time() -> _Time:
    return _Time()


@pytest.fixture
def clock(time: _Time) -> PhaseClock:
    return PhaseClock(time)


def test_a_phase_inside_another_is_not_counted_twice(clock: PhaseClock, time: _Time) -> None:
    clock.turn_to(TRAINING)
    time.passes(1)
    with clock(REST):
        time.passes(2)
        with clock(ROLLOUTS):
            time.passes(4)
        with clock(REWARDS):
            time.passes(8)
        time.passes(16)
    time.passes(32)
    times = clock.take()
    assert times.seconds == {ROLLOUTS: 4, REWARDS: 8, TRAINING: 1 + 32, REST: 2 + 16}
    assert times.total == 63
    assert times.calls == {TRAINING: 1, REST: 1, ROLLOUTS: 1, REWARDS: 1}


@pytest.mark.parametrize("whole", [EXPLORATION, EVALUATION])
def test_what_exploration_and_evaluation_call_is_theirs(clock: PhaseClock, time: _Time, whole: str) -> None:
    with clock(whole):
        time.passes(1)
        with clock(REWARDS):
            time.passes(2)
            with clock(ROLLOUTS):
                time.passes(4)
    with clock(REWARDS):
        time.passes(8)
    times = clock.take()
    assert (times.seconds[whole], times.seconds[REWARDS], times.calls[REWARDS]) == (7, 8, 1)
    assert ROLLOUTS not in times.seconds


def test_a_phase_that_fails_ends(clock: PhaseClock, time: _Time) -> None:
    def lose() -> None:
        time.passes(1)
        raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"), clock(ROLLOUTS):
        lose()
    time.passes(2)
    assert clock.take().seconds == {ROLLOUTS: 1, REST: 2}


def test_a_phase_that_a_step_does_not_have_is_zero_once_it_was_seen(clock: PhaseClock, time: _Time) -> None:
    with clock(ROLLOUTS):
        time.passes(3)
    assert EXPLORATION not in clock.take().seconds
    time.passes(1)
    later = clock.take()
    assert later.seconds == {ROLLOUTS: 0, REST: 1}
    assert ROLLOUTS not in later.calls


def test_other_threads_are_not_counted(clock: PhaseClock, time: _Time) -> None:
    def beside() -> None:
        with clock(REWARDS):
            time.passes(1)

    with clock(ROLLOUTS):
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
    assert clock.take().seconds == {ROLLOUTS: 1, REST: 0}


def test_every_boundary_waits_for_the_device_if_wanted(clock: PhaseClock, time: _Time) -> None:
    clock.synchronize = lambda: time.passes(1)  # what was started needs a second to its end
    with clock(ROLLOUTS):
        pass
    clock.turn_to(LOGGING)
    assert clock.take().seconds == {ROLLOUTS: 1, LOGGING: 1, REST: 1 + 1}


def test_only_a_forward_without_gradient_makes_log_probabilities(clock: PhaseClock, time: _Time) -> None:
    clock.turn_to(TRAINING)
    with logprobs_phase(clock):
        time.passes(1)
    with torch.no_grad(), logprobs_phase(clock):
        time.passes(2)
    seconds = clock.take().seconds
    assert (seconds[TRAINING], seconds[LOGPROBS]) == (1, 2)


def test_a_trainer_without_clock_has_no_phases() -> None:
    with phase_of(SimpleNamespace(), REWARDS):
        pass


def _step(callback: PhaseCallback, clock: PhaseClock, time: _Time, micro_batches: int, generates: bool) -> None:
    """One optimizer step, as transformers' loop makes it: a micro-batch takes 10 s, of which rollouts are 4 s."""
    state: Any = SimpleNamespace()
    for micro_batch in range(micro_batches):
        if micro_batch == 0:
            callback.on_step_begin(None, state, None)
        if generates and micro_batch == 0:
            with clock(ROLLOUTS):
                time.passes(4)
            time.passes(6)
        else:
            time.passes(10)
        if micro_batch < micro_batches - 1:
            callback.on_substep_end(None, state, None)
    callback.on_pre_optimizer_step(None, state, None)
    time.passes(2)
    callback.on_optimizer_step(None, state, None)
    time.passes(1)  # schedule, zero_grad
    callback.on_step_end(None, state, None)
    time.passes(0.5)  # writes logs


def test_micro_batches_and_steps_without_rollouts(clock: PhaseClock, time: _Time) -> None:
    logged: list[tuple[str, float]] = []
    callback = PhaseCallback(clock, lambda name, value: logged.append((name, value)))
    callback.on_train_begin(None, None, None)
    _step(callback, clock, time, micro_batches=3, generates=True)
    assert clock.last.calls == {TRAINING: 3, ROLLOUTS: 1, OPTIMIZER: 1}
    first, logged[:] = dict(logged), []
    _step(callback, clock, time, micro_batches=3, generates=False)
    second = dict(logged)
    assert len(second) == len(logged), "each is logged once a step"
    assert first == {
        "time/rollouts_s": 4,
        "time/training_s": 26,
        "time/optimizer_s": 3,
        "time/rest_s": 0,
        "time/step_s": 33,
    }
    assert second == {
        "time/rollouts_s": 0,
        "time/training_s": 30,
        "time/optimizer_s": 3,
        "time/logging_s": 0.5,
        "time/rest_s": 0,
        "time/step_s": 33.5,
    }


def test_a_profile_of_torch_has_the_phases(clock: PhaseClock) -> None:
    clock.turn_to(TRAINING)
    with profile(activities=[ProfilerActivity.CPU]) as traced:
        with clock(ROLLOUTS), clock(REWARDS):
            torch.zeros(3)
        clock.turn_to(OPTIMIZER)
    names = [event.name for event in traced.events()]
    assert [name for name in names if name.startswith("kepo/")] == ["kepo/rollouts", "kepo/rewards", "kepo/optimizer"]
