"""Rollouts that can have no gradient."""

from __future__ import annotations

import torch

from kepo.trainer.idle_rows import equal_in_groups, idle_rows


def test_a_row_is_idle_without_advantage_and_with_a_closed_gate() -> None:
    advantages = torch.tensor([0.0, 0.5, 0.0, -0.5])
    gate = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.3], [1.0, 1.0]])
    assert idle_rows(advantages, gate).tolist() == [True, False, False, False]
    assert idle_rows(advantages, None).tolist() == [True, False, True, False]
    assert idle_rows(torch.tensor([[0.0, 0.0], [0.0, 0.1]]), None).tolist() == [True, False]


def test_equal_rewards_of_a_group() -> None:
    """The second group has unequal rewards, and of the third one rollout nothing is known."""
    nan = float("nan")
    rewards = torch.tensor([[1.0, 0.5], [1.0, 0.5], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [nan, nan]])
    assert equal_in_groups(rewards.nansum(1), rewards, 2).tolist() == [True, True, False, False, False, False]
