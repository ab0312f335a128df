"""What corrects injected rollouts for having been sampled under a hint they are not trained with.

A policy-gradient term weighs each token by the ratio exp(logp - old_logp). A rollout that exploration injected was
drawn from pi(.|x, hint) but is trained under x, so the correction is a choice of `old_logp` for its row; the policy
term itself, its clipping included, stays as it is.

Legend: B sequences, T completion tokens.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from kepo.errors import ConfigError

InjectionCorrection: TypeAlias = Literal["none", "shaped", "importance"]
"""`none`: as if the rollout were the student's own (arXiv 2602.00400). `shaped`: ratio p/(p + gamma) (LUFFY, arXiv
2504.14945). `importance`: ratio pi(y|x) / pi(y|x, hint)."""

INJECTION_CORRECTIONS: tuple[str, ...] = get_args(InjectionCorrection)


def injected_old_logps(
    logps: Tensor,
    old_logps: Tensor | None,
    injected: Tensor,
    correction: str,
    gamma: float = 0.1,
    sampling_per_token_logps: Tensor | None = None,
) -> Tensor:
    """The `old_logp` of every token, such that exp(logps - result) is the corrected ratio on injected rows.

    `shaped` keeps the gradient of its result: the ratio is p/(p + gamma) and its gradient with respect to log p is
    gamma * p / (p + gamma)^2, which is largest at p = gamma. Such a ratio is below 1, where PPO's clip does not bind
    for positive advantages, those of verified rollouts; for negative ones it may, and then stops the gradient.

    `importance` is clipped by the policy term's own clip range.

    Args:
        logps: (B, T) log-probabilities under the current policy and the training prompt, in nats, with gradient.
        old_logps: (B, T) those of the policy that sampled; None means the current policy.
        injected: (B,) bool, rows that exploration injected.
        correction: One of `INJECTION_CORRECTIONS`.
        gamma: `shaped`: the shaping constant, > 0 (0.1 in LUFFY).
        sampling_per_token_logps: `importance`: (B, T) log-probabilities under the hinted prompt at sampling time, in
            nats. NaN (unknown) leaves the token without correction, with ratio 1.

    Returns:
        (B, T). Rows that were not injected hold `old_logps`, or `logps` without gradient.

    Raises:
        ConfigError: `correction` is unknown, `gamma` is not positive, or `importance` lacks `sampling_per_token_logps`.
    """
    if correction not in INJECTION_CORRECTIONS:
        raise ConfigError(
            f"injection correction {correction!r} is unknown; use one of {', '.join(INJECTION_CORRECTIONS)}."
        )
    on_policy = logps.detach() if old_logps is None else old_logps
    if correction == "none":
        return on_policy
    corrected = _shaped(logps, gamma) if correction == "shaped" else _importance(logps, sampling_per_token_logps)
    return torch.where(injected.unsqueeze(-1), corrected, on_policy)


def _shaped(logps: Tensor, gamma: float) -> Tensor:
    """log(p + gamma), with gradient."""
    if not gamma > 0.0:
        raise ConfigError(f"gamma of the shaped injection correction is {gamma}; it must be greater than 0.")
    return torch.logaddexp(logps, torch.full_like(logps, math.log(gamma)))


def _importance(logps: Tensor, sampling_per_token_logps: Tensor | None) -> Tensor:
    if sampling_per_token_logps is None:
        raise ConfigError(
            "injection correction 'importance' needs the log-probabilities of the injected tokens under the hinted "
            "prompt (sampling_per_token_logps). Use a generation engine that returns them, or correction 'none' or "
            "'shaped'."
        )
    sampling = sampling_per_token_logps.detach().to(logps)
    return torch.where(sampling.isnan(), logps.detach(), sampling)
