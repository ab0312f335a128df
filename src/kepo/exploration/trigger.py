"""Which groups are explored. Decided on correctness, never on format."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kepo.exploration.settings import ExplorationSettings
from kepo.types import Group


def needs_exploration(group: Group, settings: ExplorationSettings) -> bool:
    """Whether `group` is to be explored under `settings`; never a group without a failed rollout to replace.

    With the trigger "all_failed" a group needs it when no rollout is correct, whatever its other rewards: this is the
    learning cliff, where the correctness reward has no variance. The mean of "mean_below" leaves out rewards that are
    NaN (a reward function that does not apply).
    """
    if settings.exploration == "none" or all(group.correct):
        return False
    if settings.exploration_trigger == "all_failed":
        return not any(group.correct)
    if settings.exploration_trigger == "mean_below":
        return _mean(group.rewards) < settings.exploration_trigger_mean
    return True


def _mean(rewards: Sequence[float]) -> float:
    known = [reward for reward in rewards if not math.isnan(reward)]
    return sum(known) / len(known) if known else math.nan
