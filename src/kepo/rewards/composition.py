"""The sum of several rewards, for tools outside training (TRL sums by itself, with `reward_weights`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kepo.errors import ConfigError


def total_reward(per_function: Sequence[Sequence[float | None]], weights: Sequence[float] | None = None) -> list[float]:
    """The weighted sum per completion, as TRL forms it with `multi_objective_aggregation="sum_then_normalize"`.

    Args:
        per_function: F lists of B rewards; None (or NaN) where a function does not apply to a row.
        weights: F weights; None weighs each with 1.

    Returns:
        B sums over the functions that apply; NaN where none does.

    Raises:
        ConfigError: there are not as many weights as functions.
    """
    weights = [1.0] * len(per_function) if weights is None else weights
    if len(weights) != len(per_function):
        raise ConfigError(f"reward_weights has {len(weights)} numbers for {len(per_function)} reward functions")
    return [_weighted_sum(row, weights) for row in zip(*per_function, strict=True)]


def _weighted_sum(row: Sequence[float | None], weights: Sequence[float]) -> float:
    terms = [
        weight * reward
        for reward, weight in zip(row, weights, strict=True)
        if reward is not None and not math.isnan(reward)
    ]
    return math.fsum(terms) if terms else math.nan
