"""How many samples an attempt takes: sums that a hand can check, the rule's bounds, the best strategies beside it."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

from benchmarks.exploration import PRICES, compare, fewest_samples, frontier, rule, spent
from kepo.exploration.budget import CHANCES, Belief, attempt_size, expected_kept, fit_belief
from kepo.types import Outcomes


def certain(*chances: float) -> Belief:
    """p is one of these, each as likely as the others."""
    return Belief(tuple((chance in chances) / len(chances) for chance in CHANCES))


def size(missing: int, belief: Belief, surplus: float = 0.13, max_cost: int = 16, most: int = 32) -> int:
    return attempt_size(missing, belief, surplus=surplus, max_cost=max_cost, most=most)


def test_before_anything_is_known_all_chances_are_equally_likely() -> None:
    assert sum(Belief().weights) == pytest.approx(1)
    assert Belief().mean == pytest.approx(0.5, abs=0.005)
    # Laplace's rule of succession: (0 + 1) / (2 + 2), (2 + 1) / (2 + 2), (1 + 1) / (8 + 2).
    for seen, mean in ((Outcomes(0, 2), 0.25), (Outcomes(2, 2), 0.75), (Outcomes(1, 8), 0.2)):
        assert Belief().after(seen).mean == pytest.approx(mean, abs=0.01)


def test_outcomes_change_a_belief_as_bayes_says() -> None:
    # .5 and .1 equally likely, one incorrect sample: .5 / (.5 + .9) = .357 for .5.
    belief = certain(0.5, 0.1).after(Outcomes(0, 1))
    assert belief.weights[CHANCES.index(0.5)] == pytest.approx(0.5 / 1.4)
    assert belief.mean == pytest.approx((0.5 * 0.5 + 0.9 * 0.1) / 1.4)
    twice = certain(0.5, 0.1).after(Outcomes(0, 1)).after(Outcomes(2, 3))
    assert twice.weights == pytest.approx(certain(0.5, 0.1).after(Outcomes(2, 4)).weights)


def test_thousands_of_outcomes_are_no_problem() -> None:
    assert Belief().after(Outcomes(0, 5000)).mean == pytest.approx(0.001, rel=0.1)
    assert Belief().after(Outcomes(5000, 5000)).mean == pytest.approx(0.99, rel=0.01)


def test_expected_kept_is_the_sum_over_all_outcomes() -> None:
    # p = .5: of two samples one is kept with chance 3/4; of three, two are missing: 3/8 * 1 + 4/8 * 2 = 11/8.
    assert expected_kept(1, certain(0.5), 2).tolist() == pytest.approx([0, 0.5, 0.75])
    assert expected_kept(2, certain(0.5), 3)[3] == pytest.approx(11 / 8)
    belief = certain(0.2, 0.7)
    by_hand = sum(
        0.5 * p ** sum(found) * (1 - p) ** (4 - sum(found)) * min(sum(found), 3)
        for p in (0.2, 0.7)
        for found in product((0, 1), repeat=4)
    )
    assert expected_kept(3, belief, 4)[4] == pytest.approx(by_hand)


def test_an_attempt_is_as_large_as_its_expected_surplus_allows() -> None:
    # p = .5, one missing: two samples find 1 correct one, and keep .75 of it: a surplus of a quarter.
    assert size(1, certain(0.5), surplus=0.24) == 1
    assert size(1, certain(0.5), surplus=0.25) == 2
    # p = .1, one missing: n = 3 keeps .271 of .3 (surplus .097), n = 4 keeps .344 of .4 (.14).
    assert size(1, certain(0.1), surplus=0.1) == 3
    assert size(1, certain(0.1), surplus=0.13) == 3
    assert size(1, certain(0.1), surplus=0.141) == 4


@pytest.mark.parametrize("missing", [1, 2, 4, 8])
def test_it_takes_at_least_what_is_missing_and_more_with_every_failure(missing: int) -> None:
    sizes = [size(missing, Belief().after(Outcomes(0, failed)), most=1000) for failed in range(14)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= missing
    assert sizes[-1] > sizes[0]
    assert size(missing, Belief().after(Outcomes(0, 10)), surplus=0.0) == missing
    assert size(missing, certain(0.99)) <= missing * 1.15
    assert size(0, Belief()) == 0


def test_a_group_that_cannot_be_solved_gets_little_more_than_without_the_rule() -> None:
    for missing in (1, 2, 4):
        assert size(missing, certain(0.05)) == missing  # below 1 in 16
        assert size(missing, certain(0.05), max_cost=32, most=64) > missing
        assert size(missing, certain(0.1), most=missing + 1) <= missing + 1
        assert size(missing, certain(0.1), most=-5) == missing


def test_a_run_without_groups_knows_nothing() -> None:
    assert fit_belief([]) == Belief()


def test_the_fit_finds_what_groups_were_drawn_from() -> None:
    draw = random.Random(0)
    groups = [Outcomes(sum(draw.random() < 0.1 for _ in range(10)), 10) for _ in range(64)]
    assert fit_belief(groups).mean == pytest.approx(0.13, abs=0.03)  # .1, and four groups' worth of .5
    # Seven in ten are easy, others hopeless: after four failures it is one of these.
    mixed = [Outcomes(5, 10)] * 45 + [Outcomes(0, 10)] * 19
    fitted = fit_belief(mixed)
    assert fitted.mean == pytest.approx(0.7 * 0.5, abs=0.03)
    assert fitted.after(Outcomes(0, 4)).mean < 0.1
    assert Belief().after(Outcomes(0, 4)).mean == pytest.approx(1 / 6, abs=0.01)
    assert fit_belief(mixed[::-1]).weights == pytest.approx(fitted.weights)


def test_what_a_strategy_spends_is_computed_exactly() -> None:
    missing = rule(Belief(), 1, surplus=0.0)
    # One is missing, one sample in each of two attempts, p = .5.
    one = spent(0.5, 1, 2, missing)
    assert (one.kept, one.samples, one.rescued) == pytest.approx((0.75, 1.5, 0.75))
    two = spent(0.5, 2, 1, missing)
    assert (two.kept, two.samples, two.rescued) == pytest.approx((1.0, 2.0, 0.75))


def test_the_best_strategy_is_found_by_dynamic_programming() -> None:
    # One missing, one attempt, p = .5, at most two samples: n = 1 keeps .5 for 1, n = 2 keeps .75 for 2. The second
    # sample is worth its price where .25 x price > 1.
    points = frontier(((1.0, 0.5),), 1, 1, ceiling=2, most=2)
    for price, point in zip(PRICES, points.tolist(), strict=True):
        best = (0.0, 0.0) if price < 2 else (0.5, 1.0) if price < 4 else (0.75, 2.0)
        assert point == pytest.approx(best)
    assert fewest_samples(points, 0.625) == pytest.approx(1.5)
    # Two attempts: one sample, and another where it failed, is as good as two at once, and cheaper.
    assert frontier(((1.0, 0.5),), 1, 2, ceiling=2, most=2)[-1].tolist() == pytest.approx([0.75, 1.5])
    # Half of the groups hopeless: after a failure p is .5 with chance 1/3, so a second sample costs 6.
    learning = frontier(((0.5, 0.5), (0.5, 0.0)), 1, 2, ceiling=2, most=2)
    for price, point in zip(PRICES, learning.tolist(), strict=True):
        best = (0.0, 0.0) if price < 4 else (0.25, 1.0) if price < 6 else (0.375, 1.75)
        assert point == pytest.approx(best)


@pytest.mark.parametrize("chance", [0.05, 0.2, 0.6])
def test_the_rule_is_within_15_percent_of_the_best_and_rescues_more_than_what_is_missing(chance: float) -> None:
    found = compare(((1.0, chance),), injected=2, attempts=3)
    for name in ("new", "run"):
        assert found[name].each < 1.15 / chance
        assert found[name].rescued > found["missing"].rescued
    assert found["run"].samples < 1.15 * found["best"].samples


def test_beliefs_are_distributions() -> None:
    for belief in (Belief(), fit_belief([Outcomes(1, 3)] * 5), Belief().after(Outcomes(0.5, 3.25))):
        assert sum(belief.weights) == pytest.approx(1)
        assert min(belief.weights) >= 0
        assert np.all(np.diff(expected_kept(2, belief, 20)) > 0)
