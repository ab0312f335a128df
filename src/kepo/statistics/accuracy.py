"""Estimates of accuracy that need scores only: chance, pass@k, and means in which every group has the same weight.

Legend: R replicates (runs that differ in the seed only), Q questions, S samples per question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import comb, nan

import numpy as np
from numpy.typing import ArrayLike

from kepo.statistics.intervals import Interval, finite, wilson_of_mean
from kepo.statistics.paired import paired_bootstrap


def chance_level(option_counts: Sequence[int]) -> float:
    """What guessing scores on average: the mean of 1 / number of options, and 0 for an open question.

    Args:
        option_counts: Number of options of each question, 0 for an open one. NaN when there is no question.
    """
    if any(count < 0 for count in option_counts):
        raise ValueError(f"option_counts holds {min(option_counts)}; a number of options is 0 or more.")
    return float(np.mean([1 / count if count else 0.0 for count in option_counts])) if option_counts else nan


def pass_at_k(correct: ArrayLike, k: int) -> float:
    """Mean chance that at least one of k samples is correct, without bias (Chen et al., 2021, arXiv 2107.03374, eq. 1).

    1 - C(n - c, k) / C(n, k) for a question with c correct ones among n = S samples.

    Args:
        correct: (Q, S) bool.
        k: 1..S.

    Returns:
        0..1; NaN when there is no question.

    Raises:
        ValueError: k is not in 1..S, or `correct` is not two-dimensional.
    """
    counts = finite(correct, "correct", dimensions=2).sum(axis=1).astype(int).tolist()
    samples = np.shape(correct)[1]
    if not 1 <= k <= samples:
        raise ValueError(f"k={k} with {samples} samples per question; k must lie between 1 and {samples}.")
    return float(np.mean([1 - comb(samples - c, k) / comb(samples, k) for c in counts])) if counts else nan


def mean_accuracy(scores: np.ndarray, clusters: Sequence[str] | None = None) -> Interval:
    """Mean accuracy with its 95 % interval over replicates and questions, resampled as in `paired_bootstrap`.

    With one replicate of questions that are correct or incorrect, and wherever all scores are equal, it is Wilson's
    interval over questions: a bootstrap of 0 of 9 would know no doubt.

    Args:
        scores: (R, Q), 0..1.
        clusters: See `paired_bootstrap`.
    """
    if _knows_no_doubt(scores):
        return replace(wilson_of_mean(float(scores.mean()), scores.shape[1]), n=len(scores))
    found = paired_bootstrap(scores, np.zeros_like(scores), clusters=clusters)
    return Interval(found.estimate, found.low, found.high, len(scores))


def macro_interval(scores: np.ndarray, groups: np.ndarray, names: Sequence[str]) -> Interval:
    """The mean over groups of questions, each with the same weight, with its interval over replicates and questions.

    Args:
        scores: (R, Q), 0..1.
        groups: (Q,), the group of each question, such as its modality.
        names: The groups to average over; empty gives NaN.

    Returns:
        The mean over replicates with its 95 % interval: both replicates and questions are resampled; with one
        replicate questions alone, and Wilson's interval for a single group. Where all scores are equal it is Wilson's
        too, over as many questions as the weights leave (Kish, 1965).
    """
    if not names:
        return Interval(nan, nan, nan, 0)
    kept = np.isin(groups, list(names))
    if len(names) == 1:
        return mean_accuracy(scores[:, kept])
    sizes = Counter(groups[kept].tolist())
    # Weights that make the plain mean over questions the mean over groups.
    weights = np.array([kept.sum() / (len(sizes) * sizes[name]) for name in groups[kept].tolist()])
    if np.ptp(scores[:, kept]) == 0:
        effective = int(weights.sum() ** 2 / (weights**2).sum())
        return replace(wilson_of_mean(float(scores[:, kept].mean()), effective), n=len(scores))
    found = mean_accuracy(scores[:, kept] * weights)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def _knows_no_doubt(scores: np.ndarray) -> bool:
    """Whether a bootstrap of these scores would be too sure."""
    return bool(np.ptp(scores) == 0 or (len(scores) == 1 and np.isin(scores, (0, 1)).all()))
