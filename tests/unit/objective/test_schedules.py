"""Schedules of tau and lambda, by hand."""

from __future__ import annotations

import pytest

from kepo.errors import ConfigError
from kepo.objective import Schedule


def test_a_constant_stays() -> None:
    assert [Schedule(0.3).at(p) for p in (0.0, 0.5, 1.0)] == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_without_an_end_every_kind_stays(kind: str) -> None:
    assert Schedule(0.3, None, kind).at(0.7) == 0.3


def test_linear() -> None:
    schedule = Schedule(1.0, 0.0, "linear")
    assert [schedule.at(p) for p in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.75, 0.5, 0.0]


def test_cosine() -> None:
    schedule = Schedule(0.0, 2.0, "cosine")
    # 1 - cos(pi p): cos(pi/3) = 1/2, cos(pi/2) = 0, cos(2 pi/3) = -1/2
    assert [schedule.at(p) for p in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_progress_is_clamped_and_the_ends_are_exact(kind: str) -> None:
    schedule = Schedule(0.1, 0.7, kind)
    assert schedule.at(-1.0) == schedule.at(0.0) == 0.1
    assert schedule.at(1.5) == schedule.at(1.0) == 0.7
    assert Schedule(0.2, 0.9, kind).at(1.0) == 0.9  # although 0.2 + (0.9 - 0.2) is not


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="schedule kind 'exp' is unknown; use one of constant, linear, cosine"):
        Schedule(0.0, 1.0, "exp")


def test_a_constant_schedule_cannot_move() -> None:
    with pytest.raises(ConfigError, match=r"cannot go from 0\.0 to 1\.0"):
        Schedule(0.0, 1.0)
    assert Schedule(1.0, 1.0).at(0.5) == 1.0


@pytest.mark.parametrize(("start", "end", "name"), [(float("nan"), None, "start"), (0.0, float("inf"), "end")])
def test_values_are_finite(start: float, end: float | None, name: str) -> None:
    with pytest.raises(ConfigError, match=f"the {name} of a schedule"):
        Schedule(start, end, "linear")
