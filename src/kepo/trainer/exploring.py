"""Knowledge-enhanced exploration inside TRL's generation step: after the rollouts, before their scores.

A group's rollouts may lie on several processes, so dead groups are found on gathered rewards, dealt out evenly,
explored where they were dealt to, and the kept samples are sent back to the processes that hold the failed rollouts.

B rollouts of this process, W processes, G rollouts per group.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from kepo.exploration import ANY_TEACHER, Explorer, HintBank, banked_hints, needs_exploration
from kepo.exploration.banked import Caller
from kepo.teachers.base import HintWriter
from kepo.trainer import seams
from kepo.trainer.round import Round
from kepo.types import Group, Prompt, Rescue, Sample

if TYPE_CHECKING:
    from kepo.trainer.config import KEPOConfig
    from kepo.trainer.trainer import KEPOTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rollouts:
    """TRL's rollouts of this process, the part that exploration may change (lists of length B)."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    completions: list[Any]
    logprobs: list[list[float | None]] | None


@dataclass(frozen=True)
class _Explored:
    """A group's rescue on its way home: its index in the global batch and the kept samples' log-probabilities."""

    group: int
    rescue: Rescue
    behaviour_logps: tuple[Sequence[float], ...] = ()


def make_explorer(args: KEPOConfig, teacher: HintWriter | None, through: Caller) -> Explorer:
    """The explorer of a run: hints from the teacher, or from the hint bank and what it lacks from the teacher.

    Args:
        args: Of the run.
        teacher: Writes hints; None: there is only the bank.
        through: See `banked_hints`.

    Raises:
        ConfigError: There is no bank and no teacher that could write it, or it cannot be opened.
        DataError: A broken line of the bank.
    """
    settings = args.exploration_settings()
    if not args.uses_hints or args.hint_bank is None:
        return Explorer(settings, teacher)
    bank = HintBank.open(args.hint_bank, create=teacher is not None)
    wanted = args.hint_bank_teacher or (None if teacher is None else teacher.name)
    if len(bank) and wanted not in (None, ANY_TEACHER, *bank.teachers):
        logger.warning(
            "The hint bank %s holds no hint of %s, only of %s. Set hint_bank_teacher to one of these, or to '%s'.",
            bank.path,
            wanted,
            ", ".join(bank.teachers),
            ANY_TEACHER,
        )
    hints = banked_hints(bank, teacher, settings, args.hint_bank_teacher, through=through)
    return Explorer(settings, hint_source=hints)


class ExplorationStep:
    """Runs an `Explorer` on the dead groups of a batch, over all processes."""

    def __init__(self, trainer: KEPOTrainer, explorer: Explorer, correctness_index: int) -> None:
        self._trainer = trainer
        self._explorer = explorer
        self._correctness = correctness_index

    def judge(self, round_: Round, rollouts: Rollouts) -> None:
        """Find out which rollouts are correct (collective); comes before `run`."""
        round_.correctness = self._correctness_rewards(round_, rollouts)

    def run(self, round_: Round, rollouts: Rollouts) -> None:
        """Explore the dead groups and put what was kept into `rollouts`, in place; `round_` records it.

        Collective: all processes must call it together.
        """
        assert round_.correctness is not None
        rewards = round_.correctness  # (W * B,)
        correct = self._is_correct(rewards)
        groups = self._groups(round_, rewards, correct)
        chosen = [g for g, group in enumerate(groups) if needs_exploration(group, self._explorer.settings)]
        dead = {g for g, group in enumerate(groups) if not any(group.correct)}
        size, offset = self._trainer.num_generations, self._offset(round_)
        round_.dead = [(offset + row) // size in dead for row in range(len(round_.rows))]
        self._log_groups(groups, dead)
        if chosen:
            mine = self._deal_out(groups, chosen, round_)
            explored = self._explore(mine, round_)
            self._bring_home(self._gather(explored), round_, rollouts)

    # --- which groups -----------------------------------------------------------------------------------------------

    def _correctness_rewards(self, round_: Round, rollouts: Rollouts) -> torch.Tensor:
        trainer = self._trainer
        rewards = seams.call_reward(
            trainer, self._correctness, round_.rows, round_.prompts, rollouts.completions, rollouts.completion_ids
        )
        return trainer.accelerator.gather(torch.tensor(rewards, device=trainer.accelerator.device)).cpu()

    def _is_correct(self, rewards: torch.Tensor) -> torch.Tensor:
        # A rollout that the function does not apply to (NaN) is not a failure: nothing is known about it.
        return ~(rewards < self._trainer.args.correctness_threshold)

    def _groups(self, round_: Round, rewards: torch.Tensor, correct: torch.Tensor) -> list[Group]:
        """All groups of the global batch; those whose first row lies elsewhere carry flags only."""
        size = self._trainer.num_generations
        groups = []
        for g in range(len(rewards) // size):
            rows = slice(g * size, (g + 1) * size)
            row = g * size - self._offset(round_)
            group = Group(
                key="",
                prompt="",
                answer=None,
                options=(),
                correct=tuple(correct[rows].tolist()),
                rewards=tuple(rewards[rows].tolist()),
            )
            groups.append(self._with_question(group, round_, row) if 0 <= row < len(round_.rows) else group)
        return groups

    def _with_question(self, group: Group, round_: Round, row: int) -> Group:
        data = round_.rows[row]
        answer = data.get("answer", data.get("solution"))
        return replace(
            group,
            key=str(data.get("id", row)),
            prompt=round_.prompts[row],
            answer=None if answer is None else str(answer),
            options=tuple(data.get("options") or ()),
            row=data,
        )

    def _offset(self, round_: Round) -> int:
        return int(self._trainer.accelerator.process_index) * len(round_.rows)

    # --- exploring them ---------------------------------------------------------------------------------------------

    def _deal_out(self, groups: list[Group], chosen: list[int], round_: Round) -> list[tuple[int, Group]]:
        """This process's share of the chosen groups, wherever their rows lie."""
        accelerator = self._trainer.accelerator
        size, offset = self._trainer.num_generations, self._offset(round_)
        held = [(g, groups[g]) for g in chosen if offset <= g * size < offset + len(round_.rows)]
        everyone = held if accelerator.num_processes == 1 else sorted(gather_object(held), key=lambda pair: pair[0])
        return everyone[accelerator.process_index :: accelerator.num_processes]

    def _explore(self, mine: list[tuple[int, Group]], round_: Round) -> list[_Explored]:
        filler = round_.prompts[0]

        def sample(prompts: Sequence[Prompt]) -> list[Sample]:
            return seams.sample_completions(self._trainer, prompts, filler)

        rescues = self._explorer.explore([group for _, group in mine], sample, self._verify)
        explored = [_Explored(g, rescue) for (g, _), rescue in zip(mine, rescues, strict=True)]
        if self._trainer.args.injection_correction == "importance":
            explored = self._with_behaviour_logps(explored, filler)
        if self._trainer.args.injection_context == "original":
            explored = [replace(e, rescue=_without_prompts(e.rescue)) for e in explored]
        return explored

    def _verify(self, groups: Sequence[Group], samples: Sequence[Sample]) -> list[bool]:
        completions = [seams.as_completion(g.prompt, s.text) for g, s in zip(groups, samples, strict=True)]
        rewards = seams.call_reward(
            self._trainer,
            self._correctness,
            [group.row for group in groups],
            [group.prompt for group in groups],
            completions,
            [sample.completion_ids for sample in samples],
        )
        return [reward >= self._trainer.args.correctness_threshold for reward in rewards]

    def _with_behaviour_logps(self, explored: list[_Explored], filler: Prompt) -> list[_Explored]:
        """The log-probabilities of kept samples under the prompt they were sampled with (collective)."""
        kept = [sample for e in explored for sample in e.rescue.kept]
        logps = seams.completion_logps(
            self._trainer, [k.prompt for k in kept], [k.sample.completion_ids for k in kept], filler
        )
        values = iter(logps)
        return [replace(e, behaviour_logps=tuple(next(values) for _ in e.rescue.kept)) for e in explored]

    # --- bringing the kept samples home -----------------------------------------------------------------------------

    def _gather(self, explored: list[_Explored]) -> list[_Explored]:
        return explored if self._trainer.accelerator.num_processes == 1 else gather_object(explored)

    def _bring_home(self, explored: Sequence[_Explored], round_: Round, rollouts: Rollouts) -> None:
        size, offset = self._trainer.num_generations, self._offset(round_)
        for item in explored:
            first = item.group * size - offset
            for row in range(max(first, 0), min(first + size, len(round_.rows))):
                round_.rescues[row] = item.rescue
            for place, (slot, kept) in enumerate(zip(item.rescue.slots, item.rescue.kept, strict=True)):
                row = first + slot
                if not 0 <= row < len(round_.rows):
                    continue
                round_.injected[row] = kept
                if item.behaviour_logps:
                    round_.behaviour_logps[row] = item.behaviour_logps[place]
                self._inject(row, kept.sample, kept.prompt, round_, rollouts)
        self._log_rescues(explored)

    def _inject(self, row: int, sample: Sample, hinted: Prompt, round_: Round, rollouts: Rollouts) -> None:
        rollouts.completion_ids[row] = list(sample.completion_ids)
        rollouts.completions[row] = seams.as_completion(round_.prompts[row], sample.text)
        if rollouts.logprobs is not None:
            # TRL corrects for the gap between sampler and policy by these. They belong to the hinted prompt, under
            # which the ratio would be near 0 and the row silently erased; None means "no correction" there.
            rollouts.logprobs[row] = [None] * len(sample.completion_ids)
        if self._trainer.args.injection_context == "hinted":
            round_.prompts[row] = hinted
            prompt_ids, _, _ = self._trainer._tokenize_prompts([hinted])
            rollouts.prompt_ids[row] = list(prompt_ids[0])

    # --- metrics ----------------------------------------------------------------------------------------------------

    def _log_groups(self, groups: Sequence[Group], dead: set[int]) -> None:
        flags = [flag for group in groups for flag in group.correct]
        self._trainer.log_metric("exploration/all_failed_groups", len(dead) / len(groups))
        self._trainer.log_metric("exploration/correct_before", sum(flags) / len(flags))

    def _log_rescues(self, explored: Sequence[_Explored]) -> None:
        rescued = [e.rescue for e in explored if e.rescue.kept]
        log = self._trainer.log_metric
        log("exploration/rescued_groups", len(rescued) / len(explored))
        log("exploration/attempts", sum(e.rescue.attempts for e in explored) / len(explored))
        log("exploration/sampled_tokens", float(sum(e.rescue.sampled_tokens for e in explored)))
        log("exploration/leaked_hints", float(sum(e.rescue.leaked_hints for e in explored)))
        self._log_hints([e.rescue for e in explored])
        if rescued:
            log("exploration/attempts_per_rescue", sum(e.rescue.attempts for e in explored) / len(rescued))
            log("exploration/tokens_per_rescue", sum(e.rescue.sampled_tokens for e in explored) / len(rescued))

    def _log_hints(self, rescues: Sequence[Rescue]) -> None:
        levels = [kept.hint.level for rescue in rescues for kept in rescue.kept if kept.hint is not None]
        if levels:
            self._trainer.log_metric("exploration/hint_level", sum(levels) / len(levels))
        asked = sum(rescue.levels_asked for rescue in rescues)
        if asked and self._trainer.args.hint_bank is not None:
            hits = sum(len({hint.level for hint in rescue.hints if hint.banked}) for rescue in rescues)
            self._trainer.log_metric("exploration/bank_hits", hits / asked)


def _without_prompts(rescue: Rescue) -> Rescue:
    """The rescue without hinted prompts: their images need not travel between processes."""
    return replace(rescue, kept=tuple(replace(kept, prompt="") for kept in rescue.kept))
