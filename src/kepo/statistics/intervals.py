"""Confidence intervals of one number: of a share of questions, and of a mean over replicates.

Legend: R replicates (runs that differ in the seed only), Q questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

_DRAWS_AT_ONCE = 1_000_000
"""Resampled values held in memory at a time (8 MB)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float  # the point estimate; NaN when there is no data
    low: float  # lower end; NaN where no interval can be given
    high: float  # upper end; NaN where no interval can be given
    n: int  # how many units (questions or replicates) the estimate rests on


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a share, without continuity correction (Wilson, 1927).

    Args:
        successes: How many of the n succeeded, 0..n.
        n: Number of independent trials. With 0 nothing is known: estimate NaN, interval 0 to 1.
        confidence: Nominal coverage, between 0 and 1.

    Raises:
        ValueError: An argument is out of its range.
    """
    check_confidence(confidence)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"successes={successes} of n={n}: successes must lie between 0 and n.")
    if n == 0:
        return Interval(nan, 0.0, 1.0, 0)
    found = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(found.low), float(found.high), n)


def wilson_of_mean(mean: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval around a mean of scores between 0 and 1, each of which may lie between too.

    Of all scores with this mean those that are 0 or 1 vary most, so the interval is wide enough for any. It is what a
    bootstrap cannot give where all scores are equal: 0 of 9 correct does not mean that the accuracy is 0.

    Args:
        mean: 0..1.
        n: Number of independent scores. With 0 nothing is known: estimate NaN, interval 0 to 1.
        confidence: Nominal coverage, between 0 and 1.

    Raises:
        ValueError: An argument is out of its range.
    """
    check_confidence(confidence)
    if n < 0 or not 0 <= mean <= 1:
        raise ValueError(f"mean={mean} of n={n} scores: the mean must lie between 0 and 1.")
    if n == 0:
        return Interval(nan, 0.0, 1.0, 0)
    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * (mean * (1 - mean) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # The ends at 0 and 1 are exact; rounding would leave 1e-17.
    low, high = 0.0 if mean == 0 else max(centre - half, 0.0), 1.0 if mean == 1 else min(centre + half, 1.0)
    return Interval(mean, low, high, n)


def bootstrap_mean(values: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of independent values with its bootstrap interval.

    The interval is the expanded percentile interval (Hesterberg, 2015, "What Teachers Should Know About the Bootstrap",
    Am. Stat. 69): the plain one is too narrow for few values, because the spread of R values is that of R - 1 free ones
    and itself uncertain. No bootstrap interval reaches beyond the smallest and the largest value, so with R < 6
    its true coverage of 95 % cannot be reached (R = 3: 75 %); show the values themselves then.

    Args:
        values: (R,) one value per replicate (or per question).
        confidence: Nominal coverage, between 0 and 1.
        resamples: Number of bootstrap draws.
        seed: Of the draws: the same seed gives the same interval.

    Returns:
        The interval; with one value its ends are NaN, with none the estimate too.

    Raises:
        ValueError: A value is not finite, or `values` is not one-dimensional.
    """
    check_confidence(confidence)
    check_resamples(resamples)
    array = finite(values, "values", dimensions=1)
    n = len(array)
    if n < 2:
        return Interval(float(array[0]) if n else nan, nan, nan, n)
    result = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _DRAWS_AT_ONCE // n),
        vectorized=True,
        confidence_level=_expanded(confidence, n),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(float(array.mean()), float(low), float(high), n)


def check_confidence(confidence: float) -> None:
    """Refuse a confidence level that is not between 0 and 1 (95 instead of 0.95)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1, e.g. 0.95.")


def check_resamples(resamples: int) -> None:
    """Refuse a number of bootstrap draws below 1."""
    if resamples < 1:
        raise ValueError(f"resamples={resamples} must be 1 or more, e.g. 10,000.")


def finite(values: ArrayLike, name: str, dimensions: int) -> np.ndarray:
    """`values` as float64 array.

    Args:
        values: Numbers.
        name: What they are called in errors.
        dimensions: How many the array must have.

    Raises:
        ValueError: Another number of dimensions, or a value that is NaN or infinite; the message gives its place.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{name} has shape {array.shape}; it must have {dimensions} dimension(s).")
    if not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"{name}{place} is {array[tuple(place)]}; leave missing values out first.")
    return array


def _expanded(confidence: float, n: int) -> float:
    """The nominal level at which the percentile interval of n values is as wide as Student's t interval."""
    t = float(stats.t.ppf((1 + confidence) / 2, n - 1))
    return float(1 - 2 * stats.norm.sf(sqrt(n / (n - 1)) * t))
