"""The exploration of a batch of groups: hint, sample again, keep what is verified, choose the slots.

Generation and hint writing are collective in distributed training: every process must call them equally often, or the
others wait for ever. So the numbers of calls depend on the settings alone, never on what was found:

- `sample` is called `settings.attempts` times,
- `hint_writer.write_hints` is called `settings.hint_calls` times: 1, or 1 + `hint_retries` when the policy asks again,
  and 0 in the mode "resample",

with an empty list where this process has nothing to ask. A group stops early, the loop never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kepo.errors import ConfigError, KepoError
from kepo.exploration.hints import HintSource, teacher_hints
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
        settings: What to do; the mode may not be "none".
        hint_writer: The teacher, or None in the mode "resample".

    Raises:
        ConfigError: The mode is "none", or "hint" without a hint writer.
    """

    def __init__(self, settings: ExplorationSettings, hint_writer: HintWriter | None = None) -> None:
        if settings.mode == "none":
            raise ConfigError("exploration: mode is 'none', so there is nothing to explore; make no Explorer for it.")
        if settings.mode == "hint" and hint_writer is None:
            raise ConfigError(
                "exploration: mode is 'hint' but nobody writes hints. Pass a teacher, or use mode 'resample'."
            )
        self.settings = settings
        self._hint_source: HintSource | None = None
        if settings.mode == "hint" and hint_writer is not None:
            self._hint_source = teacher_hints(hint_writer, settings)

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
        hints = self._hints(groups)
        progress = [self._begin(group, tried) for group, tried in zip(groups, hints, strict=True)]
        for attempt in range(1, self.settings.attempts + 1):
            progress = self._attempt(attempt, groups, progress, sample, verify)
        return [p.rescue(group, tried) for p, group, tried in zip(progress, groups, hints, strict=True)]

    def _hints(self, groups: Sequence[Group]) -> list[tuple[Hint, ...]]:
        """The hints tried for each group; nothing is asked for a group that has no rollout to replace."""
        if self._hint_source is None:
            return [() for _ in groups]
        places = [place for place, group in enumerate(groups) if not all(group.correct)]
        answers = self._hint_source([groups[place] for place in places])
        by_place = dict(zip(places, answers, strict=True))
        return [by_place.get(place, ()) for place in range(len(groups))]

    def _begin(self, group: Group, hints: tuple[Hint, ...]) -> Progress:
        wanted = min(self.settings.num_injected, sum(not flag for flag in group.correct))
        if self._hint_source is None:
            return Progress(wanted, prompt=group.prompt)
        hint = next((hint for hint in hints if hint.text), None)
        prompt = None if hint is None else hinted_prompt(group.prompt, hint.text)
        return Progress(wanted, prompt=prompt, hint=hint)

    def _attempt(
        self,
        attempt: int,
        groups: Sequence[Group],
        progress: Sequence[Progress],
        sample: Sampler,
        verify: Verifier,
    ) -> list[Progress]:
        """One attempt of all groups that still ask, in one call each of `sample` and `verify`."""
        counts = [p.next_samples(self.settings.samples_per_attempt) for p in progress]
        owners = [place for place, count in enumerate(counts) for _ in range(count)]
        prompts = [prompt for p, count in zip(progress, counts, strict=True) for prompt in _repeated(p.prompt, count)]
        samples = sample(prompts)
        _check_length("sampler", samples, prompts)
        correct = verify([groups[place] for place in owners], samples) if samples else []
        _check_length("verifier", correct, samples)
        ends = [sum(counts[: place + 1]) for place in range(len(counts))]
        shares = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        return [p.after(attempt, samples[s], correct[s]) for p, s in zip(progress, shares, strict=True)]


def _repeated(prompt: Prompt | None, count: int) -> list[Prompt]:
    return [] if prompt is None else [prompt] * count


def _check_length(who: str, given: Sequence[object], asked: Sequence[object]) -> None:
    if len(given) != len(asked):
        raise KepoError(f"the {who} returned {len(given)} results for {len(asked)}; it must return one each, in order.")
