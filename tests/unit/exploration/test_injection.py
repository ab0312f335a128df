"""Where kept samples go."""

from __future__ import annotations

import pytest

from kepo.errors import KepoError
from kepo.exploration import choose_slots, inject

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


def test_inject_replaces_the_slots_and_leaves_the_argument_alone() -> None:
    rollouts = ["a", "b", "c", "d"]
    assert inject(rollouts, {1: "B", 3: "D"}) == ["a", "B", "c", "D"]
    assert rollouts == ["a", "b", "c", "d"]
    assert inject(rollouts, {}) == rollouts


@pytest.mark.parametrize("slot", [-1, 4, 100])
def test_a_slot_outside_the_group_is_refused(slot: int) -> None:
    with pytest.raises(KepoError, match=rf"slot {slot} .* 4 rollouts"):
        inject(["a", "b", "c", "d"], {0: "A", slot: "X"})
