"""What one generation batch carries from its rollouts to its loss.

It lives from the moment TRL asks for rollouts until TRL's batch is handed to the loss, and belongs to one process.
B rollouts of this process, W processes, G rollouts per group, F reward functions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from kepo.prompts import prompt_images
from kepo.teachers.base import PendingScores, ScoreRequest
from kepo.trainer.config import KEPOConfig
from kepo.types import KeptSample, Prompt, Rescue, Sample


class Rollouts(NamedTuple):
    """TRL's rollouts of this process, as TRL returns them: lists of length B, which may be changed in place."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    tool_mask: list[list[int]] | None
    completions: list[Any]
    logprobs: list[list[float | None]] | None
    extra_fields: dict[str, Any]
    images: list[Any] | None  # of prompt and tools; None: TRL takes those of the prompts
    tool_images: list[Any]  # those of tools alone; empty without tools

    def replace(self, row: int, sample: Sample, prompt: Prompt) -> None:
        """Put a completion that was not sampled under the row's prompt in the place of its rollout.

        What belonged to the rollout goes with it. Fields that a `rollout_func` returned beside its tokens, a reward of
        its environment say, are None: nothing is known of them for this completion.
        """
        self.completion_ids[row] = list(sample.completion_ids)
        self.completions[row] = completion_of(prompt, sample)
        if self.logprobs is not None:
            # TRL corrects for the gap between sampler and policy by these. They belong to another prompt, under which
            # the ratio would be near 0 and the row silently erased; None means "no correction" there.
            self.logprobs[row] = [None] * len(sample.completion_ids)
        if self.tool_mask is not None:
            mask = [1] * len(sample.completion_ids) if sample.tool_mask is None else sample.tool_mask
            self.tool_mask[row] = list(mask)
        if self.tool_images and self.images is not None:
            self.images[row] = [*prompt_images(prompt), *sample.images] or None
            self.tool_images[row] = list(sample.images)
        for values in self.extra_fields.values():
            if isinstance(values, list) and row < len(values):
                values[row] = None


class Completions(NamedTuple):
    """What reward functions are called with: lists of one length, `completions` in TRL's form."""

    rows: Sequence[Mapping[str, Any]]
    prompts: Sequence[Prompt]
    completions: Sequence[Any]
    completion_ids: Sequence[Sequence[int]]

    def select(self, rows: Sequence[int]) -> Completions:
        """Those of the given rows."""
        made = [(self.rows[row], self.prompts[row], self.completions[row], self.completion_ids[row]) for row in rows]
        return Completions(*zip(*made, strict=True))


@dataclass(frozen=True)
class RowReward:
    """What a reward function gave for one completion (NaN: it does not apply), and what it logged for it, by column."""

    value: float
    logged: Mapping[str, Any] = field(default_factory=dict)


class EarlyScores(NamedTuple):
    """Scores that are under way: what was asked, by row of this process, and the answers in the same order."""

    requests: Mapping[int, ScoreRequest]
    pending: PendingScores


@dataclass
class GenerationBatch:
    """State of one generation batch on this process."""

    rows: Sequence[Mapping[str, Any]]  # (B) data set rows, each repeated G times
    first_row: int = 0  # index of the first of them in the global batch of W * B rows
    prompts: list[Prompt] = field(default_factory=list)  # (B) as the policy and the teacher see them
    completions: list[Any] = field(default_factory=list)  # (B) final completions, injected ones included
    tool_images: list[Any] = field(default_factory=list)  # (B) lists of images that tools returned; empty without tools
    rewards: torch.Tensor | None = None  # (B, F) of the final completions, unweighted; NaN: does not apply
    total: torch.Tensor | None = None  # (B,) their weighted sum
    equal: torch.Tensor | None = None  # (B,) bool, all rewards of the row's group are known and equal
    correctness_rewards: list[RowReward] = field(default_factory=list)  # (B) of the completions, for exploration
    correctness: torch.Tensor | None = None  # (W * B) of all processes' rollouts before exploration
    early: list[EarlyScores] = field(default_factory=list)  # what an asynchronous teacher was asked ahead; no row twice
    all_failed: list[bool] = field(default_factory=list)  # (B) no rollout of the row's group was correct
    injected: dict[int, KeptSample] = field(default_factory=dict)  # row -> what replaced its rollout
    rescues: dict[int, Rescue] = field(default_factory=dict)  # row -> what exploration did for its group
    explored: list[tuple[int, Rescue]] = field(default_factory=list)  # of all processes: group of the global batch, ...
    hinted_logps: dict[int, Sequence[float]] = field(
        default_factory=dict
    )  # injected row -> nats under its hinted prompt

    @property
    def local(self) -> slice:
        """This process's rows in the global batch."""
        return slice(self.first_row, self.first_row + len(self.rows))

    def injected_mask(self, device: torch.device) -> torch.Tensor:
        """(B,) True for injected rows."""
        mask = torch.zeros(len(self.rows), dtype=torch.bool)
        mask[list(self.injected)] = True
        return mask.to(device)


def put_references(
    batch: GenerationBatch,
    rollouts: Rollouts,
    args: KEPOConfig,
    step: int,
    as_sample: Callable[[Prompt, Sequence[int], str], Sample],
) -> dict[str, float]:
    """Replace, in place, the rollouts of some groups by the data's own completions (column `reference`).

    This is lambda of GKD (arXiv 2306.13649, algorithm 1). GKD draws for a batch; here every group is drawn for itself,
    so that a small batch has both. No communication is needed. A reference that is longer than a rollout may be would
    teach to stop in the middle, or be masked, so its group keeps its rollouts.

    Args:
        batch: With its prompts.
        rollouts: Changed.
        args: Of the run.
        step: Finished optimizer steps.
        as_sample: From a prompt, its token ids and a reference to the completion that it is.

    Returns:
        Metrics, to be summed over processes: rows that were replaced, and rows whose reference is too long.
    """
    replaced = truncated = 0
    for row, data in enumerate(batch.rows):
        group = (batch.first_row + row) // args.num_generations
        if random.Random(f"{args.seed}/{step}/{group}").random() >= args.lmbda:
            reference = as_sample(batch.prompts[row], rollouts.prompt_ids[row], data["reference"])
            if reference.finished:
                rollouts.replace(row, reference, batch.prompts[row])
            replaced += reference.finished
            truncated += not reference.finished
    return {"references/rows": replaced, "references/truncated": truncated}


def completion_of(prompt: Prompt, sample: Sample) -> Any:
    """A completion of `prompt` in the form TRL gives to reward functions: messages in a conversation, else the text."""
    if sample.completion is not None or isinstance(prompt, str):
        return sample.text if sample.completion is None else sample.completion
    return [{"role": "assistant", "content": sample.text}]
