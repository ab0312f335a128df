"""The distillation loss as a mean over open tokens, correct for a closed mask and for a batch in micro-batches.

Legend: N flattened tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kepo.errors import ConfigError


def distillation_loss(divergence: Tensor, weights: Tensor, normalizer: Tensor | float) -> Tensor:
    """The gated distillation loss of one micro-batch: sum_n w_n D_n / normalizer.

    Args:
        divergence: (N,) divergence of each token, in nats. What stands where the weight is 0 does not matter.
        weights: (N,) the gate's weights, >= 0.
        normalizer: >= 0, see `step_normalizer`; may be below 1 when weights are fractions. 0 means that the gate is
            closed in the whole batch.

    Returns:
        Scalar in at least float32; exactly 0, with a valid gradient, when nothing is open.
    """
    total = _weighted(divergence, weights).sum()
    normalizer = torch.as_tensor(normalizer, dtype=total.dtype, device=total.device)
    something_open = normalizer > 0
    return total / torch.where(something_open, normalizer, 1.0) * something_open


def step_normalizer(
    total_weight: Tensor, num_processes: int, gradient_accumulation_steps: int, steps_per_generation: int
) -> Tensor:
    """What the weighted sum of one micro-batch is divided by.

    An optimizer step consumes gradient_accumulation_steps / steps_per_generation of a generation batch, so this share
    of `total_weight` is its number of open tokens. The gradients of its micro-batches are SUMMED, and
    then averaged over `num_processes` processes (DDP); dividing each micro-batch's sum by the share over
    `num_processes` makes the result the gradient of one mean over all open tokens of the step. This is exact when a
    generation batch is one step; when it is cut into several, each step uses their common average, so that a
    token weighs the same in all of them.

    Args:
        total_weight: Scalar, the weights summed over the whole generation batch of all processes.
        num_processes: >= 1.
        gradient_accumulation_steps: Micro-batches of a process per optimizer step, >= 1.
        steps_per_generation: Micro-batches of a process per generation batch, >= 1.

    Returns:
        Scalar in at least float32; 0 when nothing is open, which `distillation_loss` turns into a loss of 0.

    Raises:
        ConfigError: a count is below 1.
    """
    counts = {
        "num_processes": num_processes,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "steps_per_generation": steps_per_generation,
    }
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1.")
    return _at_least_float32(total_weight) * (gradient_accumulation_steps / (steps_per_generation * num_processes))


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    # Selecting before multiplying: 0 * NaN would be NaN, in the value and in the gradient.
    values = _at_least_float32(values)
    return torch.where(weights != 0, values, 0.0) * weights.to(values.dtype)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
