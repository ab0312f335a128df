"""Questions per update and updates of a run."""

from __future__ import annotations

from kepo.planning.schedule import rollout_schedule, supervised_schedule


def test_whole_generation_batches_only() -> None:
    # 8 GPUs x 4 rows x 4 micro-batches = 128 rollouts = 16 questions; 600 = 37 x 16 + 8
    schedule = rollout_schedule(600, gpus=8, micro_batch=4, accumulation=4, group=8, epochs=5)
    assert (schedule.prompts_per_update, schedule.rollouts_per_gpu) == (16, 16)
    assert (schedule.updates_per_epoch, schedule.updates, schedule.left_out) == (37, 185, 8)


def test_several_updates_on_one_batch_of_rollouts() -> None:
    # 64 rollouts = 8 questions a batch, 10 batches, 4 micro-batches each, learned from twice, 2 micro-batches an update
    schedule = rollout_schedule(
        80, gpus=2, micro_batch=8, accumulation=2, group=8, epochs=1, steps_per_generation=4, iterations=2
    )
    assert (schedule.updates_per_epoch, schedule.prompts_per_update, schedule.left_out) == (40, 4, 0)


def test_a_number_of_updates_overrules_epochs() -> None:
    assert rollout_schedule(600, gpus=1, micro_batch=8, accumulation=1, group=8, epochs=5, max_steps=7).updates == 7


def test_too_few_questions_for_one_batch_are_no_update() -> None:
    schedule = rollout_schedule(3, gpus=8, micro_batch=8, accumulation=1, group=8, epochs=1)
    assert (schedule.updates, schedule.left_out) == (0, 3)


def test_supervised_training_uses_the_last_batch_too() -> None:
    schedule = supervised_schedule(600, gpus=8, micro_batch=2, accumulation=1, epochs=2)
    assert (schedule.updates_per_epoch, schedule.updates, schedule.left_out) == (38, 76, 0)
