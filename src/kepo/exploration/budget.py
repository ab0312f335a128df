"""How many samples one attempt takes, as pure functions: from what is known of the chance of a sample to be correct.

The problem. A group still misses k samples, and has A attempts left. An attempt samples n completions at once, each
correct with the group's unknown chance p, and keeps min(X, k) of the X correct ones. Attempts cost time, almost
whatever n is; samples cost tokens. With n <= k nothing correct is thrown away, so a kept sample costs 1/p samples, and
nothing is cheaper; but where p is small, most groups then end without a sample. With n > k more of them find one, and
some correct samples are surplus.

The rule. What is known of p is a distribution. An attempt takes the largest n whose expected surplus is at most a share
w of the correct samples: E[min(X, k)] >= (1 - w) E[X]. A kept sample then costs 1 / (1 - w) times as many samples as
with n = k, at most and on average, as far as p is distributed as is believed. n is never below k.

Samples are bounded where p is small: beyond k only where p is expected to be at least 1/v, and only up to K v samples
of a group, K being the rollouts to be replaced and v the samples that one of them may cost. An attempt never takes more
than the G rollouts that the group had, so that it needs no more memory than they did.

`benchmarks.exploration` compares this with the best strategy that there is.

The numbers decide how a run goes on, so they are equal to the last bit wherever they are computed: sums of products and
functions of `math`, and none of numpy's that take other ways for other places in memory (`@`, `exp`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from kepo.types import Outcomes

CHANCES: tuple[float, ...] = (
    *(0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3),
    *(0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
)
"""The values of p that a belief has weights for."""
_CHANCES = np.array(CHANCES)
_EDGES = np.array([0.0, *(_CHANCES[1:] + _CHANCES[:-1]) / 2, 1.0])
UNIFORM: tuple[float, ...] = tuple(np.diff(_EDGES).tolist())
"""What is believed before anything is known: p is uniform on [0, 1]."""

IMAGINED = 4.0
"""How many groups the uniform distribution counts for in a fit."""
_FIT_ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class Belief:
    """What is known of a chance p: the probability of each of `CHANCES`; they add up to 1."""

    weights: tuple[float, ...] = UNIFORM

    @property
    def mean(self) -> float:
        """The expected p, in (0, 1)."""
        return float((np.array(self.weights) * _CHANCES).sum())

    def after(self, seen: Outcomes) -> Belief:
        """The belief once these outcomes are known."""
        if not seen.samples:
            return self
        weights = np.array(self.weights) * _likelihood(seen)
        return Belief(tuple((weights / weights.sum()).tolist()))


def expected_kept(missing: int, belief: Belief, most: int) -> np.ndarray:
    """(most + 1,) E[min(X, k)] for n = 0..most: how many of n samples are kept, on average, where k are missing."""
    kept: np.ndarray = (_kept_by_chance(missing, most) * belief.weights).sum(1)
    return kept


@cache
def _kept_by_chance(missing: int, most: int) -> np.ndarray:
    """(most + 1, CHANCES) E[min(X, k)] of n samples, X binomial: sample n + 1 is kept if it is correct and X < k."""
    kept = np.zeros((most + 1, len(CHANCES)))
    below = np.zeros((missing, len(CHANCES)))  # P(X = x) for x < k, after n samples
    below[:1] = 1.0
    for n in range(most):
        kept[n + 1] = kept[n] + _CHANCES * below.sum(0)
        below[1:] = below[1:] * (1 - _CHANCES) + below[:-1] * _CHANCES
        below[:1] *= 1 - _CHANCES
    return kept


def attempt_size(missing: int, belief: Belief, *, surplus: float, max_cost: int, most: int) -> int:
    """Samples of the next attempt of a group: the rule at the top of this module.

    Args:
        missing: k >= 0.
        belief: Of p.
        surplus: w in [0, 1): share of the correct samples that may be expected to be too many; 0: as many as missing.
        max_cost: v >= 1: samples that one kept sample may cost.
        most: Largest n, but for n = k, which is always allowed: G, or what is left of K v.

    Returns:
        n >= k, and 0 for k = 0.
    """
    if missing <= 0 or surplus <= 0 or most <= missing or belief.mean * max_cost < 1:
        return max(missing, 0)
    correct = np.arange(most + 1) * belief.mean  # E[X]
    # The share that is kept falls with n; what rounding does to n = k is not asked.
    allowed = np.flatnonzero(expected_kept(missing, belief, most) >= (1 - surplus) * correct)
    return max(missing, int(allowed[-1]))


def fit_belief(groups: Sequence[Outcomes]) -> Belief:
    """How the chances of `groups` are distributed, by expectation maximization from the uniform distribution.

    This counts as much as `IMAGINED` groups, so that few groups move it little. How many samples a group had may depend
    on what came of its earlier ones: that does not change the likelihood.
    """
    if not groups:
        return Belief()
    seen = Counter(groups)
    counts = np.array(list(seen.values()))[:, None]  # (groups that differ, 1)
    likelihoods = np.stack([_likelihood(one) for one in seen])  # (groups that differ, CHANCES)
    weights = uniform = np.array(UNIFORM)
    for _ in range(_FIT_ITERATIONS):
        shares = likelihoods * weights
        shares = counts * shares / shares.sum(1, keepdims=True)
        weights = (shares.sum(0) + IMAGINED * uniform) / (len(groups) + IMAGINED)
    return Belief(tuple(weights.tolist()))


def _likelihood(seen: Outcomes) -> np.ndarray:
    """(CHANCES,) of outcomes, up to a factor, so that the largest is 1."""
    incorrect = seen.samples - seen.correct
    logs = [seen.correct * math.log(p) + incorrect * math.log1p(-p) for p in CHANCES]
    largest = max(logs)
    return np.array([math.exp(log - largest) for log in logs])
