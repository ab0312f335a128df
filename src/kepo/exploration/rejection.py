"""Rejection sampling with one budget per group: what a group still needs, and which of its samples are kept.

It knows nothing of other groups, so a group that fails cannot cost another one its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kepo.exploration.injection import choose_slots
from kepo.types import Group, Hint, KeptSample, Prompt, Rescue, Sample


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the exploration of one group is.

    Attributes:
        wanted: Samples after which the group stops asking: K, or less where fewer rollouts failed.
        prompt: What it samples under in the next attempt; None when it cannot sample (no usable hint yet).
        hint: The hint in `prompt`; None without one.
        kept: Correct samples so far, all different, at most `wanted`.
        repeats: Correct samples whose tokens equal those of a kept one.
        attempts: Attempts it took part in.
        sampled_tokens: Completion tokens sampled for it.
    """

    wanted: int
    prompt: Prompt | None
    hint: Hint | None = None
    kept: tuple[KeptSample, ...] = ()
    repeats: tuple[KeptSample, ...] = ()
    attempts: int = 0
    sampled_tokens: int = 0

    @property
    def pending(self) -> bool:
        """Whether the group still misses samples."""
        return len(self.kept) < self.wanted

    def under(self, prompt: Prompt, hint: Hint | None) -> Progress:
        """The same progress, sampling under `prompt` (which holds `hint`) from now on."""
        return replace(self, prompt=prompt, hint=hint)

    def next_samples(self, samples_per_attempt: int | None) -> int:
        """Completions to sample in the next attempt: 0 once the group has enough, or cannot sample."""
        missing = self.wanted - len(self.kept)
        if self.prompt is None or missing <= 0:
            return 0
        return missing if samples_per_attempt is None else samples_per_attempt

    def after(self, attempt: int, samples: Sequence[Sample], correct: Sequence[bool]) -> Progress:
        """The progress after one attempt (1 for the first): correct samples are kept up to `wanted`.

        A sample whose tokens were kept before is put aside, and the group goes on looking for a different one.

        Args:
            attempt: Number of the attempt, counted from 1.
            samples: What was sampled for this group, none if it did not take part.
            correct: One flag per sample.
        """
        if not samples or self.prompt is None:
            return self
        kept, repeats = list(self.kept), list(self.repeats)
        known = {k.sample.completion_ids for k in kept}
        for sample, flag in zip(samples, correct, strict=True):
            if not flag or len(kept) >= self.wanted:
                continue
            found = KeptSample(sample=sample, hint=self.hint, attempt=attempt, prompt=self.prompt)
            (repeats if sample.completion_ids in known else kept).append(found)
            known.add(sample.completion_ids)
        return replace(
            self,
            kept=tuple(kept),
            repeats=tuple(repeats),
            attempts=self.attempts + 1,
            sampled_tokens=self.sampled_tokens + sum(len(sample.completion_ids) for sample in samples),
        )

    def rescue(self, group: Group, hints: tuple[Hint, ...] = (), levels_asked: int = 0) -> Rescue:
        """The record of what happened: repeats fill up what no different sample was found for.

        Args:
            group: The group this is the progress of.
            hints: Every hint that was tried for it.
            levels_asked: Levels at which hints were asked for.
        """
        kept = (*self.kept, *self.repeats)[: self.wanted]
        return Rescue(
            key=group.key,
            kept=kept,
            slots=choose_slots(group.correct, len(kept)),
            attempts=self.attempts,
            sampled_tokens=self.sampled_tokens,
            hints=hints,
            leaked_hints=sum(bool(hint.leaks) for hint in hints),
            levels_asked=levels_asked,
            failure=None if kept else self._failure(),
        )

    def _failure(self) -> str:
        if self.wanted <= 0:
            return "no failed rollout"
        return "no hint" if self.prompt is None else "no correct sample"
