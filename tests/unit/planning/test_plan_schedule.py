"""Questions per optimizer step and steps of a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kepo.planning.settings import Schedule, schedule_of


def schedule(questions: int, gpus: int, method: str = "kepo", shuffles: int = 0, **training: Any) -> Schedule:
    defaults = {
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_generations": 8, "num_iterations": 1,
        "steps_per_generation": None, "num_train_epochs": 1, "max_steps": -1,
    }  # fmt: skip
    recipe = SimpleNamespace(
        run=SimpleNamespace(method=method),
        data=SimpleNamespace(num_train=questions, option_shuffles=shuffles),
        training=SimpleNamespace(**{**defaults, **training}),
    )
    found = schedule_of(recipe, gpus)
    assert found is not None
    return found


def test_whole_generation_batches_only() -> None:
    # 8 GPUs x 4 rows x 4 micro-batches = 128 rollouts = 16 questions; 600 = 37 x 16 + 8
    found = schedule(600, 8, per_device_train_batch_size=4, gradient_accumulation_steps=4, num_train_epochs=5)
    assert (found.prompts_per_step, found.steps_per_epoch, found.steps, found.left_out) == (16, 37, 185, 8)


def test_several_steps_on_one_batch_of_rollouts() -> None:
    # 64 rollouts = 8 questions a batch, 10 batches, 4 micro-batches each, learned from twice, 2 micro-batches a step
    found = schedule(80, 2, gradient_accumulation_steps=2, steps_per_generation=4, num_iterations=2)
    assert (found.steps_per_epoch, found.prompts_per_step, found.left_out) == (40, 4, 0)


def test_a_number_of_steps_overrules_epochs() -> None:
    assert schedule(600, 1, num_train_epochs=5, max_steps=7).steps == 7


def test_too_few_questions_for_one_batch_are_no_step() -> None:
    found = schedule(3, 8)
    assert (found.steps, found.left_out) == (0, 3)


def test_copies_with_shuffled_options_are_questions_too() -> None:
    assert schedule(8, 1, shuffles=2).steps == 24


@pytest.mark.parametrize("epochs", [1, 2])
def test_supervised_training_uses_the_last_batch_too(epochs: int) -> None:
    found = schedule(600, 8, method="sft", per_device_train_batch_size=2, num_train_epochs=epochs)
    assert (found.prompts_per_step, found.steps_per_epoch, found.steps, found.left_out) == (16, 38, 38 * epochs, 0)
