"""Exploration over two processes, as two threads with a stand-in for the student: no model, no TRL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from kepo import KEPOConfig, ScriptedTeacher
from kepo.trainer.exploring import ExplorationStep, make_explorer
from kepo.trainer.generation_batch import Completions, GenerationBatch, Rollouts, RowReward
from kepo.types import Prompt, Sample

CORRECT, INCORRECT = (1, 1), (0, 0)
ROWS = 4  # of each process


class Meeting:
    """What the processes gather from each other."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count, timeout=20)
        self.given: dict[int, Any] = {}

    def exchange(self, index: int, value: Any) -> list[Any]:
        self.given[index] = value
        self.barrier.wait()
        everyone = [self.given[i] for i in range(self.count)]
        self.barrier.wait()  # nobody gives the next value before all have read these
        return everyone


class FakeProcesses:
    """`Processes` of one thread."""

    def __init__(self, index: int, meeting: Meeting) -> None:
        self.index, self.count, self._meeting = index, meeting.count, meeting

    def max(self, value: int) -> int:
        return max(self._meeting.exchange(self.index, value))

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat(self._meeting.exchange(self.index, values))

    def gather_objects(self, items: list[Any]) -> list[Any]:
        return [item for part in self._meeting.exchange(self.index, items) for item in part]


class FakeStudent:
    """Samples a correct completion under a hint, of one token more for each; the reward logs where it was computed."""

    def __init__(self, args: KEPOConfig, processes: FakeProcesses) -> None:
        self.args, self.processes, self.index = args, processes, processes.index
        self.sampling_calls: list[int] = []
        self.scored: list[tuple[int, ...]] = []
        self.metrics: dict[str, float] = {}

    def sample_completions(self, prompts: Sequence[Prompt], filler: Prompt) -> list[Sample]:
        self.sampling_calls.append(len(prompts))
        return [Sample((*CORRECT, self.index, place), f"by {self.index}") for place in range(len(prompts))]

    def completion_logps(self, prompts: Any, completions: Any, filler: Any) -> list[list[float]]:
        return [[-0.5] * len(ids) for ids in completions]

    def tokenize_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        return [[9] for _ in prompts]

    def call_reward(self, index: int, of: Completions, *, log_metrics: bool = False) -> list[RowReward]:
        self.scored += [tuple(ids) for ids in of.completion_ids]
        return [RowReward(float(tuple(ids[:2]) == CORRECT), {"at": self.index}) for ids in of.completion_ids]

    def log_metric(self, name: str, value: float) -> None:
        self.metrics[name] = value


@pytest.fixture
def explore(tmp_path: Path) -> Callable[..., list[tuple[FakeStudent, GenerationBatch, Rollouts]]]:
    def run(
        completions: Sequence[tuple[int, ...]], **fields: Any
    ) -> list[tuple[FakeStudent, GenerationBatch, Rollouts]]:
        """Explore a global batch with these rollouts, four on each process."""
        args = KEPOConfig(str(tmp_path), distillation_weight=0.0, per_device_train_batch_size=8, **fields)
        meeting = Meeting(len(completions) // ROWS)

        def process(index: int) -> tuple[FakeStudent, GenerationBatch, Rollouts]:
            student = FakeStudent(args, FakeProcesses(index, meeting))
            explorer = make_explorer(args, ScriptedTeacher(hints=["<hint>look</hint>"]), lambda call: call())
            step = ExplorationStep(explorer, student, 0)  # type: ignore[arg-type]
            mine = range(index * ROWS, (index + 1) * ROWS)
            groups = [row // args.num_generations for row in mine]
            rows = [{"id": f"q{g}", "answer": "A", "options": ["x", "y"]} for g in groups]
            batch = GenerationBatch(rows, mine.start, [f"question {g}" for g in groups])
            made = [completions[row] for row in mine]
            texts = ["sampled"] * ROWS
            rollouts = Rollouts(
                [[5]] * ROWS, [list(ids) for ids in made], None, texts, [[-0.1, -0.1]] * ROWS, {}, None, []
            )
            step.score(batch, rollouts)
            step.run(batch, rollouts, step.begin(batch))
            return student, batch, rollouts

        with ThreadPoolExecutor(meeting.count) as threads:
            return list(threads.map(process, range(meeting.count)))

    return run


def test_a_group_over_two_processes_is_rescued_where_its_rollouts_lie(explore: Callable[..., Any]) -> None:
    done = explore([INCORRECT] * 8, num_generations=8, num_injected=6, exploration_attempts=1)
    injected = [len(batch.injected) for _, batch, _ in done]
    assert sum(injected) == 6
    assert min(injected) > 0
    for _, batch, rollouts in done:
        assert batch.all_failed == [True] * ROWS
        for row in range(ROWS):
            assert (tuple(rollouts.completion_ids[row][:2]) == CORRECT) == (row in batch.injected)
            assert (rollouts.logprobs[row] == [None] * 4) == (row in batch.injected)


def test_groups_are_assigned_evenly_and_all_make_the_same_number_of_calls(explore: Callable[..., Any]) -> None:
    # Both all-failed groups lie on the first process; each process explores one of them.
    done = explore([INCORRECT] * 4 + [CORRECT] * 4, num_generations=2, num_injected=1, exploration_attempts=2)
    assert [student.sampling_calls for student, _, _ in done] == [[1, 0], [1, 0]]
    (_, first, rollouts), (_, second, _) = done
    assert sorted(rollouts.completion_ids[row][2] for row in first.injected) == [0, 1]
    assert second.injected == {}
    assert [batch.all_failed for _, batch, _ in done] == [[True] * 4, [False] * 4]


def test_a_reward_travels_with_its_sample(explore: Callable[..., Any]) -> None:
    done = explore([INCORRECT] * 4 + [CORRECT] * 4, num_generations=2, num_injected=1, exploration_attempts=1)
    for student, batch, rollouts in done:
        assert len(student.scored) == ROWS + 1
        for row, reward in enumerate(batch.correctness_rewards):
            made_by = rollouts.completion_ids[row][2] if row in batch.injected else student.index
            assert reward.value == float(tuple(rollouts.completion_ids[row][:2]) == CORRECT)
            assert reward.logged == {"at": made_by}


def test_correct_groups_are_left_alone(explore: Callable[..., Any]) -> None:
    done = explore([INCORRECT, CORRECT] * 4, num_generations=2, num_injected=1)
    for student, batch, rollouts in done:
        assert student.sampling_calls == []
        assert batch.injected == batch.rescues == {}
        assert student.metrics == {"exploration/all_failed_groups": 0.0, "exploration/correct_before": 0.5}
        assert [tuple(ids) for ids in rollouts.completion_ids] == [INCORRECT, CORRECT] * 2


def test_what_a_sample_was_sampled_with_goes_where_the_correction_needs_it(explore: Callable[..., Any]) -> None:
    fields = {"num_generations": 2, "num_injected": 1, "exploration_attempts": 1}
    for _, batch, _ in explore([INCORRECT] * 8, injection_correction="importance", **fields):
        assert batch.hinted_logps == dict.fromkeys(batch.injected, [-0.5] * 4)
        assert len(batch.injected) == 2
    for student, batch, rollouts in explore([INCORRECT] * 8, injection_context="hinted", **fields):
        assert ["look" in prompt for prompt in batch.prompts] == [row in batch.injected for row in range(ROWS)]
        assert [ids == [9] for ids in rollouts.prompt_ids] == [row in batch.injected for row in range(ROWS)]
        assert len(student.scored) == ROWS + 2 + 2
