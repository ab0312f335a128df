"""The weighted sum of rewards."""

from __future__ import annotations

import math

import pytest

from kepo.errors import ConfigError
from kepo.rewards import total_reward


def test_weighted_sum() -> None:
    # 2 * 1 + 0.5 * 1 = 2.5; 2 * 0 + 0.5 * 1 = 0.5
    assert total_reward([[1.0, 0.0], [1.0, 1.0]], [2.0, 0.5]) == [2.5, 0.5]


def test_without_weights_each_counts_once() -> None:
    assert total_reward([[1.0, 0.0], [1.0, 1.0]]) == [2.0, 1.0]


def test_what_does_not_apply_is_left_out() -> None:
    sums = total_reward([[1.0, None, None], [None, 0.5, None], [math.nan, 0.0, math.nan]], [1.0, 2.0, 3.0])
    assert sums[:2] == [1.0, 1.0]
    assert math.isnan(sums[2])


def test_no_rows_and_no_functions() -> None:
    assert total_reward([[], []]) == []
    assert total_reward([]) == []


def test_weights_must_fit() -> None:
    with pytest.raises(ConfigError, match="reward_weights has 1 numbers for 2 reward functions"):
        total_reward([[1.0], [1.0]], [1.0])


def test_rows_must_fit() -> None:
    with pytest.raises(ValueError, match="zip"):
        total_reward([[1.0, 0.0], [1.0]])
