"""The teacher's part of a batch: which rows it may see, what it says of them, and the weights of its tokens.

B rollouts of this process, T completion tokens, F reward functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kepo.objective.gate import gate_weights, rows_to_score
from kepo.prompts import hint_request, prompt_images, prompt_text
from kepo.teachers.base import AsynchronousTeacher, ScoreRequest, Scores, Teacher
from kepo.trainer.adapter import TRLAdapter
from kepo.trainer.config import KEPOConfig
from kepo.trainer.generation_batch import EarlyScores, GenerationBatch, Rollouts
from kepo.trainer.phases import TEACHER
from kepo.trainer.processes import FailTogether
from kepo.types import Prompt


class TeachingStep:
    """Turns rewards into gate weights and asks the teacher about the rows that can get weight.

    Args:
        teacher: Scores tokens.
        trainer: Of the run.
        together: Makes the calls of the teacher.
        gate_reward: Index of the reward function that the gate looks at; None: the weighted sum.
        correctness_opens: Whether that is the correctness reward.
    """

    def __init__(
        self,
        teacher: Teacher,
        trainer: TRLAdapter,
        together: FailTogether,
        gate_reward: int | None,
        correctness_opens: bool,
    ) -> None:
        self._teacher = teacher
        self._args: KEPOConfig = trainer.args
        self._processes = trainer.processes
        self._together = together
        self._gate_reward = gate_reward
        self._looks_at_tokens = self._args.gate == "token"
        self._log = trainer.log_metric
        self._phases = trainer.phases
        # Correct rollouts are never replaced, so where correctness opens the gate they can be asked about at once.
        self._opened_by_correctness = self._args.gate == "always" or (
            self._args.gate in ("trajectory", "token") and correctness_opens
        )

    def begin(self, batch: GenerationBatch, rollouts: Rollouts, progress: float) -> None:
        """Let an asynchronous teacher begin with the correct rows, which exploration leaves alone.

        Called after exploration too, for the rows that this made correct; those that were begun are left out.
        """
        if not isinstance(self._teacher, AsynchronousTeacher) or not self._opened_by_correctness:
            return
        begun = {row for early in batch.early for row in early.requests}
        least = self._args.correctness_threshold
        if self._args.gate != "always":
            least = max(least, self._args.gate_threshold_at(progress))
        requests = {
            row: _request(batch, row, rollouts.completion_ids[row], rollouts.prompt_ids[row], self._looks_at_tokens)
            for row, reward in enumerate(batch.correctness_rewards)
            if row not in begun and reward.value >= least
        }
        with self._phases(TEACHER):
            batch.early.append(EarlyScores(requests, self._teacher.start_scoring(list(requests.values()))))

    def run(self, batch: GenerationBatch, output: Mapping[str, Any], progress: float) -> dict[str, Any]:
        """The teacher's keys of a batch: `gate_weights` (B, T), `teacher_scores` (list of B), `gate_total` (0-d).

        Collective. `batch` has the rewards of its final completions, `output` is TRL's batch, `progress` the share of
        training done (0..1).
        """
        gate = self._args.gate
        mask = output["completion_mask"] * output.get("tool_mask", 1)  # (B, T)
        rewards = self._gate_rewards(batch)
        threshold = self._args.gate_threshold_at(progress)
        shown = rows_to_score(gate, rewards, threshold, mask).tolist()
        # What the student's forward pass reads. A tool mask may have holes, a completion has none.
        prompts, completions = _tokens(output, "prompt"), _tokens(output, "completion")
        requests = {
            row: _request(batch, row, completions[row], prompts[row], self._looks_at_tokens)
            for row in range(len(shown))
            if shown[row]
        }
        with self._phases(TEACHER):
            found = self._together(lambda: self._ask(requests, batch.early))
        scores = [found.get(row) for row in range(len(shown))]
        weights = gate_weights(
            gate, rewards, threshold, mask, _token_logps(scores, mask), self._args.gate_min_probability
        )
        # A row that the teacher could not score weighs nothing, as if its gate were closed.
        weights = weights * torch.tensor([[score is not None] for score in scores], device=weights.device)
        share = mask if self._args.distillation_normalization == "all" else weights
        asked = share.new_tensor(sum(len(request.completion_ids) for request in requests.values()))
        local = [share.sum(), weights.sum(), (weights.sum(1) > 0).sum(), mask.sum(), asked]
        totals = self._processes.sum_tensor(torch.stack([value.float() for value in local]))
        _, gated_tokens, gated_rows, tokens, asked_tokens = totals.tolist()
        self._log("gate/open_share", gated_rows / (len(batch.rows) * self._processes.count))
        self._log("gate/token_share", gated_tokens / max(tokens, 1.0))
        self._log("teacher/tokens", asked_tokens)
        return {"gate_weights": weights, "teacher_scores": scores, "gate_total": totals[0], "gate_open": totals[1]}

    def _ask(self, requests: Mapping[int, ScoreRequest], early: Sequence[EarlyScores]) -> dict[int, Scores | None]:
        """The scores of rows, those under way included."""
        begun = {row: request for one in early for row, request in one.requests.items()}
        early_ids = {row: (request.prompt_ids, request.completion_ids) for row, request in begun.items()}
        rest = [
            row
            for row, request in requests.items()
            if early_ids.get(row) != (request.prompt_ids, request.completion_ids)
        ]
        scores = self._teacher.score([requests[row] for row in rest])
        found: dict[int, Scores | None] = {}
        for one in early:
            found |= zip(one.requests, one.pending.result(), strict=True)
        found |= dict(zip(rest, scores, strict=True))
        return {row: found[row] for row in requests}

    def _gate_rewards(self, batch: GenerationBatch) -> torch.Tensor:
        """(B,) the reward that the gate looks at; NaN for rows that no function applies to."""
        assert batch.rewards is not None
        assert batch.total is not None
        if self._gate_reward is not None:
            return batch.rewards[:, self._gate_reward]
        return batch.total.masked_fill(batch.rewards.isnan().all(1), float("nan"))


def check_teacher_prompt(teacher: Teacher, prompt: Prompt, hints: bool) -> None:
    """Let the teacher refuse, before training starts, the kind of prompt that this run will show to it.

    Scores of prompts without images are asked for by token ids, which need no chat template.

    Args:
        teacher: Of the run.
        prompt: The first of the data set.
        hints: Whether the run asks for hints, which do need one.
    """
    if hints:
        teacher.check_prompt(hint_request(prompt, ""))
    else:
        teacher.check_prompt(prompt if prompt_images(prompt) else prompt_text(prompt))


def _request(
    batch: GenerationBatch, row: int, completion_ids: Sequence[int], prompt_ids: Sequence[int], token_logps: bool
) -> ScoreRequest:
    """What the teacher is asked about a row: the student's own tokens, and the images that belong to them."""
    tool_images = tuple(batch.tool_images[row]) if batch.tool_images else ()
    return ScoreRequest(
        batch.prompts[row], tuple(completion_ids), tuple(prompt_ids), tool_images, token_logps=token_logps
    )


def _tokens(output: Mapping[str, Any], part: str) -> list[list[int]]:
    """B lists of the token ids of "prompt" or "completion" in TRL's batch, without padding."""
    pairs = zip(output[f"{part}_ids"], output[f"{part}_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]


def _token_logps(scores: Sequence[Scores | None], mask: torch.Tensor) -> torch.Tensor:
    """(B, T) the teacher's log-probabilities of the student's tokens; NaN where it was not asked."""
    logps = torch.full(mask.shape, float("nan"), device=mask.device)
    for row, score in enumerate(scores):
        if score is not None and score.token_logps is not None:
            logps[row, : len(score.token_logps)] = score.token_logps.to(mask.device, logps.dtype)
    return logps
