"""The teacher's part of a batch: which rows it may see, what it says of them, and the weights of its term.

B rollouts of this process, T completion tokens, F reward functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from kepo.objective.gate import gate_weights, rows_to_score
from kepo.teachers.base import AsynchronousTeacher, ScoreRequest, Scores, Teacher
from kepo.trainer.config import TOTAL_REWARD
from kepo.trainer.outages import together
from kepo.trainer.round import EarlyScores, Round

if TYPE_CHECKING:
    from kepo.trainer.exploring import Rollouts
    from kepo.trainer.trainer import KEPOTrainer


class TeachingStep:
    """Turns rewards into gate weights and asks the teacher about the rows that can get weight."""

    def __init__(self, trainer: KEPOTrainer, teacher: Teacher, gate_reward: str, correctness_reward: str) -> None:
        self._trainer = trainer
        self._teacher = teacher
        self._gate_reward = gate_reward
        gate = trainer.args.gate
        # Correct rollouts are never replaced, so where correctness opens the gate they can be asked about at once.
        self._opened_by_correctness = gate == "always" or (
            gate in ("trajectory", "token") and gate_reward == correctness_reward
        )

    def begin(self, round_: Round, rollouts: Rollouts) -> None:
        """Let a teacher elsewhere begin with the rows that it will be asked about whatever exploration does."""
        if not isinstance(self._teacher, AsynchronousTeacher) or not self._opened_by_correctness:
            return
        args, first = self._trainer.args, self._trainer.accelerator.process_index * len(round_.rows)
        assert round_.correctness is not None
        least = args.correctness_threshold
        if args.gate != "always":
            least = max(least, args.gate_threshold_at(self._trainer.progress))
        mine = round_.correctness[first : first + len(round_.rows)].tolist()
        rows = [row for row, reward in enumerate(mine) if reward >= least]
        requests = [ScoreRequest(round_.prompts[row], tuple(rollouts.completion_ids[row])) for row in rows]
        round_.early = EarlyScores(rows, requests, self._teacher.start_scoring(requests))

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
        requests = {
            row: ScoreRequest(round_.prompts[row], tuple(output["completion_ids"][row][: lengths[row]].tolist()))
            for row in range(len(shown))
            if shown[row]
        }
        with round_.clock("teacher"):
            found = together(self._trainer, lambda: self._ask(requests, round_.early))
        scores = [found.get(row) for row in range(len(shown))]
        weights = gate_weights(
            args.gate, rewards, threshold, mask, _token_logps(scores, mask), args.gate_min_probability
        )
        # A row that the teacher could not score weighs nothing, as if its gate were closed.
        weights = weights * torch.tensor([[score is not None] for score in scores], device=weights.device)
        share = mask if args.distillation_normalization == "all" else weights
        totals = accelerator.reduce(
            torch.stack([share.sum().float(), weights.sum(), (weights.sum(1) > 0).sum().float(), mask.sum().float()]),
            reduction="sum",
        )
        self._log(totals, len(round_.rows), sum(len(r.completion_ids) for r in requests.values()))
        return {"gate_weights": weights, "teacher_scores": scores, "gate_total": totals[0], "gate_open": totals[1]}

    def _ask(self, requests: Mapping[int, ScoreRequest], early: EarlyScores | None) -> dict[int, Scores | None]:
        """The scores of rows, those under way included."""
        under_way: dict[int, int] = {}  # row -> its place among the early ones
        if early is not None:
            for place, (row, request) in enumerate(zip(early.rows, early.requests, strict=True)):
                if row in requests and requests[row].completion_ids == request.completion_ids:
                    under_way[row] = place
        rest = [row for row in requests if row not in under_way]
        found = dict(zip(rest, self._teacher.score([requests[row] for row in rest]), strict=True))
        if early is not None:
            answers = early.pending.result()
            found |= {row: answers[place] for row, place in under_way.items()}
        return found

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


def _token_logps(scores: Sequence[Scores | None], mask: torch.Tensor) -> torch.Tensor:
    """(B, T) the teacher's log-probabilities of the student's tokens; NaN where it was not asked."""
    logps = torch.full(mask.shape, float("nan"), device=mask.device)
    for row, score in enumerate(scores):
        if score is not None:
            logps[row, : len(score.token_logps)] = score.token_logps.to(mask.device, logps.dtype)
    return logps
