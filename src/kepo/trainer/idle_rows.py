"""Which rollouts can have no gradient, so that the training pass may leave them out.

B rollouts of a micro-batch, T completion tokens, F reward functions, W processes, G rollouts of a group.
"""

from __future__ import annotations

import torch


def idle_rows(advantages: torch.Tensor, gate_weights: torch.Tensor | None) -> torch.Tensor:
    """(B,) bool, rows without advantage whose gate is closed.

    Args:
        advantages: (B,) or (B, T).
        gate_weights: (B, T); None: there is no gate.
    """
    idle = advantages.reshape(len(advantages), -1).eq(0).all(1)
    return idle if gate_weights is None else idle & ~gate_weights.gt(0).any(1)


def equal_in_groups(total: torch.Tensor, rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """(W * B,) bool, whether the rewards of a row's group are all known and equal.

    Args:
        total: (W * B,) weighted sums of the rewards.
        rewards: (W * B, F); all NaN in a row whose rewards are not known.
        group_size: G.
    """
    totals = total.view(-1, group_size)
    equal = (totals == totals[:, :1]).all(1) & ~rewards.isnan().all(1).view(-1, group_size).any(1)
    return equal.repeat_interleave(group_size)
