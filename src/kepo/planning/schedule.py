"""How many questions an update sees, and how many updates a run has."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """The arithmetic of a run.

    Attributes:
        prompts_per_update: Questions of one optimizer step, over all GPUs.
        rollouts_per_gpu: Sequences that one GPU generates at once; 0 without rollouts.
        updates_per_epoch: Optimizer steps in one pass over the questions.
        updates: Of the whole run.
        left_out: Questions that a pass does not reach, because only whole batches are generated; others in every pass.
    """

    prompts_per_update: float
    rollouts_per_gpu: int
    updates_per_epoch: int
    updates: int
    left_out: int


def rollout_schedule(
    questions: int,
    *,
    gpus: int,
    micro_batch: int,
    accumulation: int,
    group: int,
    epochs: float,
    max_steps: int = -1,
    steps_per_generation: int | None = None,
    iterations: int = 1,
) -> Schedule:
    """The schedule of a run with rollouts, as TRL's sampler makes it.

    Args:
        questions: Training questions.
        gpus: Processes, one per GPU.
        micro_batch: `per_device_train_batch_size`: rollouts of one forward pass on one GPU.
        accumulation: `gradient_accumulation_steps`.
        group: `num_generations`, G.
        epochs: `num_train_epochs`.
        max_steps: Updates, instead of epochs; -1: epochs count.
        steps_per_generation: Micro-batches generated at once; None: `accumulation`.
        iterations: `num_iterations`: how often a generated batch is learned from.
    """
    per_generation = steps_per_generation or accumulation
    prompts = micro_batch * per_generation * gpus // group  # of one generation batch
    batches = questions // prompts
    micro_steps = batches * per_generation * iterations
    per_epoch = math.ceil(micro_steps / accumulation)
    return Schedule(
        prompts_per_update=micro_batch * accumulation * gpus / group,
        rollouts_per_gpu=micro_batch * per_generation,
        updates_per_epoch=per_epoch,
        updates=max_steps if max_steps > 0 else math.ceil(per_epoch * epochs),
        left_out=questions - batches * prompts,
    )


def supervised_schedule(
    questions: int, *, gpus: int, micro_batch: int, accumulation: int, epochs: float, max_steps: int = -1
) -> Schedule:
    """The schedule of supervised training; arguments as in `rollout_schedule`."""
    per_epoch = math.ceil(math.ceil(questions / (micro_batch * gpus)) / accumulation)
    return Schedule(
        prompts_per_update=micro_batch * accumulation * gpus,
        rollouts_per_gpu=0,
        updates_per_epoch=per_epoch,
        updates=max_steps if max_steps > 0 else math.ceil(per_epoch * epochs),
        left_out=0,
    )
