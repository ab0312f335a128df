"""What one batch of rollouts carries from its generation to its loss.

A round lives from the moment TRL asks for rollouts until its batch is handed to the loss; it belongs to one process.
B rollouts of this process, G rollouts per group, F reward functions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from kepo.teachers.base import PendingScores, ScoreRequest
from kepo.types import KeptSample, Prompt, Rescue


@dataclass(frozen=True)
class EarlyScores:
    """Scores that are under way.

    Attributes:
        rows: Rows of this process that they belong to.
        requests: What was asked, one per row.
        pending: The answers, one per row.
    """

    rows: Sequence[int]
    requests: Sequence[ScoreRequest]
    pending: PendingScores


@dataclass
class Round:
    """State of one batch of rollouts on this process.

    Attributes:
        rows: (B) data set rows, each repeated G times.
        prompts: (B) original prompts with their images, as the policy and the teacher see them.
        completions: (B) final completions in TRL's form, injected ones included.
        rewards: (B, F) rewards of the final completions, unweighted; NaN where a function does not apply.
        correctness: (W * B) the reward that says what is correct, of all processes' rollouts before exploration.
        early: What a teacher elsewhere was asked before exploration.
        dead: (B) whether the row's group failed as a whole before exploration.
        injected: row -> the kept sample that replaced its rollout.
        rescues: row -> what exploration did for its group.
        behaviour_logps: row -> log-probabilities of an injected completion under its hinted prompt.
        seconds: Phase -> seconds spent.
    """

    rows: Sequence[Mapping[str, Any]]
    prompts: list[Prompt] = field(default_factory=list)
    completions: list[Any] = field(default_factory=list)
    rewards: torch.Tensor | None = None
    correctness: torch.Tensor | None = None
    early: EarlyScores | None = None
    dead: list[bool] = field(default_factory=list)
    injected: dict[int, KeptSample] = field(default_factory=dict)
    rescues: dict[int, Rescue] = field(default_factory=dict)
    behaviour_logps: dict[int, Sequence[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Add the seconds spent inside to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

    def injected_mask(self, device: torch.device) -> torch.Tensor:
        """(B,) True for injected rows."""
        mask = torch.zeros(len(self.rows), dtype=torch.bool)
        mask[list(self.injected)] = True
        return mask.to(device)
