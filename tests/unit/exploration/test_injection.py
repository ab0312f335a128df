"""Where kept samples go."""

from __future__ import annotations

import pytest

from kepo.exploration.injection import choose_slots

YES, NO = True, False


@pytest.mark.parametrize(
    ("correct", "count", "slots"),
    [
        ((NO, NO, NO, NO), 2, (0, 1)),
        ((YES, NO, YES, NO), 2, (1, 3)),
        ((YES, NO, YES, NO), 3, (1, 3)),  # never more than failed
        ((YES, YES), 1, ()),
        ((NO, NO), 0, ()),
        ((), 2, ()),
    ],
)
def test_slots(correct: tuple[bool, ...], count: int, slots: tuple[int, ...]) -> None:
    assert choose_slots(correct, count) == slots
