"""The teacher's part of a batch: which rows it may see, what it says of them, and the weights of its term.

B rollouts of this process, T completion tokens, F reward functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from kepo.objective.gate import gate_weights, rows_to_score
from kepo.teachers.base import ScoreRequest, Scores, Teacher
from kepo.trainer.config import TOTAL_REWARD
from kepo.trainer.round import Round

if TYPE_CHECKING:
    from kepo.trainer.trainer import KEPOTrainer


class TeachingStep:
    """Turns rewards into gate weights and asks the teacher about the rows that can get weight."""

    def __init__(self, trainer: KEPOTrainer, teacher: Teacher, gate_reward: str) -> None:
        self._trainer = trainer
        self._teacher = teacher
        self._gate_reward = gate_reward

    def run(self, round_: Round, output: Mapping[str, Any]) -> dict[str, Any]:
        """The teacher's keys of a batch: `gate_weights` (B, T), `teacher_scores` (list of B), `gate_total` (0-d).

        Collective: all processes must call it together.
        """
        args, accelerator = self._trainer.args, self._trainer.accelerator
        mask = output["completion_mask"] * output.get("tool_mask", 1)  # (B, T)
        rewards = self.gate_rewards(round_)
        threshold = args.gate_threshold_at(self._trainer.progress)
        shown = rows_to_score(args.gate, rewards, threshold, mask).tolist()
        lengths = output["completion_mask"].sum(1).tolist()  # a tool mask may have holes, a completion has none
        requests = [
            ScoreRequest(round_.prompts[row], tuple(output["completion_ids"][row][: lengths[row]].tolist()))
            for row in range(len(shown))
            if shown[row]
        ]
        with round_.clock("teacher"):
            answers = iter(self._teacher.score(requests))
        scores: list[Scores | None] = [next(answers) if flag else None for flag in shown]
        weights = gate_weights(
            args.gate, rewards, threshold, mask, _token_logps(scores, mask), args.gate_min_probability
        )
        share = mask if args.distillation_normalization == "all" else weights
        totals = accelerator.reduce(
            torch.stack([share.sum().float(), weights.sum(), (weights.sum(1) > 0).sum().float(), mask.sum().float()]),
            reduction="sum",
        )
        self._log(totals, len(round_.rows), sum(len(r.completion_ids) for r in requests))
        return {"gate_weights": weights, "teacher_scores": scores, "gate_total": totals[0], "gate_open": totals[1]}

    def gate_rewards(self, round_: Round) -> torch.Tensor:
        """(B,) the reward that the gate looks at; NaN for rows that no function applies to."""
        assert round_.rewards is not None
        if self._gate_reward != TOTAL_REWARD:
            return round_.rewards[:, self._trainer.reward_func_names.index(self._gate_reward)]
        weights = self._trainer.reward_weights.to(round_.rewards.device)
        total = (round_.rewards * weights).nansum(1)
        return total.masked_fill(round_.rewards.isnan().all(1), float("nan"))

    def _log(self, totals: torch.Tensor, rows: int, teacher_tokens: int) -> None:
        _, gated_tokens, gated_rows, tokens = totals.tolist()
        log = self._trainer.log_metric
        log("gate/open_share", gated_rows / (rows * self._trainer.accelerator.num_processes))
        log("gate/token_share", gated_tokens / max(tokens, 1.0))
        log("teacher/tokens", float(self._trainer.sum_over_processes(teacher_tokens)))


def _token_logps(scores: list[Scores | None], mask: torch.Tensor) -> torch.Tensor:
    """(B, T) the teacher's log-probabilities of the student's tokens; NaN where it was not asked."""
    logps = torch.full(mask.shape, float("nan"), device=mask.device)
    for row, score in enumerate(scores):
        if score is not None:
            logps[row, : len(score.token_logps)] = score.token_logps.to(mask.device, logps.dtype)
    return logps
