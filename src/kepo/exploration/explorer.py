"""The exploration of a batch of groups: which ones, then hint, sample again, keep what is verified, choose the slots.

Generation and hint writing are collective in distributed training: every process must call them equally often, or the
others wait for ever. So the numbers of calls depend on the settings alone, never on what was found:

- `sample` is called `settings.exploration_attempts` times,
- `hint_writer.write_hints` is called `settings.hint_calls_per_level` times per level: once, or 1 + `hint_retries` times
  when the policy asks again, and never with exploration "resample",

with an empty list where this process has nothing to ask. A group stops early, the loop never does.

Attempts climb through the levels of hints, weakest first. Hints of a level are asked for when the first attempt of that
level begins, only for groups that still miss samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from kepo.errors import ConfigError
from kepo.exploration.hints import HintSource, check_length, teacher_hints
from kepo.exploration.rejection import Progress
from kepo.exploration.settings import ExplorationSettings
from kepo.prompts import hinted_prompt
from kepo.teachers.base import HintWriter
from kepo.types import Group, Hint, Prompt, Rescue, Sample

Sampler: TypeAlias = Callable[[Sequence[Prompt]], list[Sample]]
"""One completion of the current policy per prompt. Collective: called equally often by every process, also with []."""

Verifier: TypeAlias = Callable[[Sequence[Group], Sequence[Sample]], list[bool]]
"""Whether finished samples are correct, one flag each; groups are parallel to samples. Local, never called with []."""


def needs_exploration(group: Group, settings: ExplorationSettings) -> bool:
    """Whether `group` is to be explored under `settings`; never a group without a failed rollout to replace.

    With the trigger "all_failed" a group needs it when no rollout is correct, whatever its other rewards: this is the
    learning cliff, where the correctness reward has no variance. The mean of "mean_below" leaves out rewards that are
    NaN (a reward function that does not apply).

    Args:
        group: The rollouts of one prompt.
        settings: `exploration`, `exploration_trigger` and its bound count.
    """
    if settings.exploration == "none" or all(group.correct):
        return False
    if settings.exploration_trigger == "all_failed":
        return not any(group.correct)
    if settings.exploration_trigger == "mean_below":
        known = [reward for reward in group.rewards if not math.isnan(reward)]
        return bool(known) and sum(known) / len(known) < settings.exploration_trigger_mean
    return True


def hint_of_attempt(hints: Sequence[Hint], attempt_levels: Sequence[int], attempt: int) -> Hint | None:
    """The hint of one attempt (counted from 1), or None while there is no usable hint at its level or below.

    The highest level up to the attempt's own that has a usable hint (one with a text) is taken. The hints of a level
    are used in turn: attempt j (from 0, counted from the level's first attempt) uses hint j mod M of its M hints.
    """
    for level in sorted(set(attempt_levels[:attempt]), reverse=True):
        usable = [hint for hint in hints if hint.text and hint.level == level]
        if usable:
            return usable[(attempt - 1 - attempt_levels.index(level)) % len(usable)]
    return None


class Explorer:
    """Explores groups under one set of settings; holds no state between calls.

    Args:
        settings: What to do; `exploration` may not be "none".
        hint_writer: The teacher, or None with exploration "resample".
        hint_source: Gives the hints in place of `hint_writer`, see `kepo.exploration.banked.banked_hints`.

    Raises:
        ConfigError: `exploration` is "none", or "hint" without anybody who gives hints.
    """

    def __init__(
        self,
        settings: ExplorationSettings,
        hint_writer: HintWriter | None = None,
        *,
        hint_source: HintSource | None = None,
    ) -> None:
        if settings.exploration == "none":
            raise ConfigError("exploration is 'none', so there is nothing to explore; make no Explorer for it.")
        if hint_source is None and hint_writer is not None:
            hint_source = teacher_hints(hint_writer, settings)
        if settings.exploration == "hint" and hint_source is None:
            raise ConfigError(
                "exploration is 'hint' but nobody writes hints. Pass a teacher, or use exploration 'resample'."
            )
        self.settings = settings
        self._hint_source = hint_source if settings.exploration == "hint" else None

    def explore(self, groups: Sequence[Group], sample: Sampler, verify: Verifier) -> list[Rescue]:
        """Explore `groups`, which the trigger chose, in one shared `sample` call per attempt.

        Collective: all processes call it together, each with its own groups or none (see the top of this module).

        Returns:
            One rescue per group, in order.

        Raises:
            KepoError: The hint writer, the sampler or the verifier returned a list of the wrong length.
        """
        hints: list[list[Hint]] = [[] for _ in groups]
        levels_asked = [0] * len(groups)
        progress = [
            Progress(
                target=min(self.settings.num_injected, sum(not flag for flag in group.correct)),
                prompt=group.prompt if self._hint_source is None else None,
            )
            for group in groups
        ]
        attempt_levels = self.settings.attempt_levels
        for attempt, level in enumerate(attempt_levels, start=1):
            if self._hint_source is not None and attempt - 1 == attempt_levels.index(level):
                places = [place for place, p in enumerate(progress) if p.pending]
                answers = self._hint_source([groups[place] for place in places], level)
                for place, answer in zip(places, answers, strict=True):
                    hints[place] += answer
                    levels_asked[place] += 1
            progress = [self._prepared(p, g, h, attempt) for p, g, h in zip(progress, groups, hints, strict=True)]
            progress = self._attempt(attempt, groups, progress, sample, verify)
        facts = zip(progress, groups, hints, levels_asked, strict=True)
        return [p.rescue(group, tuple(tried), levels) for p, group, tried, levels in facts]

    def _prepared(self, progress: Progress, group: Group, hints: Sequence[Hint], attempt: int) -> Progress:
        """The progress with the hint of this attempt in its prompt; a group without one waits."""
        hint = hint_of_attempt(hints, self.settings.attempt_levels, attempt)
        return progress if hint is None else progress.under(hinted_prompt(group.prompt, hint.text), hint)

    def _attempt(
        self,
        attempt: int,
        groups: Sequence[Group],
        progress: Sequence[Progress],
        sample: Sampler,
        verify: Verifier,
    ) -> list[Progress]:
        """One attempt of all groups that still ask, in one call each of `sample` and `verify`."""
        counts = [p.next_samples(self.settings.exploration_samples_per_attempt) for p in progress]
        owners = [place for place, count in enumerate(counts) for _ in range(count)]
        prompts = [prompt for place in owners if (prompt := progress[place].prompt) is not None]
        samples = sample(prompts)
        check_length("sampler", samples, prompts)
        correct = self._verified([groups[place] for place in owners], samples, verify)
        ends = [sum(counts[: place + 1]) for place in range(len(counts))]
        shares = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        return [p.after(attempt, samples[s], correct[s]) for p, s in zip(progress, shares, strict=True)]

    def _verified(self, groups: Sequence[Group], samples: Sequence[Sample], verify: Verifier) -> list[bool]:
        """Whether each sample is correct and finished; only finished ones are verified."""
        finished = [place for place, sample in enumerate(samples) if sample.finished]
        chosen = [samples[place] for place in finished]
        verdicts = verify([groups[place] for place in finished], chosen) if chosen else []
        check_length("verifier", verdicts, finished)
        correct = {place for place, verdict in zip(finished, verdicts, strict=True) if verdict}
        return [place in correct for place in range(len(samples))]
