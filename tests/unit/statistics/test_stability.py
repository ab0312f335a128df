"""Stability of a run from its logged metrics."""

from __future__ import annotations

from math import inf, isnan, nan, sqrt

import pytest

from kepo.statistics.stability import (
    Stability,
    gradient_spikes,
    measure,
    seed_spread,
    smoothed,
    validation_points,
    worst_drop,
)


@pytest.mark.parametrize(
    ("norms", "spikes"),
    [
        ([1.0] * 5 + [5.1], 1),
        ([1.0] * 5 + [5.0], 0),  # above 5 x, not at it
        ([1.0] * 4 + [100.0], 0),  # too little history
        ([1.0] * 5 + [6.0, 6.0], 2),  # one spike does not move the median
        ([], 0),
    ],
)
def test_a_spike_is_above_five_times_the_running_median(norms: list[float], spikes: int) -> None:
    assert gradient_spikes(norms) == spikes


def test_only_the_last_twenty_values_are_remembered() -> None:
    # After 10 values of 10 the median of the last 20 is (1 + 10) / 2; after 11 it is 10.
    assert gradient_spikes([1.0] * 20 + [4.0] * 10 + [15.0]) == 1
    assert gradient_spikes([1.0] * 20 + [4.0] * 11 + [15.0]) == 0


@pytest.mark.parametrize("norm", [nan, inf])
def test_a_gradient_that_is_not_finite_is_a_spike_and_is_forgotten(norm: float) -> None:
    assert gradient_spikes([norm]) == 1
    assert gradient_spikes([1.0] * 4 + [norm] + [100.0]) == 1


def test_steps_without_gradient_do_not_make_the_others_spikes() -> None:
    assert gradient_spikes([0.0] * 10 + [1.0]) == 0
    assert gradient_spikes([1.0, 0.0, 0.0, 0.0] * 5 + [6.0]) == 1


def test_worst_drop_is_below_the_best_before() -> None:
    assert worst_drop([0.5, 0.75, 0.5, 0.25, 1.0, 0.75]) == 0.5
    assert worst_drop([0.25, 0.5, 0.5]) == 0.0
    assert worst_drop([0.5]) == 0.0


def test_measure_of_a_run() -> None:
    metrics = [
        *(
            {"step": i, "grad_norm": 1.0, "reward": r, "kl": 0.1 * i}
            for i, r in enumerate([0.0, 0.5, 0.5, 1.5, 1.5], 1)
        ),
        {"step": 6, "grad_norm": 9.0, "exploration/all_failed_groups": 0.75, "validation/in_domain": 0.5},
        {
            "step": 7,
            "exploration/all_failed_groups": 0.25,
            "validation/in_domain": 0.625,
            "validation/out_of_domain": 0.1,
        },
        {"step": 8, "validation/in_domain": 0.375},
        {"step": 8, "train_runtime": 12.0},
    ]
    measured = measure(metrics)
    # Changes in reward .5, 0, 1, 0: mean .375, squared deviations .015625 + 2 x .140625 + .390625 = .6875.
    assert measured == Stability(
        gradient_spikes=1,
        worst_drop=0.25,
        best_validation=0.625,
        last_validation=0.375,
        all_failed_first=0.75,
        all_failed_last=0.25,
        kl_last=0.5,
        reward_std_between_steps=pytest.approx(sqrt(0.6875 / 3)),
    )


def test_first_and_last_are_means_over_a_fifth() -> None:
    measured = measure(
        [{"exploration/all_failed_groups": share, "kl": share} for share in [1.0, 0.5] + [9.0] * 7 + [0.5] + [0.0]]
    )
    assert (measured.all_failed_first, measured.all_failed_last, measured.kl_last) == (0.75, 0.25, 0.25)


@pytest.mark.parametrize("metrics", [[], [{"step": 1}], [{"step": 1, "kl": None, "reward": nan}]])
def test_what_was_not_logged_is_none(metrics: list[dict[str, object]]) -> None:
    assert measure(metrics) == Stability(0, None, None, None, None, None, None, None)


def test_validation_falls_back_to_the_evaluation_of_trl() -> None:
    trl = [{"eval_rewards/choice_accuracy/mean": 0.25}, {"eval_rewards/choice_accuracy/mean": 0.5}]
    assert validation_points(trl) == [0.25, 0.5]
    assert validation_points([*trl, {"validation/in_domain": 0.75}]) == [0.75]


def test_validation_that_was_not_measured_is_left_out() -> None:
    measured = measure([{"validation/in_domain": 0.5}, {"validation/in_domain": nan}])
    assert (measured.last_validation, measured.worst_drop) == (0.5, 0.0)


def test_a_steady_rise_is_not_unsteady() -> None:
    assert measure([{"reward": 0.25 * i} for i in range(6)]).reward_std_between_steps == 0.0
    assert measure([{"reward": 0.5}, {"reward": 1.0}]).reward_std_between_steps is None


def test_seed_spread_is_the_sample_standard_deviation() -> None:
    assert seed_spread([1.0, 2.0, 3.0]) == 1.0
    assert isnan(seed_spread([1.0]))
    assert isnan(seed_spread([]))


def test_smoothed_is_centred_and_shorter_at_the_ends() -> None:
    assert smoothed([0, 3, 6, 0], 3).tolist() == [1.5, 3.0, 3.0, 3.0]
    assert smoothed([0, 3, 6, 0], 2).tolist() == smoothed([0, 3, 6, 0], 3).tolist()
    assert smoothed([0, 3, 6, 0], 1).tolist() == [0, 3, 6, 0]
    assert smoothed([1, 3], 99).tolist() == [2, 2]
    assert smoothed([], 3).tolist() == []


def test_smoothed_bridges_gaps() -> None:
    values = smoothed([1, nan, 3, nan, nan, nan], 3)
    assert values[:4].tolist() == [1, 2, 3, 3]
    assert all(isnan(value) for value in values[4:])


def test_smoothed_refuses_a_window_of_nothing() -> None:
    with pytest.raises(ValueError, match="window=0"):
        smoothed([1.0], 0)
