"""The exploration of a batch of groups: hint, sample again, keep what is verified, choose the slots.

Generation and hint writing are collective in distributed training: every process must call them equally often, or the
others wait for ever. So the numbers of calls depend on the settings alone, never on what was found:

- `sample` is called `settings.exploration_attempts` times,
- `hint_writer.write_hints` is called `settings.hint_calls` times: per level once, or 1 + `hint_retries` times when the
  policy asks again, and never with exploration "resample",

with an empty list where this process has nothing to ask. A group stops early, the loop never does.

Attempts climb through the levels of hints, weakest first. Hints of a level are asked for when the first attempt of that
level begins, only for groups that still miss samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from kepo.errors import ConfigError
from kepo.exploration.hints import HintSource, check_length, teacher_hints
from kepo.exploration.levels import hint_of_attempt
from kepo.exploration.rejection import Progress
from kepo.exploration.settings import ExplorationSettings
from kepo.prompts import hinted_prompt
from kepo.teachers.base import HintWriter
from kepo.types import Group, Hint, Prompt, Rescue, Sample


class Sampler(Protocol):
    """Samples from the current policy. Collective: called equally often by every process, also with an empty list."""

    def __call__(self, prompts: Sequence[Prompt], /) -> list[Sample]:
        """One completion per prompt, in order."""
        ...


class Verifier(Protocol):
    """Says which samples answer correctly. Local to a process, called only when there are samples."""

    def __call__(self, groups: Sequence[Group], samples: Sequence[Sample], /) -> list[bool]:
        """One flag per sample; `groups` is parallel to `samples`, a group repeated for each of its samples."""
        ...


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

        Args:
            groups: The P groups of this process.
            sample: Samples one completion per prompt.
            verify: Says which samples are correct.

        Returns:
            P rescues, in the order of `groups`.

        Raises:
            KepoError: The hint writer, the sampler or the verifier returned a list of the wrong length.
        """
        hints: list[list[Hint]] = [[] for _ in groups]
        asked = [0] * len(groups)  # levels, per group
        progress = [self._begin(group) for group in groups]
        for attempt, (before, level) in enumerate(pairwise((None, *self.settings.attempt_levels)), start=1):
            if self._hint_source is not None and level != before:
                places = [place for place, p in enumerate(progress) if p.pending]
                answers = self._hint_source([groups[place] for place in places], level)
                for place, answer in zip(places, answers, strict=True):
                    hints[place] += answer
                    asked[place] += 1
            progress = [self._prepared(p, g, h, attempt) for p, g, h in zip(progress, groups, hints, strict=True)]
            progress = self._attempt(attempt, groups, progress, sample, verify)
        facts = zip(progress, groups, hints, asked, strict=True)
        return [p.rescue(group, tuple(tried), levels) for p, group, tried, levels in facts]

    def _begin(self, group: Group) -> Progress:
        wanted = min(self.settings.num_injected, sum(not flag for flag in group.correct))
        return Progress(wanted, prompt=group.prompt if self._hint_source is None else None)

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
        prompts = [prompt for p, count in zip(progress, counts, strict=True) for prompt in _repeated(p.prompt, count)]
        samples = sample(prompts)
        check_length("sampler", samples, prompts)
        correct = verify([groups[place] for place in owners], samples) if samples else []
        check_length("verifier", correct, samples)
        ends = [sum(counts[: place + 1]) for place in range(len(counts))]
        shares = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        return [p.after(attempt, samples[s], correct[s]) for p, s in zip(progress, shares, strict=True)]


def _repeated(prompt: Prompt | None, count: int) -> list[Prompt]:
    return [] if prompt is None else [prompt] * count
