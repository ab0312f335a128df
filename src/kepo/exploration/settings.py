"""The settings of exploration, checked when they are made. They have the names of the fields of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from kepo.errors import ConfigError, check_choice, check_whole
from kepo.prompts import HINT_LEVELS

EXPLORATION_MODES: tuple[str, ...] = ("none", "hint", "resample")
TRIGGERS: tuple[str, ...] = ("all_failed", "mean_below", "always")
LEAK_POLICIES: tuple[str, ...] = ("allow", "strip", "ask_again", "reject")

_LEAST = {
    "num_injected": 1,
    "exploration_attempts": 1,
    "exploration_max_cost": 1,
    "hint_retries": 0,
    "hint_level": 0,
}


@dataclass(frozen=True, slots=True)
class ExplorationSettings:
    """How groups are explored.

    The fields are those of `KEPOConfig` with the same names and defaults; docs/fields.md explains them.

    Raises:
        ConfigError: A value that cannot work.
    """

    exploration: str = "hint"
    exploration_trigger: str = "all_failed"
    exploration_trigger_mean: float = 0.5
    num_injected: int = 2
    exploration_attempts: int = 5
    exploration_samples_per_attempt: int | None = None
    exploration_surplus: float = 0.13
    exploration_max_cost: int = 16
    hint_level: int = 1
    hint_max_level: int | None = None
    hint_leak_policy: str = "reject"
    hint_retries: int = 2

    @classmethod
    def of(cls, config: object) -> ExplorationSettings:
        """The settings in a config that has fields of the same names, such as `KEPOConfig`."""
        return cls(**{setting.name: getattr(config, setting.name) for setting in fields(cls)})

    def __post_init__(self) -> None:
        check_choice("exploration", self.exploration, EXPLORATION_MODES)
        check_choice("exploration_trigger", self.exploration_trigger, TRIGGERS)
        check_choice("hint_leak_policy", self.hint_leak_policy, LEAK_POLICIES)
        for name, least in _LEAST.items():
            check_whole(name, getattr(self, name), at_least=least)
        for name, least in (("exploration_samples_per_attempt", 1), ("hint_max_level", 0)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), at_least=least)
        self._check_levels()
        if not 0 <= self.exploration_surplus < 1:
            raise ConfigError(
                f"exploration_surplus is {self.exploration_surplus}; it is a share of the correct samples, at "
                "least 0 and below 1. With 0 an attempt samples as many as are missing."
            )
        if not math.isfinite(self.exploration_trigger_mean):
            raise ConfigError(f"exploration_trigger_mean is {self.exploration_trigger_mean}; give a finite reward.")

    def _check_levels(self) -> None:
        last = len(HINT_LEVELS) - 1
        if self.hint_level > last:
            raise ConfigError(f"hint_level is {self.hint_level}; the levels are 0 (weakest) to {last}.")
        if self.hint_max_level is None:
            return
        if not self.hint_level <= self.hint_max_level <= last:
            raise ConfigError(
                f"hint_max_level is {self.hint_max_level}; attempts climb from hint_level {self.hint_level} up to it, "
                f"so give {self.hint_level} to {last}, or leave it out."
            )
        if self.exploration_attempts < len(self.levels):
            raise ConfigError(
                f"exploration_attempts is {self.exploration_attempts}, too few for the {len(self.levels)} levels from "
                f"hint_level {self.hint_level} to hint_max_level {self.hint_max_level}. Allow at least "
                f"{len(self.levels)} attempts, or lower hint_max_level."
            )

    @property
    def levels(self) -> range:
        """The n levels of hints, weakest first."""
        return range(self.hint_level, (self.hint_level if self.hint_max_level is None else self.hint_max_level) + 1)

    @property
    def attempt_levels(self) -> tuple[int, ...]:
        """The level of each of the A attempts: attempt i (from 0) has the level `hint_level` + floor(i n / A)."""
        attempts = self.exploration_attempts
        return tuple(self.levels[i * len(self.levels) // attempts] for i in range(attempts))

    @property
    def adapts(self) -> bool:
        """Whether what came of earlier samples decides how many an attempt takes."""
        return self.exploration_samples_per_attempt is None and self.exploration_surplus > 0

    @property
    def hint_calls_per_level(self) -> int:
        """How often hints of one level are asked for, the same on every process."""
        if self.exploration != "hint":
            return 0
        return 1 + (self.hint_retries if self.hint_leak_policy == "ask_again" else 0)

    def check_group_size(self, num_generations: int) -> None:
        """Refuse to replace more rollouts than the `num_generations` of a group.

        Raises:
            ConfigError: `num_injected` is greater.
        """
        if self.exploration != "none" and self.num_injected > num_generations:
            raise ConfigError(
                f"num_injected is {self.num_injected} but a group has only {num_generations} rollouts "
                f"(num_generations). Set num_injected to at most {num_generations}, or generate larger groups."
            )
