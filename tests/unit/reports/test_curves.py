"""Learning curves: mean and range over replicates, by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kepo.reports.curves import curve, window_of
from kepo.reports.load import load_study
from kepo.reports.study import Arm
from tests.unit.reports.study import write_run


def arm_with(folder: Path, *series: Sequence[float | None]) -> Arm:
    """An arm with one run per series of rewards; the first value belongs to step 1, None is no record."""
    for seed, values in enumerate(series):
        run = write_run(folder / f"run-{seed}", folder, "kepo", f"s/{seed}", seed)
        records = [{"step": step, "reward": value} for step, value in enumerate(values, start=1) if value is not None]
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return load_study([folder]).arms[0]


def test_mean_and_range_over_replicates(tmp_path: Path) -> None:
    found = curve(arm_with(tmp_path, [1.0, 2.0], [3.0, 6.0]), "reward")
    assert found is not None
    assert found.steps.tolist() == [1, 2]
    assert found.mean.tolist() == [2.0, 4.0]
    assert (found.low.tolist(), found.high.tolist()) == ([1.0, 2.0], [3.0, 6.0])
    assert found.replicates == 2


def test_steps_that_few_replicates_reached_are_left_out(tmp_path: Path) -> None:
    found = curve(arm_with(tmp_path, [1.0, 1.0, 1.0], [1.0], [1.0]), "reward")
    assert found is not None
    assert found.steps.tolist() == [1]


def test_values_that_are_no_number_are_gaps(tmp_path: Path) -> None:
    found = curve(arm_with(tmp_path, [1.0, float("nan"), 3.0]), "reward")
    assert found is not None
    assert found.steps.tolist() == [1, 3]


def test_a_metric_that_nobody_logged_has_no_curve(tmp_path: Path) -> None:
    assert curve(arm_with(tmp_path, [1.0]), "kl") is None


def test_long_series_are_smoothed_and_short_ones_are_not(tmp_path: Path) -> None:
    arm = arm_with(tmp_path, [float(step % 2) for step in range(60)])
    found = curve(arm, "reward", smooth=True)
    assert found is not None
    assert window_of(60) == 3
    assert found.mean[1] == (0 + 1 + 0) / 3
    assert window_of(29) == 1
