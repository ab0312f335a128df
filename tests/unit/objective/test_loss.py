"""Means over gated tokens: closed masks, fractions, and the same update however a batch is cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kepo.errors import ConfigError
from kepo.objective import distillation_loss, step_normalizer

NAN = float("nan")


def test_distillation_loss_by_hand() -> None:
    divergence = torch.tensor([0.1, 0.2, NAN, 0.4, float("inf")], requires_grad=True)
    loss = distillation_loss(divergence, torch.tensor([1.0, 0.5, 0.0, 1.0, 0.0]), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.3)  # (0.1 + 0.1 + 0.4) / 2
    assert divergence.grad.tolist() == [0.5, 0.25, 0.0, 0.5, 0.0]


def test_half_precision_is_summed_in_float32() -> None:
    loss = distillation_loss(torch.ones(4096, dtype=torch.bfloat16), torch.ones(4096), 4096.0)
    assert loss.dtype == torch.float32
    assert loss.item() == 1.0


@pytest.mark.parametrize("normalizer", [0.0, torch.tensor(0.0), torch.tensor(0)])
def test_a_closed_gate_is_exactly_zero_with_a_gradient(normalizer: Tensor | float) -> None:
    divergence = torch.tensor([NAN, 3.0], requires_grad=True)
    loss = distillation_loss(divergence, torch.zeros(2), normalizer)
    loss.backward()
    assert loss.item() == 0.0
    assert divergence.grad.tolist() == [0.0, 0.0]


def test_a_normalizer_of_zero_gives_zero_whatever_the_weights() -> None:
    assert distillation_loss(torch.tensor([30.0]), torch.tensor([1.0]), 0.0).item() == 0.0


def test_a_closed_micro_batch_of_an_open_batch_is_zero() -> None:
    empty = torch.zeros(0, requires_grad=True)
    loss = distillation_loss(empty, torch.zeros(0), 7.0)
    loss.backward()
    assert loss.item() == 0.0


def test_a_normalizer_below_one_is_not_clamped() -> None:
    loss = distillation_loss(torch.tensor([0.3]), torch.tensor([0.25]), torch.tensor(0.25))
    assert loss.item() == pytest.approx(0.3)


def test_step_normalizer_by_hand() -> None:
    # 120 open tokens, 8 micro-batches of 2 processes, 4 of them per optimizer step: a step holds 60 of the tokens, and
    # averaging over 2 processes halves what each of them adds.
    assert step_normalizer(torch.tensor(120.0), 2, 4, 8).item() == 30.0
    assert step_normalizer(torch.tensor(0.0), 2, 4, 8).item() == 0.0


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_counts_are_at_least_one(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="is 0; it must be at least 1"):
        step_normalizer(torch.tensor(1.0), *counts)


# Eight rows of very different numbers of open tokens, one fully closed: cut in any way, the mean must be the same.
OPEN_TOKENS = [5, 0, 1, 3, 2, 5, 1, 4]


def gradient_of_one_step(num_processes: int, accumulation: int) -> Tensor:
    """The gradient of one optimizer step over the eight rows, summed over micro-batches, averaged over processes."""
    parameter = torch.arange(1.0, 4.0, dtype=torch.float64).requires_grad_()
    inputs = torch.randn(8, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = (torch.arange(5) < torch.tensor(OPEN_TOKENS).unsqueeze(-1)).double()
    normalizer = step_normalizer(weights.sum(), num_processes, accumulation, accumulation)
    gradients = []
    for rows in torch.arange(8).chunk(num_processes):
        losses = []
        for micro in rows.chunk(accumulation):
            divergence = (inputs[micro] @ parameter).square().flatten()
            losses.append(distillation_loss(divergence, weights[micro].flatten(), normalizer))
        gradients.append(torch.autograd.grad(sum(losses), parameter)[0])
    return torch.stack(gradients).mean(0)


@pytest.mark.parametrize(("num_processes", "accumulation"), [(1, 1), (1, 2), (1, 8), (2, 1), (2, 4), (4, 2), (8, 1)])
def test_one_update_however_the_batch_is_cut(num_processes: int, accumulation: int) -> None:
    inputs = torch.randn(8, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameter = torch.arange(1.0, 4.0, dtype=torch.float64)
    expected = torch.zeros(3, dtype=torch.float64)
    for row, count in enumerate(OPEN_TOKENS):
        for token in range(count):
            x = inputs[row, token]
            expected += 2 * (x @ parameter) * x / sum(OPEN_TOKENS)
    torch.testing.assert_close(gradient_of_one_step(num_processes, accumulation), expected)


def test_a_generation_batch_of_two_steps_weighs_every_token_alike() -> None:
    # 8 micro-batches per generation, 4 per step: the losses of both steps together are twice the mean.
    divergence, weights = torch.rand(8, dtype=torch.float64), torch.ones(8, dtype=torch.float64)
    normalizer = step_normalizer(weights.sum(), 1, 4, 8)
    total = sum(distillation_loss(divergence[i : i + 1], weights[i : i + 1], normalizer) for i in range(8))
    torch.testing.assert_close(total, 2 * divergence.mean())
