"""Chance, pass@k and means over groups, by hand."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from kepo.statistics.accuracy import chance_level, macro_interval, mean_accuracy, pass_at_k
from kepo.statistics.paired import paired_bootstrap


def test_chance_is_the_mean_over_questions() -> None:
    assert chance_level([2, 4, 0, 4]) == 0.25  # (1/2 + 1/4 + 0 + 1/4) / 4
    assert isnan(chance_level([]))
    with pytest.raises(ValueError, match="holds -1"):
        chance_level([4, -1])


def test_pass_at_k_by_hand() -> None:
    # c = 1 and c = 0 of 4: 1 - C(3, 2) / C(4, 2) = .5, and 0.
    correct = [[True, False, False, False], [False] * 4]
    assert pass_at_k(correct, 1) == 0.125
    assert pass_at_k(correct, 2) == 0.25
    assert pass_at_k(correct, 4) == 0.5


def test_pass_at_k_of_many_samples_does_not_overflow() -> None:
    correct = np.zeros((1, 2000), dtype=bool)
    correct[0, :1000] = True
    assert pass_at_k(correct, 1) == 0.5
    assert pass_at_k(correct, 1001) == 1.0


@pytest.mark.parametrize("k", [0, 3, -1])
def test_pass_at_k_refuses_more_than_was_sampled(k: int) -> None:
    with pytest.raises(ValueError, match=f"k={k} with 2 samples"):
        pass_at_k([[True, False]], k)


def test_pass_at_k_without_questions() -> None:
    assert isnan(pass_at_k(np.zeros((0, 4), dtype=bool), 2))


def test_one_replicate_has_the_interval_of_its_questions() -> None:
    scores = np.array([[1.0] * 30 + [0.0] * 10])
    found = macro_interval(scores, np.array(["CT"] * 40), ["CT"])
    assert found.estimate == 0.75
    assert 0.55 < found.low < 0.68
    assert 0.82 < found.high < 0.95
    none = macro_interval(np.zeros((1, 10)), np.array(["CT"] * 10), ["CT"])
    assert (none.estimate, none.low) == (0, 0)
    assert 0.2 < none.high < 0.35
    assert np.isnan(macro_interval(scores, np.array(["CT"] * 40), []).estimate)


def test_groups_weigh_alike_whatever_their_size() -> None:
    # MRI 1 and CT 1/3: (1 + 1/3) / 2, not 2 / 4.
    found = macro_interval(np.array([[1.0, 1.0, 0.0, 0.0]] * 2), np.array(["MRI", "CT", "CT", "CT"]), ["MRI", "CT"])
    assert found.estimate == pytest.approx(2 / 3)
    assert (found.n, 0 <= found.low < 2 / 3 < found.high <= 1) == (2, True)


def test_the_interval_of_a_mean_is_that_of_a_difference_from_nothing() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (4, 20)).astype(float)
    found, expected = mean_accuracy(scores, ["a", "a", "b", "b"]), paired_bootstrap(scores, 0 * scores, clusters="aabb")
    assert (found.estimate, found.low, found.high, found.n) == (expected.estimate, expected.low, expected.high, 4)


@pytest.mark.parametrize("replicates", [1, 4])
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_none_and_all_of_nine_have_the_doubt_of_nine_questions(replicates: int, score: float) -> None:
    # Wilson's interval of 0 of 9 is 0 to .299.
    for found in (
        mean_accuracy(np.full((replicates, 9), score), ["a"] * replicates),
        macro_interval(np.full((replicates, 9), score), np.array(["CT"] * 9), ["CT"]),
        macro_interval(np.full((replicates, 9), score), np.array(["CT", "MRI", "OCT"] * 3), ["CT", "MRI", "OCT"]),
    ):
        ends = (found.low, found.high) if score == 0 else (1 - found.high, 1 - found.low)
        assert ends == pytest.approx((0, 0.299), abs=0.001)
        assert (found.estimate, found.n) == (score, replicates)


def test_all_correct_in_groups_of_different_size_reach_to_one() -> None:
    found = macro_interval(np.ones((2, 12)), np.array(["CT"] * 9 + ["MRI"] * 3), ["CT", "MRI"])
    assert (found.estimate, found.high) == (1, 1)
    assert 0.5 < found.low < 0.75  # fewer than the 12 questions count


def test_the_same_share_of_samples_for_all_questions_is_no_certainty() -> None:
    found = mean_accuracy(np.full((1, 9), 0.5))
    assert found.high - found.low > 0.4
