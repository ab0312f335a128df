"""The exploration of a batch of groups: which ones, then hint, sample again, keep what is verified, choose the slots.

Generation and hint writing are collective in distributed training: every process must call them equally often, or the
others wait for ever. So the numbers of calls depend on the settings alone, never on what was found:

- `sample` is called `settings.exploration_attempts` times,
- `hint_writer.write_hints` is called `settings.hint_calls_per_level` times per level: once, or 1 + `hint_retries` times
  when the policy asks again, and never with exploration "resample",

with an empty list where this process has nothing to ask. A group stops early, the loop never does.

Attempts climb through the levels of hints, weakest first. Hints of a level are asked for when the first attempt of that
level begins, only for groups that still miss samples. A source of hints that writes elsewhere is asked ahead: about the
first level as soon as the groups are known (`Explorer.begin`), about each further one before the last attempt of the
level below, which is sampled meanwhile. What a group that found its samples in that attempt was to get is not needed
then: at most one request per group. Who is asked about what never depends on how long anything takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from kepo.errors import ConfigError
from kepo.exploration.budget import Belief
from kepo.exploration.hints import HintAnswers, HintSource, TeacherHints, check_length
from kepo.exploration.rejection import Progress
from kepo.exploration.settings import ExplorationSettings
from kepo.prompts import hinted_prompt
from kepo.teachers.base import HintWriter
from kepo.types import Group, Hint, Prompt, Rescue, Sample

Sampler: TypeAlias = Callable[[Sequence[Prompt]], list[Sample]]
"""One completion of the current policy per prompt. Collective: called equally often by every process, also with []."""

Verifier: TypeAlias = Callable[[Sequence[Group], Sequence[Sample]], list[bool]]
"""Whether finished samples are correct, one flag each; groups are parallel to samples. Local, never called with []."""


Beliefs: TypeAlias = Callable[[Group, int | None], Belief]
"""What is known of a group's samples at a level of hints (None: without a hint) before it is explored."""


def nothing_known(group: Group, level: int | None) -> Belief:
    """The `Beliefs` of a run without a history."""
    return Belief()


@dataclass(frozen=True)
class AskedHints:
    """Hints of one level that were asked for."""

    places: Sequence[int]  # index of each group
    answers: HintAnswers


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


def _with_hints(progress: Sequence[Progress], asked: AskedHints) -> list[Progress]:
    """The progress of all groups once the hints that some were asked for are there."""
    answers = dict(zip(asked.places, asked.answers(), strict=True))
    return [p.given(answers[place]) if place in answers else p for place, p in enumerate(progress)]


class Explorer:
    """Explores groups under one set of settings; holds no state between calls.

    Args:
        settings: What to do; `exploration` may not be "none".
        hint_writer: The teacher, or None with exploration "resample".
        hint_source: Gives the hints in place of `hint_writer`, see `kepo.exploration.banked.BankedHints`.

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
            hint_source = TeacherHints(hint_writer, settings)
        if settings.exploration == "hint" and hint_source is None:
            raise ConfigError(
                "exploration is 'hint' but nobody writes hints. Pass a teacher, or use exploration 'resample'."
            )
        self.settings = settings
        self._hint_source = hint_source if settings.exploration == "hint" else None

    @property
    def asks_ahead(self) -> bool:
        """Whether hints are asked for before they are needed."""
        return self._hint_source is not None and self._hint_source.early

    def begin(self, groups: Sequence[Group]) -> AskedHints | None:
        """Have the first hints of `groups` written, where that goes on beside other work; for `explore`. Collective."""
        if not self.asks_ahead:
            return None
        return self._ask(groups, self._started(groups), self.settings.attempt_levels[0])

    def explore(
        self,
        groups: Sequence[Group],
        sample: Sampler,
        verify: Verifier,
        *,
        beliefs: Beliefs = nothing_known,
        begun: AskedHints | None = None,
    ) -> list[Rescue]:
        """Explore `groups`, which the trigger chose, in one shared `sample` call per attempt.

        Collective: all processes call it together, each with its own groups or none (see the top of this module).

        Args:
            groups: To explore.
            sample: Samples completions.
            verify: Says which are correct.
            beliefs: What is known of the groups: decides how many samples an attempt takes.
            begun: What `begin` returned for these groups.

        Returns:
            One rescue per group, in order.

        Raises:
            KepoError: The hint writer, the sampler or the verifier returned a list of the wrong length.
        """
        progress = self._started(groups)
        levels = self.settings.attempt_levels
        asked = begun
        for attempt, level in enumerate(levels, start=1):
            if self._hint_source is not None and attempt - 1 == levels.index(level):
                progress = _with_hints(progress, asked or self._ask(groups, progress, level))
                asked = None
            if self.asks_ahead and attempt < len(levels) and levels[attempt] != level:
                asked = self._ask(groups, progress, levels[attempt])
            progress = [self._prepared(p, group, attempt) for p, group in zip(progress, groups, strict=True)]
            progress = self._attempt(attempt, groups, progress, sample, verify, beliefs)
        return [p.rescue(group) for p, group in zip(progress, groups, strict=True)]

    def _started(self, groups: Sequence[Group]) -> list[Progress]:
        return [
            Progress(
                group_size=len(group.correct),
                target=min(self.settings.num_injected, sum(not flag for flag in group.correct)),
                prompt=group.prompt if self._hint_source is None else None,
            )
            for group in groups
        ]

    def _ask(self, groups: Sequence[Group], progress: Sequence[Progress], level: int) -> AskedHints:
        """Ask for the hints of the groups that miss samples."""
        assert self._hint_source is not None
        places = [place for place, p in enumerate(progress) if p.pending]
        return AskedHints(places, self._hint_source.begin([groups[place] for place in places], level))

    def _prepared(self, progress: Progress, group: Group, attempt: int) -> Progress:
        """The progress with the hint of this attempt in its prompt; a group without one waits."""
        hint = hint_of_attempt(progress.hints, self.settings.attempt_levels, attempt)
        return progress if hint is None else progress.under(hinted_prompt(group.prompt, hint.text), hint)

    def _attempt(
        self,
        attempt: int,
        groups: Sequence[Group],
        progress: Sequence[Progress],
        sample: Sampler,
        verify: Verifier,
        beliefs: Beliefs,
    ) -> list[Progress]:
        """One attempt of all groups that still ask, in one call each of `sample` and `verify`."""
        counts = [
            p.next_samples(self.settings, partial(beliefs, group)) for p, group in zip(progress, groups, strict=True)
        ]
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
