"""The ratio of injected rows, seen through a PPO-style policy term."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kepo.errors import ConfigError
from kepo.objective import INJECTION_CORRECTIONS, injected_old_logps

NAN = float("nan")
INJECTED = torch.tensor([False, True])


def policy_term(logps: Tensor, old_logps: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """PPO's clipped surrogate, to be maximized: (B, T)."""
    ratio = (logps - old_logps).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def logps_of(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log().requires_grad_()


def test_none_leaves_everything() -> None:
    logps = logps_of([0.5, 0.2], [0.5, 0.2])
    old = torch.zeros(2, 2, dtype=torch.float64)
    assert injected_old_logps(logps, old, INJECTED, "none") is old
    on_policy = injected_old_logps(logps, None, INJECTED, "none")
    assert torch.equal(on_policy, logps)
    assert not on_policy.requires_grad


@pytest.mark.parametrize("correction", INJECTION_CORRECTIONS)
def test_other_rows_are_untouched_bit_for_bit(correction: str) -> None:
    logps = logps_of([0.5, 0.2], [0.5, 0.2])
    old = torch.tensor([[-0.3, -1.7], [-0.3, -1.7]], dtype=torch.float64)
    sampling = torch.full((2, 2), NAN, dtype=torch.float64)
    result = injected_old_logps(logps, old, INJECTED, correction, sampling_per_token_logps=sampling)
    assert torch.equal(result[0], old[0])
    result = injected_old_logps(
        logps, None, torch.tensor([False, False]), correction, sampling_per_token_logps=sampling
    )
    assert torch.equal(result, logps)
    (gradient,) = torch.autograd.grad((logps - result).exp().sum(), logps)
    assert torch.equal(gradient, torch.ones_like(logps))  # d exp(l - stop(l)) / dl = 1


def test_shaped_ratio_and_gradient_by_hand() -> None:
    gamma = 0.1
    logps = logps_of([0.4, 0.4], [0.1, 0.9])
    result = injected_old_logps(logps, None, INJECTED, "shaped", gamma)
    ratio = (logps - result).exp()
    # p / (p + gamma): 0.1 / 0.2 = 0.5, 0.9 / 1.0 = 0.9; the row that was not injected has ratio 1
    torch.testing.assert_close(ratio, torch.tensor([[1.0, 1.0], [0.5, 0.9]], dtype=torch.float64))
    advantages = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(policy_term(logps, result, advantages).sum(), logps)
    # A gamma p / (p + gamma)^2: 2 * 0.1 * 0.1 / 0.04 = 0.5 and 2 * 0.1 * 0.9 / 1 = 0.18; else A * 1
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 1.0], [0.5, 0.18]], dtype=torch.float64))


def test_shaped_survives_a_token_the_student_holds_impossible() -> None:
    logps = torch.tensor([[-0.5], [-math.inf]], requires_grad=True)
    result = injected_old_logps(logps, None, INJECTED, "shaped")
    assert result[1].item() == pytest.approx(math.log(0.1))
    (gradient,) = torch.autograd.grad((logps - result).exp().sum(), logps)
    assert gradient.tolist() == [[1.0], [0.0]]


def test_importance_ratio_by_hand_and_its_clip() -> None:
    logps = logps_of([0.4, 0.4, 0.4], [0.3, 0.3, 0.3])
    sampling = logps_of([NAN] * 3, [0.6, 0.1, NAN])
    result = injected_old_logps(logps, None, INJECTED, "importance", sampling_per_token_logps=sampling)
    assert not result.requires_grad
    # 0.3 / 0.6 = 0.5; 0.3 / 0.1 = 3; unknown: 1
    torch.testing.assert_close(
        (logps - result).exp(), torch.tensor([[1.0, 1.0, 1.0], [0.5, 3.0, 1.0]], dtype=torch.float64)
    )
    term = policy_term(logps, result, torch.ones(2, 1, dtype=torch.float64))
    torch.testing.assert_close(term[1], torch.tensor([0.5, 1.2, 1.0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(term.sum(), logps)
    # the clipped token has no gradient, the others their ratio
    torch.testing.assert_close(gradient[1], torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64))


def test_importance_takes_float32_log_probabilities_of_an_engine() -> None:
    logps = torch.tensor([[-1.0], [-1.0]], dtype=torch.bfloat16)
    sampling = torch.tensor([[NAN], [-2.0]])
    assert injected_old_logps(logps, None, INJECTED, "importance", sampling_per_token_logps=sampling).tolist() == [
        [-1],
        [-2],
    ]


def test_empty_completions() -> None:
    empty = torch.zeros(2, 0, requires_grad=True)
    for correction in INJECTION_CORRECTIONS:
        assert injected_old_logps(empty, None, INJECTED, correction, sampling_per_token_logps=empty).shape == (2, 0)


def test_settings_that_cannot_work() -> None:
    logps = torch.zeros(2, 1)
    with pytest.raises(ConfigError, match="injection correction 'luffy' is unknown; use one of none, shaped, importan"):
        injected_old_logps(logps, None, INJECTED, "luffy")
    with pytest.raises(ConfigError, match="must be greater than 0"):
        injected_old_logps(logps, None, INJECTED, "shaped", gamma=0.0)
    with pytest.raises(ConfigError, match="'importance' needs the log-probabilities"):
        injected_old_logps(logps, None, INJECTED, "importance")
