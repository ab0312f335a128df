"""Reward functions as TRL takes them: their names, and one that gives rewards which are known already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import get_callable_name

from kepo.trainer.generation_batch import RowReward


@dataclass(frozen=True)
class KnownRewards:
    """In the place of a reward function whose rewards are known: gives them, and logs what it logged."""

    rewards: Sequence[RowReward]

    def __call__(self, log_extra: Callable[[str, list[Any]], None], **_: Any) -> list[float]:
        for column in dict.fromkeys(column for reward in self.rewards for column in reward.logged):
            log_extra(column, [reward.logged.get(column) for reward in self.rewards])
        return [reward.value for reward in self.rewards]


def reward_names(reward_funcs: Sequence[Any]) -> list[str]:
    """The names under which TRL logs `reward_funcs`."""
    names = []
    for reward in reward_funcs:
        if isinstance(reward, str):
            names.append(reward.split("/")[-1])
        elif isinstance(reward, torch.nn.Module):
            names.append(str(getattr(reward.config, "_name_or_path", "reward_model")).split("/")[-1])
        else:
            names.append(get_callable_name(reward))
    return names


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names of which none is there twice: of several reward functions called `f`, the second is `f_2`.

    TRL logs them under one name; in settings and in the rollout log each has one of its own.
    """
    found: list[str] = []
    for name in names:
        number, distinct = 1, name
        while distinct in found:
            number += 1
            distinct = f"{name}_{number}"
        found.append(distinct)
    return found
