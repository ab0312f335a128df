"""Paired comparisons: exact tests by hand, the crossed bootstrap by its known variance and by simulation."""

from __future__ import annotations

import time
import tracemalloc
from itertools import product
from math import nan

import numpy as np
import pytest

from kepo.statistics import paired
from kepo.statistics.paired import (
    Difference,
    McNemar,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_difference,
    sign_flip_test,
)


def test_mcnemar_counts_who_alone_is_right() -> None:
    first = [True, True, True, False, False]
    second = [True, False, False, True, False]
    # 2 against 1 of 3: the two-sided tail is everything.
    assert mcnemar(first, second) == McNemar(only_first=2, only_second=1, p_value=1.0)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [(1, 9, 22 / 1024), (9, 1, 22 / 1024), (0, 5, 2 / 32), (0, 6, 2 / 64), (4, 4, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p_value: float) -> None:
    first = np.array([1] * only_first + [0] * only_second + [1] * 30 + [0] * 20, dtype=bool)
    second = np.array([0] * only_first + [1] * only_second + [1] * 30 + [0] * 20, dtype=bool)
    assert mcnemar(first, second).p_value == pytest.approx(p_value)


@pytest.mark.parametrize("answers", [[], [True], [False, True, True]])
def test_mcnemar_of_equal_answers_finds_nothing(answers: list[bool]) -> None:
    assert mcnemar(answers, answers) == McNemar(0, 0, 1.0)


def test_mcnemar_refuses_what_is_no_pair_of_answers() -> None:
    with pytest.raises(ValueError, match="first has 2 questions and second 1"):
        mcnemar([True, False], [True])
    with pytest.raises(ValueError, match="second must hold true and false only"):
        mcnemar([True, False], [0.5, 1.0])
    with pytest.raises(ValueError, match=r"first\[0\] is nan"):
        mcnemar([nan, 1.0], [0.0, 1.0])


def test_bootstrap_of_one_replicate_resamples_questions() -> None:
    first = np.array([[1.0] * 60 + [0.0] * 40])
    result = paired_bootstrap(first, np.zeros((1, 100)))
    # The mean of 100 draws from a share of .6: .6 +- 1.96 sqrt(.6 * .4 / 100) = .6 +- .096.
    assert (result.estimate, result.replicates, result.questions) == (0.6, 1, 100)
    assert (result.low, result.high) == pytest.approx((0.504, 0.696), abs=0.011)
    # None of 10,000 draws reaches 0.
    assert result.p_value == 2 / 10_001


def test_bootstrap_of_one_question_resamples_replicates() -> None:
    # The mean of two draws from (0, 1): 0, .5, .5, 1.
    result = paired_bootstrap([[1.0], [0.0]], [[0.0], [0.0]])
    assert result == Difference(0.5, 0.0, 1.0, result.p_value, replicates=2, questions=1)
    assert result.p_value == pytest.approx(0.5, abs=0.02)  # 2 x P(d = 0) = 2 x 1/4


def test_bootstrap_draws_replicates_and_questions_crossed() -> None:
    # d[r, q] = a[r] + b[q] with a = (-.1, .1) and b = (-.2, .2): the variance of the mean is .01 / 2 + .04 / 2.
    differences = np.add.outer([-0.1, 0.1], np.tile([-0.2, 0.2], 1))
    draws = _draws(differences)
    assert draws.mean() == pytest.approx(0, abs=0.005)
    assert draws.var() == pytest.approx(0.025, rel=0.05)


def _draws(differences: np.ndarray) -> np.ndarray:
    """Bootstrap means, read back from the ends of many nested intervals."""
    zeros = np.zeros_like(differences)
    levels = np.linspace(0.005, 0.995, 100)
    results = [paired_bootstrap(differences, zeros, confidence=level) for level in levels]
    return np.array([end for result in results for end in (result.low, result.high)])


def test_bootstrap_uses_the_same_draws_for_both() -> None:
    # Second = first - .1 throughout: however the questions fall, the difference is .1.
    first = np.random.default_rng(0).random((4, 50))
    result = paired_bootstrap(first, first - 0.1)
    assert (result.low, result.high) == pytest.approx((0.1, 0.1))
    assert result.estimate == pytest.approx(0.1)


def test_bootstrap_of_equal_models_finds_nothing() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (3, 20))
    assert paired_bootstrap(scores, scores) == Difference(0.0, 0.0, 0.0, 1.0, 3, 20)


def test_rounding_does_not_decide_which_side_of_zero_a_draw_is_on() -> None:
    # .1 + .2 - .3 is 5.6e-17, not 0.
    result = paired_bootstrap(np.full((2, 5), 0.1 + 0.2), np.full((2, 5), 0.3))
    assert result.p_value == 1.0


def test_bootstrap_is_antisymmetric() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.random((3, 40)), rng.random((3, 40))
    there, back = paired_bootstrap(first, second), paired_bootstrap(second, first)
    assert (back.estimate, back.low, back.high) == pytest.approx((-there.estimate, -there.high, -there.low))
    assert back.p_value == there.p_value


def test_whole_clusters_are_drawn() -> None:
    # Both replicates of "a" gain 1, those of "b" nothing: a draw gives 0, .5 or 1, each end with chance 1/4.
    first = np.array([[1.0] * 4, [0.0] * 4, [1.0] * 4, [0.0] * 4])
    result = paired_bootstrap(first, np.zeros((4, 4)), confidence=0.55, clusters=["a", "b", "a", "b"])
    assert (result.low, result.high) == (0.0, 1.0)
    # Drawn singly, an end needs four times the same of two: chance 1/16.
    single = paired_bootstrap(first, np.zeros((4, 4)), confidence=0.55)
    assert (single.low, single.high) == (0.25, 0.75)


def test_a_larger_cluster_weighs_by_its_replicates() -> None:
    # "a" has three replicates (gain 1), "b" one (0). Drawn once each they are weighed 3 : 1, as in the estimate.
    first, clusters = np.array([[1.0], [1.0], [1.0], [0.0]]), ["a", "a", "a", "b"]
    result = paired_bootstrap(first, np.zeros((4, 1)), confidence=0.1, clusters=clusters)
    assert (result.estimate, result.low, result.high) == (0.75, 0.75, 0.75)
    # Only "b", only "a": still a mean.
    result = paired_bootstrap(first, np.zeros((4, 1)), confidence=0.9, clusters=clusters)
    assert (result.low, result.high) == (0.0, 1.0)


def test_replicates_of_one_cluster_are_drawn_singly() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.random((4, 10)), rng.random((4, 10))
    assert paired_bootstrap(first, second, clusters=["a"] * 4) == paired_bootstrap(first, second)


def test_bootstrap_covers_the_truth() -> None:
    # Gains vary by replicate and by question, around .05; the nominal coverage is 95 %.
    rng = np.random.default_rng(7)
    covered = []
    for trial in range(200):
        gains = 0.05 + rng.normal(0, 0.04, (8, 1)) + rng.normal(0, 0.1, (1, 60))
        result = paired_bootstrap(gains, np.zeros((8, 60)), resamples=600, seed=trial)
        covered.append(result.low <= 0.05 <= result.high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_p_value_of_no_difference_is_rarely_small() -> None:
    rng = np.random.default_rng(8)
    p_values = []
    for trial in range(200):
        noise = rng.normal(0, 0.04, (8, 1)) + rng.normal(0, 0.1, (1, 60))
        p_values.append(paired_bootstrap(noise, np.zeros((8, 60)), resamples=600, seed=trial).p_value)
    assert 0.005 <= np.mean(np.array(p_values) < 0.05) <= 0.12


def test_bootstrap_is_the_same_for_the_same_seed_only() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 40)), rng.random((3, 40))
    assert paired_bootstrap(first, second, seed=4) == paired_bootstrap(first, second, seed=4)
    assert paired_bootstrap(first, second, seed=4) != paired_bootstrap(first, second, seed=5)


def test_the_size_of_a_chunk_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 40)), rng.random((3, 40))
    whole = paired_bootstrap(first, second, resamples=1000)
    monkeypatch.setattr(paired, "_DRAWS_AT_ONCE", 40 * 7)
    assert paired_bootstrap(first, second, resamples=1000) == whole


def test_more_questions_than_a_chunk_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "_DRAWS_AT_ONCE", 10)
    assert paired_bootstrap(np.ones((1, 30)), np.zeros((1, 30)), resamples=5).low == 1.0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), r"first is \(2, 3\) and second \(2, 4\)"),
        (np.zeros(3), np.zeros(3), r"first has shape \(3,\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "empty"),
        (np.zeros((2, 0)), np.zeros((2, 0)), "empty"),
        (np.zeros((1, 2)), np.array([[0.0, nan]]), r"second\[0, 1\] is nan"),
    ],
)
def test_bootstrap_refuses_what_cannot_be_paired(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(first, second)


def test_bootstrap_refuses_wrong_settings() -> None:
    scores = np.zeros((2, 3))
    with pytest.raises(ValueError, match="clusters names 1 replicates, but there are 2"):
        paired_bootstrap(scores, scores, clusters=["a"])
    with pytest.raises(ValueError, match="resamples=0"):
        paired_bootstrap(scores, scores, resamples=0)
    with pytest.raises(ValueError, match="confidence=95"):
        paired_bootstrap(scores, scores, confidence=95)


@pytest.mark.slow
def test_bootstrap_of_a_study_is_quick_and_small() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (2, 6, 1000))
    tracemalloc.start()
    started = time.process_time()
    paired_bootstrap(scores[0], scores[1])
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 4
    assert peak < 200e6


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([0.3], 1.0),
        ([1.0, 2.0], 0.5),  # |sum| over the signs: 3, 1, 1, 3
        ([1.0, 2.0, 3.0], 0.25),  # 6 of (6, 0, 2, 4, 4, 2, 0, 6)
        ([1.0, 2.0, -3.0], 1.0),
        ([0.1] * 6, 2 / 64),
        ([-0.1] * 6, 2 / 64),
        ([0.0] * 4, 1.0),
        ([0.1, 0.2, -0.3, 0.0], 1.0),  # 0.1 + 0.2 - 0.3 must count as 0
    ],
)
def test_sign_flips_are_counted_exactly(differences: list[float], p_value: float) -> None:
    assert sign_flip_test(differences) == p_value


def test_sign_flips_of_many_patterns_are_counted_one_by_one() -> None:
    differences = np.random.default_rng(1).normal(0.5, 1, 9)
    sums = np.array(list(product((1, -1), repeat=9))) @ differences
    assert sign_flip_test(differences) == np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-12)


def test_many_replicates_are_sampled_and_agree_with_the_exact_test(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(2).normal(0.4, 1, 14)
    exact = sign_flip_test(differences)
    monkeypatch.setattr(paired, "_SIGN_PATTERNS", 10_000)  # of 16,384
    sampled = sign_flip_test(differences)
    assert sampled != exact
    assert sampled == pytest.approx(exact, abs=0.01)
    assert sampled == sign_flip_test(differences)


def test_a_sampled_p_value_is_never_zero() -> None:
    assert sign_flip_test([1.0] * 60) == 2 / 100_001


@pytest.mark.parametrize(("differences", "message"), [([], "empty"), ([0.1, nan], r"differences\[1\] is nan")])
def test_sign_flips_refuse_missing_values(differences: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sign_flip_test(differences)


def test_holm_of_the_textbook() -> None:
    # 4 x .005, 3 x .01, then 2 x .03; .04 x 1 is raised to .06: the order must not turn.
    adjusted = holm({"b": 0.01, "c": 0.04, "d": 0.03, "a": 0.005})
    assert list(adjusted) == ["b", "c", "d", "a"]
    assert adjusted == pytest.approx({"a": 0.02, "b": 0.03, "c": 0.06, "d": 0.06})


def test_holm_stays_within_one_and_leaves_a_single_test_alone() -> None:
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.03}) == {"a": 0.03}
    assert holm({}) == {}


@pytest.mark.parametrize("value", [nan, -0.1, 1.1])
def test_holm_refuses_what_is_no_p_value(value: float) -> None:
    with pytest.raises(ValueError, match="p-value of 'sft'"):
        holm({"kepo": 0.5, "sft": value})


def test_equal_answers_to_nine_questions_leave_doubt() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (3, 9))
    found = paired_difference(scores, scores)
    assert (found.low, found.high) == pytest.approx((-0.299, 0.299), abs=0.001)
    assert (found.estimate, found.p_value) == (0, 1)


def test_three_questions_won_are_no_proof() -> None:
    found = paired_difference(np.ones((1, 3)), np.zeros((1, 3)))
    assert (found.estimate, found.high, found.p_value) == (1, 1, 0.25)  # a sign test: 2 x 1/2^3
    assert found.low < 0
    back = paired_difference(np.zeros((1, 3)), np.ones((1, 3)))
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_where_differences_vary_it_is_the_bootstrap() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random((3, 40)), rng.random((3, 40))
    assert paired_difference(first, second, ["a", "a", "b"]) == paired_bootstrap(
        first, second, clusters=["a", "a", "b"]
    )
