"""Rejection sampling with one budget per group: what a group still needs, which samples are kept, which slots they get.

It knows nothing of other groups, so a group that fails cannot cost another one its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kepo.exploration.budget import Belief, attempt_size
from kepo.exploration.settings import ExplorationSettings
from kepo.types import Group, Hint, KeptSample, Outcomes, Prompt, Rescue, Sample


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the exploration of one group is."""

    target: int  # samples after which the group stops: K, or less where fewer rollouts failed
    group_size: int  # G
    prompt: Prompt | None  # what it samples under next; None when it cannot sample (no usable hint yet)
    hint: Hint | None = None  # the hint in `prompt`
    kept: tuple[KeptSample, ...] = ()  # correct samples, all different, at most `target`
    repeats: tuple[KeptSample, ...] = ()  # correct samples whose tokens equal those of a kept one
    attempts: int = 0  # those it took part in
    sampled_tokens: int = 0
    finished_samples: int = 0
    truncated_samples: int = 0
    outcomes: Mapping[int | None, Outcomes] = field(default_factory=dict)  # as in `Rescue`
    hints: tuple[Hint, ...] = ()  # those at hand, in order
    levels_asked: int = 0  # at how many levels they were asked for
    unneeded_hints: int = 0  # as in `Rescue`

    @property
    def level(self) -> int | None:
        """Of the hint that it samples under."""
        return None if self.hint is None else self.hint.level

    @property
    def pending(self) -> bool:
        """Whether the group still misses samples."""
        return len(self.kept) < self.target

    def given(self, hints: Sequence[Hint]) -> Progress:
        """The progress with the hints of one more level, which are not looked at where no sample is missing by now."""
        if not self.pending:
            return replace(self, unneeded_hints=self.unneeded_hints + 1)
        return replace(self, hints=(*self.hints, *hints), levels_asked=self.levels_asked + 1)

    def under(self, prompt: Prompt, hint: Hint | None) -> Progress:
        """The same progress, sampling under `prompt` (which holds `hint`) from now on."""
        return replace(self, prompt=prompt, hint=hint)

    def next_samples(
        self, settings: ExplorationSettings, belief_at: Callable[[int | None], Belief] = lambda level: Belief()
    ) -> int:
        """Completions to sample in the next attempt: 0 once the group has enough, or cannot sample.

        `belief_at` says what was known of the group at a level of hints before it was sampled.
        """
        missing = self.target - len(self.kept)
        if self.prompt is None or missing <= 0:
            return 0
        if settings.exploration_samples_per_attempt is not None:
            return settings.exploration_samples_per_attempt
        if not settings.adapts:
            return missing
        return attempt_size(
            missing,
            belief_at(self.level).after(self.outcomes.get(self.level, Outcomes())),
            surplus=settings.exploration_surplus,
            max_cost=settings.exploration_max_cost,
            most=min(self.group_size, self.target * settings.exploration_max_cost - self.samples),
        )

    @property
    def samples(self) -> int:
        """How many it had in all attempts."""
        return self.finished_samples + self.truncated_samples

    def after(self, attempt: int, samples: Sequence[Sample], correct: Sequence[bool]) -> Progress:
        """The progress after one attempt (counted from 1): finished correct samples are kept up to `target`.

        A sample that was cut off is never kept: it may be masked out of the loss, and what it would have gone on to say
        is not known. A sample whose tokens were kept before is put aside, and the group goes on looking for a different
        one. A group without `samples` did not take part.
        """
        if not samples or self.prompt is None:
            return self
        kept, repeats = list(self.kept), list(self.repeats)
        known = {k.sample.completion_ids for k in kept}
        for sample, flag in zip(samples, correct, strict=True):
            if not (flag and sample.finished) or len(kept) >= self.target:
                continue
            found = KeptSample(sample=sample, hint=self.hint, attempt=attempt, prompt=self.prompt)
            (repeats if sample.completion_ids in known else kept).append(found)
            known.add(sample.completion_ids)
        finished = sum(sample.finished for sample in samples)
        return replace(
            self,
            kept=tuple(kept),
            repeats=tuple(repeats),
            attempts=self.attempts + 1,
            sampled_tokens=self.sampled_tokens + sum(sample.sampled_tokens for sample in samples),
            finished_samples=self.finished_samples + finished,
            truncated_samples=self.truncated_samples + len(samples) - finished,
            outcomes={**self.outcomes, self.level: self._outcomes_with(samples, correct)},
        )

    def _outcomes_with(self, samples: Sequence[Sample], correct: Sequence[bool]) -> Outcomes:
        """The outcomes of its level, these samples included."""
        before = self.outcomes.get(self.level, Outcomes())
        found = sum(flag and sample.finished for sample, flag in zip(samples, correct, strict=True))
        return Outcomes(before.correct + found, before.samples + len(samples))

    def rescue(self, group: Group) -> Rescue:
        """The record of what happened: repeats fill up what no different sample was found for."""
        kept = (*self.kept, *self.repeats)[: self.target]
        return Rescue(
            key=group.key,
            kept=kept,
            slots=choose_slots(group.correct, len(kept)),
            attempts=self.attempts,
            sampled_tokens=self.sampled_tokens,
            truncated_samples=self.truncated_samples,
            outcomes=self.outcomes,
            unneeded_hints=self.unneeded_hints,
            hints=self.hints,
            leaked_hints=sum(bool(hint.leaks) for hint in self.hints),
            levels_asked=self.levels_asked,
            failure=None if kept else self._failure(),
        )

    def _failure(self) -> str:
        if self.target <= 0:
            return "no failed rollout"
        if self.prompt is None:
            return "no hint"
        return "no finished sample" if self.truncated_samples and not self.finished_samples else "no correct sample"


def choose_slots(correct: Sequence[bool], count: int) -> tuple[int, ...]:
    """The slots of a group that `count` kept samples replace: failed rollouts only, lowest first, each at most once.

    Args:
        correct: One flag per rollout (length G).
        count: Kept samples, >= 0.

    Returns:
        Distinct indices 0..G-1, fewer than `count` where fewer rollouts failed.
    """
    failed = [slot for slot, flag in enumerate(correct) if not flag]
    return tuple(failed[: max(count, 0)])
