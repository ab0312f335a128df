"""How steadily a run trained, from its logged metrics; and how far seeds lie apart.

Legend: N logged values of one metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

SPIKE_FACTOR = 5.0
SPIKE_WINDOW = 20
SPIKE_HISTORY = 5
VALIDATION = ("validation/in_domain", "eval_rewards/choice_accuracy/mean")
"""Where validation accuracy is found, best first; the second is TRL's own evaluation."""


@dataclass(frozen=True, slots=True)
class Stability:
    """Measures of one run; None where the run logged no such metric.

    "First" and "last" of a noisy metric are means over the first and the last fifth of its logged values.

    Attributes:
        gradient_spikes: Logged steps whose gradient norm is above 5 x the running median, or not finite.
        worst_drop: Largest fall of validation accuracy below its best so far, 0..1; 0 when it never fell.
        best_validation: Best validation accuracy, 0..1.
        last_validation: Last validation accuracy, 0..1.
        all_failed_first: Share of all-failed groups at the start, 0..1.
        all_failed_last: Share of all-failed groups at the end, 0..1.
        kl_last: KL divergence from the reference policy at the end, in nats.
        reward_std_between_steps: Standard deviation of the change in mean reward from one logged step to the next; a
            steady rise does not count as unsteadiness.
    """

    gradient_spikes: int
    worst_drop: float | None
    best_validation: float | None
    last_validation: float | None
    all_failed_first: float | None
    all_failed_last: float | None
    kl_last: float | None
    reward_std_between_steps: float | None


def measure(metrics: Sequence[Mapping[str, Any]]) -> Stability:
    """The stability of a run.

    Args:
        metrics: Its logged records in order (`kepo.runs.read_metrics`).
    """
    validation = validation_points(metrics)
    all_failed = _finite_series(metrics, "exploration/all_failed_groups")
    kl = _finite_series(metrics, "kl")
    changes = np.diff(_finite_series(metrics, "reward")).tolist()
    return Stability(
        gradient_spikes=gradient_spikes(_series(metrics, "grad_norm")),
        worst_drop=worst_drop(validation) if validation else None,
        best_validation=max(validation, default=None),
        last_validation=validation[-1] if validation else None,
        all_failed_first=mean_of_fifth(all_failed, last=False),
        all_failed_last=mean_of_fifth(all_failed, last=True),
        kl_last=mean_of_fifth(kl, last=True),
        reward_std_between_steps=stdev(changes) if len(changes) > 1 else None,
    )


def validation_points(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    """Validation accuracies of a run in order (0..1): in domain, else TRL's evaluation; empty if there is none."""
    return next((points for key in VALIDATION if (points := _finite_series(metrics, key))), [])


def gradient_spikes(norms: Sequence[float]) -> int:
    """How many gradient norms are above 5 x the median of the up to 20 (at least 5) before them, or not finite.

    A norm of 0 is left out on both sides: a step whose groups all failed has no gradient, and a median of 0 would
    make every other step a spike.

    Args:
        norms: (N,) logged gradient norms in order.
    """
    spikes, history = 0, list[float]()
    for norm in norms:
        if not isfinite(norm):
            spikes += 1
        elif norm > 0:
            recent = history[-SPIKE_WINDOW:]
            spikes += len(recent) >= SPIKE_HISTORY and norm > SPIKE_FACTOR * median(recent)
            history.append(norm)
    return spikes


def worst_drop(values: Sequence[float]) -> float:
    """The largest fall below the best value so far; 0 when there is none."""
    best, drop = -inf, 0.0
    for value in values:
        best = max(best, value)
        drop = max(drop, best - value)
    return drop


def seed_spread(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1) over seeds; NaN with fewer than two values."""
    return stdev(values) if len(values) > 1 else nan


def smoothed(values: ArrayLike, window: int) -> np.ndarray:
    """Centred moving mean, of the same length; at both ends it is over what is there.

    Args:
        values: (N,) values in order. NaN is a gap: left out of every mean, NaN only where nothing else is in reach.
        window: Number of values in a mean, 1 or more; an even one counts as the next odd one, to be centred.

    Raises:
        ValueError: `window` is below 1.
    """
    if window < 1:
        raise ValueError(f"window={window} must be 1 or more.")
    import pandas as pd

    series = pd.Series(np.asarray(values, dtype=np.float64))
    return series.rolling(2 * (window // 2) + 1, center=True, min_periods=1).mean().to_numpy()


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(record[key]) for record in metrics if record.get(key) is not None]


def _finite_series(metrics: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [value for value in _series(metrics, key) if isfinite(value)]


def mean_of_fifth(values: Sequence[float], last: bool) -> float | None:
    """The mean of the first or the last fifth of the values; None when there is none.

    Args:
        values: (N,) in order.
        last: The last fifth instead of the first; at least one value.
    """
    if not values:
        return None
    size = max(1, len(values) // 5)
    return fmean(values[-size:] if last else values[:size])
