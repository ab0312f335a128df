"""The seconds that a trainer logs for the phases of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kepo import KEPOTrainer

MakeTrainer = Callable[..., KEPOTrainer]


def _seconds(trainer: KEPOTrainer) -> list[dict[str, float]]:
    """Phase -> seconds of every logged step."""
    logs = [log for log in trainer.state.log_history if "time/step_s" in log]
    return [{key[5:-2]: value for key, value in log.items() if key.startswith("time/")} for log in logs]


def _add_up(seconds: Mapping[str, float]) -> bool:
    phases = sum(value for phase, value in seconds.items() if phase != "step")
    return phases == pytest.approx(seconds["step"])


def test_a_step_of_kepo_has_all_phases(make_trainer: MakeTrainer, rescuing_sampler: Any) -> None:
    trainer = make_trainer(max_steps=2, num_iterations=1, beta=0.1, steps_per_generation=1, eval_dataset=None)
    trainer.train()
    first, second = _seconds(trainer)
    expected = {"data", "rollouts", "exploration", "rewards", "teacher", "logprobs", "training", "optimizer", "rest"}
    assert expected <= first.keys()
    assert min(first[phase] for phase in expected) > 0
    assert second["logging"] > 0, "of what was logged after the first step"
    assert _add_up(first)
    assert _add_up(second)


def test_phases_of_plain_grpo(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(teacher=None, distillation_weight=0.0, exploration="none")
    trainer.train()
    (seconds,) = _seconds(trainer)
    assert seconds.keys() & {"exploration", "teacher", "logprobs"} == set()
    assert _add_up(seconds)


def test_steps_of_one_generation_batch(make_trainer: MakeTrainer) -> None:
    """Rollouts are made in every fourth step: two steps a batch, each batch used twice. Each has two micro-batches."""
    trainer = make_trainer(
        exploration="none",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        steps_per_generation=4,
        num_iterations=2,
        max_steps=5,
    )
    trainer.train()
    steps = _seconds(trainer)
    assert [step["rollouts"] > 0 for step in steps] == [True, False, False, False, True]
    assert [step["teacher"] > 0 for step in steps] == [True, False, False, False, True]
    assert all(step["training"] > 0 and step["optimizer"] > 0 for step in steps)
    assert all(map(_add_up, steps))


def test_evaluation_is_a_phase_of_its_own(make_trainer: MakeTrainer) -> None:
    from tests.tiny_runs import questions

    trainer = make_trainer(
        exploration="none",
        eval_dataset=questions(4),
        per_device_eval_batch_size=4,
        eval_strategy="steps",
        eval_steps=1,
        max_steps=2,
    )
    trainer.train()
    first, second = _seconds(trainer)
    assert "evaluation" not in first
    assert second["evaluation"] > 0
    assert not any(name.startswith("eval_time") for log in trainer.state.log_history for name in log)
