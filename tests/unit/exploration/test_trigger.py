"""Which groups are explored."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from kepo.exploration import ExplorationSettings, needs_exploration
from kepo.types import Group

YES, NO = True, False


@pytest.mark.parametrize(
    ("trigger", "correct", "rewards", "expected"),
    [
        ("all_failed", (NO, NO, NO), (0.0, 0.0, 0.0), True),
        ("all_failed", (NO, NO, NO), (1.0, 1.0, 1.0), True),  # the format was earned by all
        ("all_failed", (NO, NO, NO), (1.0, 0.0, 1.0), True),
        ("all_failed", (NO, YES, NO), (0.0, 1.0, 0.0), False),
        ("all_failed", (YES, YES, YES), (1.0, 1.0, 1.0), False),
        ("all_failed", (), (), False),
        ("mean_below", (NO, NO, YES), (0.0, 0.0, 1.0), True),  # mean 1/3 < 0.5
        ("mean_below", (NO, YES), (0.0, 1.0), False),  # mean 0.5 is not below 0.5
        ("mean_below", (NO, NO, NO), (1.0, 1.0, 1.0), False),
        ("mean_below", (YES, YES), (0.0, 0.0), False),  # nothing to replace
        ("mean_below", (NO, YES, NO), (0.0, math.nan, 0.2), True),  # mean of the known ones is 0.1
        ("mean_below", (NO, NO), (math.nan, math.nan), False),
        ("always", (NO, YES), (0.0, 1.0), True),
        ("always", (NO, NO), (0.0, 0.0), True),
        ("always", (YES, YES), (1.0, 1.0), False),
    ],
)
def test_trigger(
    trigger: str,
    correct: tuple[bool, ...],
    rewards: tuple[float, ...],
    expected: bool,
    group: Callable[..., Group],
) -> None:
    settings = ExplorationSettings(exploration_trigger=trigger, exploration_trigger_mean=0.5)
    assert needs_exploration(group(correct=correct, rewards=rewards), settings) is expected


def test_nothing_is_explored_in_the_mode_none(group: Callable[..., Group]) -> None:
    assert not needs_exploration(group(), ExplorationSettings(exploration="none", exploration_trigger="always"))
