"""Comparing two models that answered the same questions.

Legend: R replicates (pairs of runs that share seed and base student), Q questions, B bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from kepo.statistics.intervals import check_confidence, check_resamples, finite, wilson

_SIGN_PATTERNS = 100_000
"""All patterns of signs are counted where there are at most so many, else so many random ones."""
_DRAWS_AT_ONCE = 1_000_000
"""Resampled questions held in memory at a time (8 MB)."""

_DIGITS = 12
_ZERO = 10.0**-_DIGITS
"""Sums of scores that differ by less are equal: scores like 1/3 do not add up to exactly 0."""


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test of two models on the same questions."""

    only_first: int  # questions that only the first one answers correctly
    only_second: int  # questions that only the second one answers correctly
    p_value: float  # exact, two-sided


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of mean scores, first minus second, with its bootstrap interval."""

    estimate: float  # mean difference over replicates and questions
    low: float  # lower end of the interval
    high: float  # upper end of the interval
    p_value: float  # two-sided bootstrap p-value of "no difference"; at least 2 / (B + 1)
    replicates: int  # R
    questions: int  # Q


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """McNemar's exact test: are the questions that one model alone answers shared out evenly?

    Args:
        first: (Q,) bool, whether the first model is correct.
        second: (Q,) bool, the second one's, of the same questions in the same order.

    Raises:
        ValueError: Different lengths, not one-dimensional, or values other than true and false.
    """
    a, b = _flags(first, "first"), _flags(second, "second")
    if a.shape != b.shape:
        raise ValueError(f"first has {len(a)} questions and second {len(b)}; both must have answered the same ones.")
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> Difference:
    """The mean of first - second, with replicates and questions both resampled, crossed, and the same for both models.

    Percentile interval of the pigeonhole bootstrap (Owen, 2007, "The pigeonhole bootstrap", Ann. Appl. Stat. 1(2)).
    With one replicate only questions are resampled: the result then says nothing about another seed. The interval is
    wider than needed where chance per question is most of the spread, and too narrow with 2 or 3 replicates or
    clusters that differ much.

    Args:
        first: (R, Q) scores 0..1 of the first model, a row per replicate.
        second: (R, Q) scores of the second one; row and column mean the same replicate and question.
        confidence: Nominal coverage, between 0 and 1.
        resamples: B, number of bootstrap draws.
        seed: Of the draws: the same seed gives the same result.
        clusters: Names the cluster of each replicate (length R), such as its base student. Whole clusters are drawn
            then. When all replicates are of one cluster they are drawn singly, and the result holds for that
            cluster only.

    Raises:
        ValueError: Different shapes, no data, a score that is not finite, a wrong number of clusters or draws.
    """
    check_confidence(confidence)
    check_resamples(resamples)
    differences = _differences(first, second)
    replicates, questions = differences.shape
    rng = np.random.default_rng(seed)
    weights = _replicate_weights(rng, replicates, resamples, clusters)  # (B, R)
    draws = np.concatenate(
        [
            np.einsum("bq,bq->b", weights[rows] @ differences, counts) / questions
            for rows, counts in _question_counts(rng, questions, resamples)
        ]
    )
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    estimate = float(differences.mean())
    return Difference(estimate, float(low), float(high), _bootstrap_p_value(draws), replicates, questions)


def paired_difference(first: ArrayLike, second: ArrayLike, clusters: Sequence[str] | None = None) -> Difference:
    """`paired_bootstrap` with an interval and a p-value also where all differences are equal.

    There a bootstrap knows no doubt: of 9 questions that both models answer alike it says 0.0 (0.0 to 0.0). Instead, up
    to the share u of other questions, the upper end of Wilson's interval of 0 of Q, the difference may be anything
    between -1 and 1; and p is that of a sign test over questions.

    Args:
        first, second, clusters: As in `paired_bootstrap`.

    Raises:
        ValueError: As in `paired_bootstrap`.
    """
    found = paired_bootstrap(first, second, clusters=clusters)
    differences = _differences(first, second)
    if np.ptp(differences) > _ZERO:
        return found
    unseen = wilson(0, found.questions).high
    low, high = ((1 - unseen) * found.estimate + end for end in (-unseen, unseen))
    p_value = max(found.p_value, min(1.0, 2.0 ** (1 - found.questions)))
    return replace(found, low=max(low, -1.0), high=min(high, 1.0), p_value=p_value)


def sign_flip_test(differences: ArrayLike) -> float:
    """Two-sided randomization test of a mean difference of 0, over replicates (Fisher, 1935).

    If the two methods are equal, each replicate's difference could as well have had the other sign. All 2^R patterns of
    signs are counted up to R = 16; beyond that 100,000 random ones, with a fixed seed and Phipson and Smyth's
    (2010) correction. The smallest p-value that R replicates allow is 2 / 2^R: with fewer than 6 it is above .05.

    Args:
        differences: (R,) one mean difference per replicate.

    Raises:
        ValueError: No replicate, or a value that is not finite.
    """
    values = finite(differences, "differences", dimensions=1)
    if not len(values):
        raise ValueError("differences is empty; give one difference per replicate.")
    if len(values) == 1:
        return 1.0  # scipy asks for two; of one, both signs are as far from 0
    found = stats.permutation_test(
        (values,),
        # Rounded, because scores like 1/3 do not add up to exactly 0.
        lambda flipped, axis: np.round(flipped.sum(axis=axis), _DIGITS),
        permutation_type="samples",
        n_resamples=_SIGN_PATTERNS,
        batch=max(1, _DRAWS_AT_ONCE // len(values)),
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values: those below alpha reject with family-wise error alpha (Holm, 1979).

    Args:
        p_values: Name of a comparison -> its p-value.

    Returns:
        The same names in the same order.

    Raises:
        ValueError: A p-value is not between 0 and 1.
    """
    for name, value in p_values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"p-value of {name!r} is {value}; it must lie between 0 and 1.")
    adjusted, largest = {}, 0.0
    for rank, (name, value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * value))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _flags(values: ArrayLike, name: str) -> np.ndarray:
    array = finite(values, name, dimensions=1)
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must hold true and false only; give one answer per question, not a mean of samples.")
    return array.astype(bool)


def _differences(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    a, b = finite(first, "first", dimensions=2), finite(second, "second", dimensions=2)
    if a.shape != b.shape:
        raise ValueError(f"first is {a.shape} and second {b.shape} (replicates, questions); they must be equal.")
    if not a.size:
        raise ValueError(f"first and second are empty: {a.shape} (replicates, questions).")
    return a - b


def _replicate_weights(
    rng: np.random.Generator, replicates: int, resamples: int, clusters: Sequence[str] | None
) -> np.ndarray:
    """(B, R) weight of each replicate in each draw; every row sums to 1."""
    if clusters is not None and len(clusters) != replicates:
        raise ValueError(f"clusters names {len(clusters)} replicates, but there are {replicates}.")
    names = list(dict.fromkeys(clusters or ()))
    # One cluster drawn whole would always give itself, which is no resampling.
    labels = [names.index(name) for name in clusters] if clusters and len(names) > 1 else list(range(replicates))
    units = max(labels) + 1
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples)  # (B, units)
    weights = drawn[:, labels].astype(np.float64)
    return weights / weights.sum(axis=1, keepdims=True)


def _question_counts(rng: np.random.Generator, questions: int, resamples: int) -> Iterator[tuple[slice, np.ndarray]]:
    """How often each question is drawn, (draws of this chunk, Q); in chunks, which bounds the memory."""
    chunk = max(1, _DRAWS_AT_ONCE // questions)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(questions, size=(rows, questions))
        drawn += np.arange(rows)[:, None] * questions
        counts = np.bincount(drawn.ravel(), minlength=rows * questions).reshape(rows, questions)
        yield slice(start, start + rows), counts.astype(np.float64)


def _bootstrap_p_value(draws: np.ndarray) -> float:
    """Two-sided: twice the smaller share of draws on either side of 0, with Phipson and Smyth's (2010) + 1."""
    below, above = int((draws <= _ZERO).sum()), int((draws >= -_ZERO).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(draws) + 1))
