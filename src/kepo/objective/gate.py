"""The quality gate: which tokens of which rollouts the teacher may teach.

The paper gates whole trajectories, 1{r_i >= tau} (arXiv 2602.00400). `token` extends it: a
failed rollout is still taught up to its first incorrect step, where its context is sound.

Legend: B sequences, T completion tokens. What the gate does not do: run the teacher, or weigh one token against
another; its weights are 0 or 1.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from kepo.errors import ConfigError

GateMode: TypeAlias = Literal["always", "never", "trajectory", "inverted", "token"]
"""`always`: every rollout. `never`: none. `trajectory`: reward >= threshold. `inverted`: reward < threshold, a control.
`token`: as `trajectory`, and failed rollouts up to their first error."""

GATE_MODES: tuple[str, ...] = get_args(GateMode)


def trajectory_gate(rewards: Tensor, threshold: float, mode: str) -> Tensor:
    """Rollouts the gate is open for as a whole: 1{r_i >= tau}.

    Args:
        rewards: (B,) the reward the gate looks at; NaN marks a rollout that could not be scored.
        threshold: tau, in the units of `rewards`.
        mode: One of `GATE_MODES`.

    Returns:
        (B,) bool. A NaN reward is closed in every mode but `always`.

    Raises:
        ConfigError: `mode` is unknown.
    """
    _check_mode(mode)
    if mode == "always":
        return torch.ones_like(rewards, dtype=torch.bool)
    if mode == "never":
        return torch.zeros_like(rewards, dtype=torch.bool)
    # Comparisons with NaN are False, which closes the gate in both directions.
    return rewards < threshold if mode == "inverted" else rewards >= threshold


def first_error_mask(teacher_logps: Tensor, mask: Tensor, min_probability: float) -> Tensor:
    """Tokens up to and including the first one that the teacher finds improbable.

    The first incorrect token is kept because it is still predicted from a sound context: what the teacher would have
    said there is the correction itself. What follows is conditioned on the error.

    Args:
        teacher_logps: (B, T) log-probabilities the teacher gives to the rollout's tokens, in nats. A NaN (not scored)
            is dropped together with all that follows it.
        mask: (B, T) non-zero on completion tokens. What lies outside is neither kept nor seen as an error.
        min_probability: A token below this probability is an error, in [0, 1]. 0 finds no error.

    Returns:
        (B, T) bool.

    Raises:
        ConfigError: `min_probability` is outside [0, 1].
    """
    if not 0.0 <= min_probability <= 1.0:
        raise ConfigError(
            f"min_probability is {min_probability}; it is the probability below which a token counts as an error "
            "and must lie in [0, 1]."
        )
    bound = math.log(min_probability) if min_probability > 0.0 else -math.inf
    valid = mask != 0
    error = valid & ~(teacher_logps >= bound)
    errors_before = error.cumsum(-1) - error.long()
    return valid & (errors_before == 0) & ~teacher_logps.isnan()


def rows_to_score(mode: str, rewards: Tensor, threshold: float, mask: Tensor) -> Tensor:
    """Rows that can get weight, hence the only ones the teacher needs to see.

    Args:
        mode: One of `GATE_MODES`.
        rewards: (B,) the reward the gate looks at; NaN marks a rollout that could not be scored.
        threshold: tau, in the units of `rewards`.
        mask: (B, T) non-zero on completion tokens.

    Returns:
        (B,) bool. An empty completion is never scored. `token` needs every other row with a reward, because where a
        failed row goes wrong is for the teacher to say.

    Raises:
        ConfigError: `mode` is unknown.
    """
    rows = ~rewards.isnan() if mode == "token" else trajectory_gate(rewards, threshold, mode)
    return rows & (mask != 0).any(-1)


def gate_weights(
    mode: str,
    rewards: Tensor,
    threshold: float,
    mask: Tensor,
    teacher_logps: Tensor | None = None,
    min_probability: float = 0.1,
) -> Tensor:
    """The weight of every token in the distillation loss: 0 or 1.

    Args:
        mode: One of `GATE_MODES`.
        rewards: (B,) the reward the gate looks at; NaN marks a rollout that could not be scored.
        threshold: tau, in the units of `rewards`.
        mask: (B, T) non-zero on completion tokens.
        teacher_logps: (B, T) log-probabilities the teacher gives to the rollout's tokens, in nats; read by `token`
            only. Rows that were not scored may be NaN.
        min_probability: `token`: see `first_error_mask`.

    Returns:
        (B, T) float32, never NaN, 0 outside `mask`.

    Raises:
        ConfigError: `mode` is unknown, or is `token` without `teacher_logps`.
    """
    open_rows = trajectory_gate(rewards, threshold, mode)
    weights = open_rows.unsqueeze(-1) & (mask != 0)
    if mode == "token":
        if teacher_logps is None:
            raise ConfigError(
                "gate 'token' needs the teacher's log-probabilities of the completion tokens (teacher_logps), because "
                "it looks for the first error of failed rollouts. Score the rows named by rows_to_score first, or use "
                "gate 'trajectory'."
            )
        failed = (rewards < threshold).unsqueeze(-1)
        weights = weights | (failed & first_error_mask(teacher_logps, mask, min_probability))
    return weights.float()


def _check_mode(mode: str) -> None:
    if mode not in GATE_MODES:
        raise ConfigError(f"gate {mode!r} is unknown; use one of {', '.join(GATE_MODES)}.")
