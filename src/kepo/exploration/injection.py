"""Which rollouts of a group are replaced; the trainer replaces them, in the lists of TRL's own step."""

from __future__ import annotations

from collections.abc import Sequence


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
