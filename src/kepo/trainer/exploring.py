"""Knowledge-enhanced exploration inside TRL's generation step: after the rollouts, before their advantages.

A group's rollouts may lie on several processes. So groups are chosen on gathered rewards, assigned to the processes
evenly and explored there, and the kept samples are scattered to the processes that hold the failed rollouts.

B rollouts of this process, W processes, G rollouts per group.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from transformers import TrainerCallback

from kepo.errors import ConfigError
from kepo.exploration import (
    ANY_TEACHER,
    BankedHints,
    ExplorationSettings,
    Explorer,
    HintBank,
    SuccessHistory,
    needs_exploration,
)
from kepo.exploration.banked import Caller
from kepo.exploration.budget import Belief
from kepo.exploration.explorer import AskedHints
from kepo.teachers.base import HintWriter
from kepo.trainer.adapter import TRLAdapter
from kepo.trainer.config import KEPOConfig
from kepo.trainer.generation_batch import Completions, GenerationBatch, Rollouts, RowReward, completion_of
from kepo.trainer.rows import row_answer, row_options
from kepo.types import Group, Prompt, Rescue, Sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Explored:
    """What was found for one group, as it travels between processes."""

    group: int  # its index in the global batch
    prompt_key: str  # names its prompt; "" where nothing does
    expected: float | None  # the chance of a correct sample that it was believed to have; None: it was not sampled
    rescue: Rescue
    rewards: tuple[RowReward, ...]  # the correctness reward of each kept sample
    hinted_logps: tuple[Sequence[float], ...]  # of each kept sample under its hinted prompt; empty: not needed


@dataclass(frozen=True)
class Begun:
    """This process's share of the groups to explore, each with its index in the global batch, and their hints."""

    groups: Sequence[tuple[int, Group]]
    hints: AskedHints | None  # on their way; None: asked for when they are needed


class SuccessMemory(TrainerCallback):
    """Keeps a history in checkpoints, and lets it learn from a step when the step is finished."""

    KEY = "kepo_success_history"

    def __init__(self, history: SuccessHistory, learn: Callable[[], None]) -> None:
        self._history = history
        self._learn = learn

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin with the history of the checkpoint that the run continues from, or with none."""
        self._history.load(state.stateful_callbacks.get(self.KEY, {}))
        state.stateful_callbacks[self.KEY] = self._history.record  # the very object, so that it is saved as it is then

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step is made."""
        self._learn()


def make_explorer(args: KEPOConfig, teacher: HintWriter | None, through: Caller) -> Explorer:
    """The explorer of a run: hints from the teacher, or from the hint bank and what it lacks from the teacher.

    Without `teacher` there is only the bank; for `through` see `BankedHints`.

    Raises:
        ConfigError: There is no bank and no teacher that could write it, or it cannot be opened.
        DataError: A broken line of the bank.
    """
    settings = ExplorationSettings.of(args)
    if not args.uses_hints or args.hint_bank is None:
        return Explorer(settings, teacher)
    bank = HintBank.open(args.hint_bank, create=teacher is not None)
    read_from = args.hint_bank_teacher or (None if teacher is None else teacher.name)
    if len(bank) and read_from not in (None, ANY_TEACHER, *bank.teachers):
        logger.warning(
            "The hint bank %s holds no hint of %s, only of %s. Set hint_bank_teacher to one of these, or to '%s'.",
            bank.path,
            read_from,
            ", ".join(bank.teachers),
            ANY_TEACHER,
        )
    hints = BankedHints(bank, teacher, settings, args.hint_bank_teacher, through=through)
    return Explorer(settings, hint_source=hints)


class ExplorationStep:
    """Runs an `Explorer` on the groups of a batch that need it, over all processes.

    `student` samples completions and calls rewards; its reward function `correctness_index` says what is correct.
    """

    def __init__(self, explorer: Explorer, student: TRLAdapter, correctness_index: int) -> None:
        self._explorer = explorer
        self._args: KEPOConfig = student.args
        self._student = student
        self._processes = student.processes
        self._correctness = correctness_index
        self._history = SuccessHistory()
        self._found: list[tuple[str, Rescue]] = []  # by prompt; of this optimizer step, of all processes
        # What keeps the history; None: it decides nothing.
        self.memory = SuccessMemory(self._history, self._learn) if explorer.settings.adapts else None

    def score(self, batch: GenerationBatch, rollouts: Rollouts) -> None:
        """Find out which rollouts are correct (collective); comes before `run`.

        The correctness reward is computed here, and for samples when they are verified. TRL is given these values, so
        that a reward that is expensive, such as a model that reads the answers, is called once for each completion.
        """
        made = Completions(batch.rows, batch.prompts, rollouts.completions, rollouts.completion_ids)
        batch.correctness_rewards = self._student.call_reward(self._correctness, made, log_metrics=True)
        values = torch.tensor([reward.value for reward in batch.correctness_rewards])
        batch.correctness = self._processes.gather(values).cpu()

    def begin(self, batch: GenerationBatch) -> Begun | None:
        """Choose the groups to explore, and ask for their hints where these are written elsewhere (collective).

        None where there is nothing to explore.
        """
        groups = self._groups(batch)
        chosen = [g for g, group in enumerate(groups) if needs_exploration(group, self._explorer.settings)]
        all_failed = {g for g, group in enumerate(groups) if not any(group.correct)}
        size = self._args.num_generations
        batch.all_failed = [(batch.first_row + row) // size in all_failed for row in range(len(batch.rows))]
        flags = [flag for group in groups for flag in group.correct]
        self._student.log_metric("exploration/all_failed_groups", len(all_failed) / len(groups))
        self._student.log_metric("exploration/correct_before", sum(flags) / len(flags))
        if not chosen:
            return None
        mine = self._assign(groups, chosen, batch)
        return Begun(mine, self._explorer.begin([group for _, group in mine]))

    def run(self, batch: GenerationBatch, rollouts: Rollouts, begun: Begun | None) -> None:
        """Explore what was begun and put what was kept into `rollouts` and `batch`, in place (collective)."""
        if begun is None:
            return
        everything = self._processes.gather_objects(self._explore(begun, filler=batch.prompts[0]))
        self._scatter(everything, batch, rollouts)
        batch.explored = [(one.group, one.rescue) for one in everything]
        if self._explorer.settings.adapts:
            expected = [one.expected for one in everything if one.expected is not None]
            if expected:
                self._student.log_metric("exploration/expected_success", sum(expected) / len(expected))
        # In an order that does not depend on the number of processes.
        self._found += [(one.prompt_key, one.rescue) for one in sorted(everything, key=lambda one: one.group)]

    def finish(self, batch: GenerationBatch, output: Mapping[str, Any]) -> None:
        """Log what exploration did, once `output`, TRL's batch with our keys, tells what the loss uses (collective).

        A group is rescued when one of its injected rollouts takes part in the loss: it has tokens that are not masked,
        and an advantage or an open gate.
        """
        if not batch.explored:
            return
        tokens = (output["completion_mask"] * output.get("tool_mask", 1)).sum(1)  # (B,)
        used = output["advantages"] * self._args.policy_weight != 0
        if "gate_weights" in output:
            used = used | (output["gate_weights"].sum(1) > 0)
        used = used & (tokens > 0)
        size = self._args.num_generations
        learned = [(batch.first_row + row) // size for row in batch.injected if used[row]]
        rescued = set(self._processes.gather_objects(learned))
        self._log([rescue for _, rescue in batch.explored], [r for group, r in batch.explored if group in rescued])

    def _groups(self, batch: GenerationBatch) -> list[Group]:
        """All groups of the global batch; those whose first row lies elsewhere carry flags only."""
        assert batch.correctness is not None
        rewards = batch.correctness.view(-1, self._args.num_generations)
        # A rollout that the function does not apply to (NaN) is not a failure: nothing is known about it.
        correct = ~(rewards < self._args.correctness_threshold)
        groups = []
        for g, (flags, values) in enumerate(zip(correct.tolist(), rewards.tolist(), strict=True)):
            row = g * self._args.num_generations - batch.first_row
            held = 0 <= row < len(batch.rows)
            data = batch.rows[row] if held else {}
            answer = row_answer(data)
            groups.append(
                Group(
                    key=str(data.get("id", row)) if held else "",
                    prompt=batch.prompts[row] if held else "",
                    answer=None if answer is None else str(answer),
                    options=row_options(data),
                    correct=tuple(flags),
                    rewards=tuple(values),
                    row=data,
                )
            )
        return groups

    def _assign(self, groups: list[Group], chosen: list[int], batch: GenerationBatch) -> list[tuple[int, Group]]:
        """This process's share of the chosen groups, wherever their rows lie."""
        local = range(batch.local.start, batch.local.stop)
        held = [(g, groups[g]) for g in chosen if g * self._args.num_generations in local]
        everyone = sorted(self._processes.gather_objects(held), key=lambda pair: pair[0])
        return everyone[self._processes.index :: self._processes.count]

    def _learn(self) -> None:
        """Take what a finished optimizer step found into the history: a step that fails is made again."""
        for key, rescue in self._found:
            self._history.add(key, rescue.outcomes)
        self._found = []

    def _belief(self, group: Group, level: int | None) -> Belief:
        """What is known of a group before it is sampled in this step."""
        return self._history.belief(_prompt_key(group), level)

    def _expected(self, group: Group, rescue: Rescue) -> float | None:
        """The chance that its first samples were believed to have; None where it had none."""
        return next((self._belief(group, level).mean for level in rescue.outcomes), None)

    def _explore(self, begun: Begun, filler: Prompt) -> list[_Explored]:
        reward_of: dict[int, RowReward] = {}  # by the identity of a sample: the explorer keeps these very samples
        verified: list[Sample] = []  # kept alive, so that no two have one identity

        def sample(prompts: Sequence[Prompt]) -> list[Sample]:
            return self._student.sample_completions(prompts, filler)

        def verify(groups: Sequence[Group], samples: Sequence[Sample]) -> list[bool]:
            sampled = Completions(
                [group.row for group in groups],
                [group.prompt for group in groups],
                [completion_of(group.prompt, sample) for group, sample in zip(groups, samples, strict=True)],
                [sample.completion_ids for sample in samples],
            )
            rewards = self._student.call_reward(self._correctness, sampled)
            verified.extend(samples)
            reward_of.update(zip(map(id, samples), rewards, strict=True))
            return [reward.value >= self._args.correctness_threshold for reward in rewards]

        groups = [group for _, group in begun.groups]
        rescues = self._explorer.explore(groups, sample, verify, beliefs=self._belief, begun=begun.hints)
        logps = self._hinted_logps(rescues, filler)
        explored = []
        for (g, group), rescue in zip(begun.groups, rescues, strict=True):
            rewards = tuple(reward_of[id(kept.sample)] for kept in rescue.kept)
            hinted = tuple(islice(logps, len(rescue.kept)))
            if self._args.injection_context == "original":  # the images of hinted prompts need not travel
                rescue = replace(rescue, kept=tuple(replace(kept, prompt="") for kept in rescue.kept))
            explored.append(_Explored(g, _prompt_key(group), self._expected(group, rescue), rescue, rewards, hinted))
        return explored

    def _hinted_logps(self, rescues: Sequence[Rescue], filler: Prompt) -> Iterator[Sequence[float]]:
        """Of kept samples under the prompts they were sampled with (collective); empty where not needed."""
        if self._args.injection_correction != "importance":
            return iter(())
        kept = [kept for rescue in rescues for kept in rescue.kept]
        if self._processes.max(int(any(one.sample.images for one in kept))):
            raise ConfigError(
                "injection_correction is 'importance', which cannot be computed for a rollout with images that a tool "
                "returned. Set injection_correction to 'none' or 'shaped'."
            )
        ids = [one.sample.completion_ids for one in kept]
        return iter(self._student.completion_logps([one.prompt for one in kept], ids, filler))

    def _scatter(self, explored: Sequence[_Explored], batch: GenerationBatch, rollouts: Rollouts) -> None:
        """Put kept samples of all processes where this process holds the rollouts that they replace."""
        size = self._args.num_generations
        for item in explored:
            first = item.group * size - batch.first_row
            for row in range(max(first, 0), min(first + size, len(batch.rows))):
                batch.rescues[row] = item.rescue
            for place, (slot, kept) in enumerate(zip(item.rescue.slots, item.rescue.kept, strict=True)):
                row = first + slot
                if not 0 <= row < len(batch.rows):
                    continue
                batch.injected[row] = kept
                batch.correctness_rewards[row] = item.rewards[place]
                if item.hinted_logps:
                    batch.hinted_logps[row] = item.hinted_logps[place]
                rollouts.replace(row, kept.sample, batch.prompts[row])
        if self._args.injection_context == "hinted" and batch.injected:
            self._train_under_hints(batch, rollouts)

    def _train_under_hints(self, batch: GenerationBatch, rollouts: Rollouts) -> None:
        """Put the hinted prompts of injected rows in the place of the original ones."""
        rows = sorted(batch.injected)
        for row in rows:
            batch.prompts[row] = batch.injected[row].prompt
            rollouts.prompt_ids[row] = self._student.tokenize_prompts([batch.prompts[row]])[0]
        # Verification showed the reward another prompt, so its value for this one is not known yet.
        injected = Completions(batch.rows, batch.prompts, rollouts.completions, rollouts.completion_ids).select(rows)
        for row, reward in zip(rows, self._student.call_reward(self._correctness, injected), strict=True):
            batch.correctness_rewards[row] = reward

    def _log(self, explored: Sequence[Rescue], rescues: Sequence[Rescue]) -> None:
        """The metrics of exploration, from all processes: of the explored groups, and of those that were rescued."""
        log = self._student.log_metric
        attempts = sum(one.attempts for one in explored)
        tokens = sum(one.sampled_tokens for one in explored)
        log("exploration/rescued_groups", len(rescues) / len(explored))
        log("exploration/attempts", attempts / len(explored))
        log("exploration/sampled_tokens", float(tokens))
        log("exploration/truncated_samples", float(sum(one.truncated_samples for one in explored)))
        log("exploration/leaked_hints", float(sum(one.leaked_hints for one in explored)))
        if rescues:
            log("exploration/attempts_per_rescue", attempts / len(rescues))
            log("exploration/tokens_per_rescue", tokens / len(rescues))
        kept = sum(len(one.kept) for one in explored)
        outcomes = [seen for one in explored for seen in one.outcomes.values()]
        samples = sum(seen.samples for seen in outcomes)
        if samples:
            log("exploration/success_rate", sum(seen.correct for seen in outcomes) / samples)
        if kept:
            log("exploration/samples_per_kept", samples / kept)
            log("exploration/tokens_per_kept", tokens / kept)
        if self._explorer.asks_ahead:
            log("exploration/unneeded_hints", float(sum(one.unneeded_hints for one in explored)))
        levels = [kept.hint.level for rescue in rescues for kept in rescue.kept if kept.hint is not None]
        if levels:
            log("exploration/hint_level", sum(levels) / len(levels))
        asked = sum(one.levels_asked for one in explored)
        if asked and self._args.hint_bank is not None:
            hits = sum(len({hint.level for hint in one.hints if hint.banked}) for one in explored)
            log("exploration/bank_hits", hits / asked)


def _prompt_key(group: Group) -> str:
    """What finds the prompt again in a later step: the id of its row; "" without one."""
    return group.key if "id" in group.row else ""
