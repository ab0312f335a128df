"""Which hint an attempt uses: the strongest level that the attempt has reached, its hints in turn."""

from __future__ import annotations

from collections.abc import Sequence

from kepo.types import Hint


def hint_of_attempt(hints: Sequence[Hint], attempt_levels: Sequence[int], attempt: int) -> Hint | None:
    """The hint of one attempt, or None while there is no usable hint at its level or below.

    The highest level up to the attempt's own that has a usable hint is taken. The hints of a level are used in turn:
    attempt j (from 0, counted from the level's first attempt) uses hint j mod M of its M hints.

    Args:
        hints: Every hint at hand for the group; those without a text are not usable.
        attempt_levels: The level of each attempt, rising, see `ExplorationSettings.attempt_levels`.
        attempt: Number of the attempt, counted from 1.
    """
    reached = list(dict.fromkeys(attempt_levels[:attempt]))
    for level in reversed(reached):
        usable = [hint for hint in hints if hint.text and hint.level == level]
        if usable:
            turn = attempt - 1 - attempt_levels.index(level)
            return usable[turn % len(usable)]
    return None
