"""Learning curves: a logged metric over steps, as mean and range over an arm's replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from kepo.reports.study import Arm, RunData
from kepo.statistics.stability import VALIDATION, smoothed

OUT_OF_DOMAIN_KEY = "validation/out_of_domain"
_SMOOTH_FROM = 30
_MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric of one arm; all arrays have the length of `steps`."""

    steps: np.ndarray  # steps at which at least half of the replicates logged it
    mean: np.ndarray  # mean over these replicates
    low: np.ndarray  # least of them
    high: np.ndarray  # greatest of them
    replicates: int  # how many runs logged it at all


def validation_key(runs: Sequence[RunData]) -> str | None:
    """The metric that holds validation accuracy (in domain); None when no run was validated."""
    return next((key for key in VALIDATION if any(run.series(key) for run in runs)), None)


def curve(arm: Arm, key: str, *, smooth: bool = False) -> Curve | None:
    """The course of a metric over the replicates of an arm; None when none logged it.

    Args:
        arm: The arm.
        key: Name of the metric.
        smooth: Draw each replicate's moving mean over a twentieth of its values, from 30 values on.
    """
    logged = [found for run in arm.runs if (found := _finite(run.series(key)))]
    if not logged:
        return None
    return over_replicates([_smoothed(values) for values in logged] if smooth else logged)


def over_replicates(logged: Sequence[Mapping[int, float]]) -> Curve:
    """Mean and range of several courses, step -> value, at the steps that at least half of them have; at least one."""
    import pandas as pd

    table = pd.DataFrame([dict(values) for values in logged]).T.sort_index()  # steps x replicates
    table = table[2 * table.notna().sum(axis=1) >= len(logged)]
    every = -(-len(table) // _MOST_POINTS)
    kept = table[[place % every == 0 or place == len(table) - 1 for place in range(len(table))]]
    means, lows, highs = (kept.agg(name, axis=1).to_numpy() for name in ("mean", "min", "max"))
    return Curve(kept.index.to_numpy(), means, lows, highs, replicates=len(logged))


def window_of(count: int) -> int:
    """How many values the moving mean of `count` values takes in."""
    return max(3, count // 20) if count >= _SMOOTH_FROM else 1


def _finite(series: dict[int, float]) -> dict[int, float]:
    return {step: value for step, value in sorted(series.items()) if isfinite(value)}


def _smoothed(series: dict[int, float]) -> dict[int, float]:
    values = smoothed(list(series.values()), window_of(len(series)))
    return dict(zip(series, values.tolist(), strict=True))
