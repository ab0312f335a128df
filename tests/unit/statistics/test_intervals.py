"""Intervals of one number, against published and hand-computed values."""

from __future__ import annotations

from math import inf, isnan, nan

import numpy as np
import pytest
from scipy import stats

from kepo.statistics.intervals import Interval, bootstrap_mean, wilson, wilson_of_mean


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        # Newcombe (1998), Stat. Med. 17, 857-872: the score method without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_limits(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert interval == Interval(successes / n, interval.low, interval.high, n)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(3, 7), (50, 100), (299, 300)])
def test_wilson_solves_its_equation(successes: int, n: int, confidence: float) -> None:
    # Both ends are the shares p at which |successes / n - p| is z standard errors of p.
    interval, z = wilson(successes, n, confidence), stats.norm.ppf((1 + confidence) / 2)
    for p in (interval.low, interval.high):
        assert abs(successes / n - p) == pytest.approx(z * np.sqrt(p * (1 - p) / n), abs=1e-12)


def test_wilson_ends_are_exact_when_all_or_none_succeed() -> None:
    assert [wilson(0, n).low for n in (1, 3, 7, 10, 11, 100)] == [0.0] * 6
    assert [wilson(n, n).high for n in (1, 3, 7, 10, 11, 100)] == [1.0] * 6


def test_wilson_without_data_knows_nothing() -> None:
    interval = wilson(0, 0)
    assert isnan(interval.estimate)
    assert (interval.low, interval.high, interval.n) == (0.0, 1.0, 0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (nan, 5), (1, 0), (0, -1)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, nan])
def test_confidence_must_be_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1, e\.g\. 0\.95"):
        wilson(1, 2, confidence)
    with pytest.raises(ValueError, match=r"between 0 and 1, e\.g\. 0\.95"):
        bootstrap_mean([1, 2], confidence)


def test_bootstrap_of_many_values_is_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert interval.n == 400


def test_bootstrap_of_two_values_spans_them() -> None:
    # A draw is (a, a), (a, b), (b, a) or (b, b): a quarter of the means lies at each end.
    assert bootstrap_mean([0.4, 0.6]) == Interval(0.5, 0.4, 0.6, 2)


def test_bootstrap_of_few_values_covers_what_it_promises() -> None:
    # The plain percentile interval of 6 normal values covers the mean in about 86 % of cases.
    rng = np.random.default_rng(11)
    intervals = [bootstrap_mean(rng.normal(0, 1, 6), resamples=1000, seed=i) for i in range(400)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.98


def test_bootstrap_of_ten_values_reads_hesterbergs_quantiles() -> None:
    # For 95 % and n = 10 each tail is 1 - Phi(sqrt(10 / 9) x 2.262) = .0086, not .025.
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 10)
    draws = rng.choice(values, (100_000, 10)).mean(axis=1)
    interval = bootstrap_mean(values, resamples=100_000)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(draws, [0.0086, 0.9914])), abs=0.015)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_mean([0.25, 0.25, 0.25]) == Interval(0.25, 0.25, 0.25, 3)


def test_bootstrap_of_one_value_has_no_ends() -> None:
    interval = bootstrap_mean([0.7])
    assert (interval.estimate, interval.n) == (0.7, 1)
    assert isnan(interval.low)
    assert isnan(interval.high)


def test_bootstrap_without_values_has_no_estimate() -> None:
    interval = bootstrap_mean([])
    assert interval.n == 0
    assert isnan(interval.estimate)


def test_bootstrap_is_the_same_for_the_same_seed_only() -> None:
    values = np.random.default_rng(0).random(30)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


@pytest.mark.parametrize("missing", [nan, inf])
def test_bootstrap_refuses_a_missing_value_and_says_where(missing: float) -> None:
    with pytest.raises(ValueError, match=r"values\[1\] is (nan|inf)"):
        bootstrap_mean([0.5, missing])


def test_bootstrap_refuses_a_table_and_no_draws() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        bootstrap_mean([[0.5, 0.6]])
    with pytest.raises(ValueError, match="resamples=0"):
        bootstrap_mean([0.5, 0.6], resamples=0)


@pytest.mark.parametrize(("successes", "n"), [(0, 9), (9, 9), (3, 10), (1, 1), (120, 300)])
def test_wilson_of_a_mean_of_flags_is_wilson(successes: int, n: int) -> None:
    found, expected = wilson_of_mean(successes / n, n), wilson(successes, n)
    assert (found.estimate, found.low, found.high, found.n) == pytest.approx((successes / n, *_ends(expected), n))


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def test_wilson_of_a_mean_takes_scores_between_and_refuses_others() -> None:
    found = wilson_of_mean(0.25, 9)
    assert 0 < found.low < 0.25 < found.high < 1
    assert isnan(wilson_of_mean(0.0, 0).estimate)
    with pytest.raises(ValueError, match=r"mean=1\.5"):
        wilson_of_mean(1.5, 3)
