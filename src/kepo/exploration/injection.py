"""Which rollouts of a group are replaced, and the replacing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from kepo.errors import KepoError

T = TypeVar("T")


def choose_slots(correct: Sequence[bool], count: int) -> tuple[int, ...]:
    """The slots that `count` kept samples go to: failed rollouts only, lowest index first, each at most once.

    Args:
        correct: One flag per rollout of the group (length G).
        count: Kept samples, >= 0.

    Returns:
        Distinct indices 0..G-1, fewer than `count` where fewer rollouts failed.
    """
    failed = [slot for slot, flag in enumerate(correct) if not flag]
    return tuple(failed[: max(count, 0)])


def inject(rollouts: Sequence[T], replacements: Mapping[int, T]) -> list[T]:
    """The rollouts of one group with some replaced; the argument is left as it was.

    Args:
        rollouts: The G rollouts of one group.
        replacements: Slot (0..G-1) -> the rollout that goes there.

    Raises:
        KepoError: A slot outside the group.
    """
    outside = [slot for slot in replacements if not 0 <= slot < len(rollouts)]
    if outside:
        raise KepoError(
            f"slot {outside[0]} is outside the group, whose {len(rollouts)} rollouts have the slots "
            f"0..{len(rollouts) - 1}; take slots from choose_slots of the same group."
        )
    return [replacements.get(slot, rollout) for slot, rollout in enumerate(rollouts)]
