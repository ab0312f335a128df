"""The settings of exploration, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kepo.errors import ConfigError
from kepo.prompts import HINT_LEVELS

EXPLORATION_MODES: tuple[str, ...] = ("none", "hint", "resample")
TRIGGERS: tuple[str, ...] = ("all_failed", "mean_below", "always")
LEAK_POLICIES: tuple[str, ...] = ("allow", "strip", "ask_again", "reject")

# Errors name the field as a recipe spells it too, where that differs.
_IN_A_RECIPE = {
    "mode": "exploration",
    "trigger": "exploration_trigger",
    "trigger_mean": "exploration_trigger_mean",
    "attempts": "exploration_attempts",
    "samples_per_attempt": "exploration_samples_per_attempt",
    "leak_policy": "hint_leak_policy",
}


@dataclass(frozen=True, slots=True)
class ExplorationSettings:
    """How groups are explored.

    Attributes:
        mode: "hint" (knowledge-enhanced), "resample" (the same budget without a hint: the control) or "none".
        trigger: "all_failed" (no rollout correct, whatever its format earned), "mean_below" (mean reward below
            `trigger_mean`) or "always" (any failed rollout).
        trigger_mean: Bound of "mean_below", in units of reward.
        num_injected: K >= 1, rollouts of a group replaced at most (paper: 2 of 8).
        attempts: Attempts per group, >= 1 (paper: at most 5).
        samples_per_attempt: Completions sampled per group and attempt, >= 1; None: as many as are still missing.
        hint_level: Index into `kepo.prompts.HINT_LEVELS` of the first hints.
        hint_max_level: Level that attempts climb to, evenly and as whole levels; None: they stay at `hint_level`.
        leak_policy: What happens to a hint that gives the answer away: "allow" keeps it, "strip" takes out the
            sentences that leak, "ask_again" asks the teacher for another one, "reject" drops it.
        hint_retries: How often "ask_again" asks again, >= 0; a hint that still leaks after that is dropped.

    Raises:
        ConfigError: A value that cannot work.
    """

    mode: str = "hint"
    trigger: str = "all_failed"
    trigger_mean: float = 0.0
    num_injected: int = 2
    attempts: int = 5
    samples_per_attempt: int | None = None
    hint_level: int = 1
    hint_max_level: int | None = None
    leak_policy: str = "reject"
    hint_retries: int = 2

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, EXPLORATION_MODES)
        _one_of("trigger", self.trigger, TRIGGERS)
        _one_of("leak_policy", self.leak_policy, LEAK_POLICIES)
        _whole("num_injected", self.num_injected, at_least=1)
        _whole("attempts", self.attempts, at_least=1)
        _whole("hint_retries", self.hint_retries, at_least=0)
        _whole("hint_level", self.hint_level, at_least=0)
        if self.samples_per_attempt is not None:
            _whole("samples_per_attempt", self.samples_per_attempt, at_least=1)
        self._check_levels()
        if not math.isfinite(self.trigger_mean):
            raise ConfigError(f"exploration: {_field('trigger_mean')} is {self.trigger_mean}; give a finite reward.")

    def _check_levels(self) -> None:
        last = len(HINT_LEVELS) - 1
        if self.hint_level > last:
            raise ConfigError(f"exploration: hint_level is {self.hint_level}; the levels are 0 (weakest) to {last}.")
        if self.hint_max_level is None:
            return
        _whole("hint_max_level", self.hint_max_level, at_least=0)
        if not self.hint_level <= self.hint_max_level <= last:
            raise ConfigError(
                f"exploration: hint_max_level is {self.hint_max_level}; attempts climb from hint_level "
                f"{self.hint_level} up to it, so give {self.hint_level} to {last}, or leave it out."
            )
        if self.attempts < len(self.levels):
            raise ConfigError(
                f"exploration: {_field('attempts')} is {self.attempts}, too few for the {len(self.levels)} levels from "
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
        return tuple(self.levels[i * len(self.levels) // self.attempts] for i in range(self.attempts))

    @property
    def hint_calls_per_level(self) -> int:
        """How often hints of one level are asked for, the same on every process."""
        if self.mode != "hint":
            return 0
        return 1 + (self.hint_retries if self.leak_policy == "ask_again" else 0)

    @property
    def hint_calls(self) -> int:
        """How often one exploration asks for hints, the same on every process."""
        return self.hint_calls_per_level * len(self.levels)

    def check_group_size(self, num_generations: int) -> None:
        """Refuse to replace more rollouts than a group has.

        Args:
            num_generations: G, rollouts per group.

        Raises:
            ConfigError: `num_injected` is greater than G.
        """
        if self.mode != "none" and self.num_injected > num_generations:
            raise ConfigError(
                f"exploration: num_injected is {self.num_injected} but a group has only {num_generations} rollouts "
                f"(num_generations). Set num_injected to at most {num_generations}, or generate larger groups."
            )


def _field(name: str) -> str:
    return f"{name} (in a recipe: {_IN_A_RECIPE[name]})" if name in _IN_A_RECIPE else name


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"exploration: {_field(name)} is {value!r}; use one of {', '.join(allowed)}.")


def _whole(name: str, value: int, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ConfigError(f"exploration: {_field(name)} is {value!r}; give a whole number of at least {at_least}.")
