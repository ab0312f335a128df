"""Phases, tokens and bytes of a step, measured from outside; trainers that take turns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from benchmarks.phases import EXPLORATION, ROLLOUTS, PhaseClock, watch_decoder, watch_trainer
from benchmarks.phases import PeakBytes as Peak
from benchmarks.turns import Turns


def test_a_phase_inside_another_is_not_counted_twice() -> None:
    clock = PhaseClock(now=iter([0.0, 2.0, 5.0, 9.0]).__next__)
    with clock.phase("outer"), clock.phase("inner"):  # begin 0, begin 2, end 5, end 9
        pass
    assert clock.take() == {"seconds/outer": 2.0 + 4.0, "seconds/inner": 3.0}
    assert clock.take() == {}


def test_samples_of_an_exploration_belong_to_it() -> None:
    clock = PhaseClock(now=iter([0.0, 1.0, 3.0, 3.0]).__next__)
    with clock.phase(EXPLORATION), clock.phase(ROLLOUTS):
        clock.count_tokens("student", 7)
    assert clock.take() == {f"seconds/{EXPLORATION}": 3.0, f"tokens/student/{EXPLORATION}": 7}


def test_methods_of_a_trainer_are_watched_on_the_instance() -> None:
    class Trainer:
        callbacks: list[Any] = []

        def training_step(self, x: int) -> int:
            return self._prepare_inputs(x) + 1

        def _prepare_inputs(self, x: int) -> int:
            return 2 * x

        def add_callback(self, callback: Any) -> None:
            self.callbacks.append(callback)

    trainer, clock = Trainer(), PhaseClock(now=iter([0.0, 1.0, 4.0, 5.0, 5.0, 7.0]).__next__)
    watch_trainer(trainer, clock)
    assert trainer.training_step(3) == 7
    trainer.callbacks[0].on_pre_optimizer_step()
    trainer.callbacks[0].on_optimizer_step()
    assert clock.take() == {"seconds/forward/backward": 2.0, "seconds/batch": 3.0, "seconds/optimizer": 2.0}


def test_tokens_are_counted_where_they_enter_the_decoder() -> None:
    decoder = torch.nn.Embedding(10, 4)
    decoder.forward = lambda input_ids=None, inputs_embeds=None: None  # type: ignore[method-assign]
    clock = PhaseClock()
    watch_decoder(SimpleNamespace(get_decoder=lambda: decoder), "teacher", clock)
    with clock.phase("teacher"):
        decoder(torch.zeros(3, 5, dtype=torch.long))
        decoder(inputs_embeds=torch.zeros(2, 7, 4))
    assert clock.take()["tokens/teacher/teacher"] == 3 * 5 + 2 * 7


def test_peak_counts_what_is_alive_at_once_and_not_what_was_there() -> None:
    there = torch.zeros(1000)
    with Peak(torch.device("cpu")) as peak:
        first = there + 1  # 4000 bytes
        second = first * 2  # 8000 at once
        del first
        third = second.view(10, 100) + 1  # a view holds nothing of its own: 8000
        there.add_(1)
        del second, third
        _ = there[:100] + 0
    assert peak.bytes == 8000


class _Loop:
    """As much of a trainer as `Turns` needs."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.done: list[str] = []
        self.callbacks: list[Any] = []
        self._fails_at = fails_at

    def add_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def remove_callback(self, kind: type) -> None:
        pass

    def train(self) -> None:
        arguments = TrainingArguments(output_dir="unused", use_cpu=True), TrainerState(), TrainerControl()
        self.done.append("setup")
        for step in range(10):
            for callback in self.callbacks:
                callback.on_step_begin(*arguments)
            if step == self._fails_at:
                raise RuntimeError("no such step")
            self.done.append(f"step {step}")


def test_trainers_make_one_step_per_turn() -> None:
    first, second = _Loop(), _Loop()
    turns = [Turns(first), Turns(second)]
    turns[0].step()
    assert (first.done, second.done) == (["setup", "step 0"], [])
    turns[1].step()
    turns[0].step()
    assert (first.done, second.done) == (["setup", "step 0", "step 1"], ["setup", "step 0"])
    for one in turns:
        one.close()
    assert len(first.done) == 3


def test_what_training_raises_is_raised_by_the_turn() -> None:
    turns = Turns(_Loop(fails_at=1))
    turns.step()
    with pytest.raises(RuntimeError, match="no such step"):
        turns.step()
    turns.close()


def test_a_context_lasts_for_one_step_and_not_for_the_setup() -> None:
    loop = _Loop()
    turns = Turns(loop)

    class Around:
        def __enter__(self) -> None:
            loop.done.append("in")

        def __exit__(self, *_: object) -> None:
            loop.done.append("out")

    turns.step(around=Around())  # type: ignore[arg-type]
    turns.step()
    turns.close()
    assert loop.done == ["setup", "in", "step 0", "out", "step 1"]
