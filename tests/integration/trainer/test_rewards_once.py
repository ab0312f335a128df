"""The correctness reward is computed once for each completion; its values and logs are as if TRL had called it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from kepo import KEPOTrainer, ScriptedTeacher
from kepo.errors import ConfigError
from kepo.prompts import prompt_text
from kepo.runs import read_rollouts
from tests.tiny_runs import ANSWER_IDS, has_magic, well_formed


class Counting:
    """`has_magic` that remembers what it was called with, and logs a column and a metric."""

    __name__ = "counting"

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, ...]]] = []
        self.prompts: list[str] = []

    def __call__(self, prompts: Any, completions: Any, completion_ids: Any, log_extra: Any, log_metric: Any, **_: Any):
        self.calls.append([tuple(ids) for ids in completion_ids])
        self.prompts += [prompt_text(prompt) for prompt in prompts]
        log_extra("tokens", [str(list(ids)) for ids in completion_ids])
        log_metric("called_with", float(len(completion_ids)))
        return has_magic(completions, completion_ids)


@pytest.fixture
def explore(make_trainer: Callable[..., KEPOTrainer]) -> Callable[..., KEPOTrainer]:
    def make(reward: Any, **fields: Any) -> KEPOTrainer:
        teacher = ScriptedTeacher(hints=["<hint>look at the border</hint>"])
        return make_trainer((reward, well_formed), teacher=teacher, distillation_weight=0.0, **fields)

    return make


def _one_batch(trainer: KEPOTrainer) -> dict[str, Any]:
    trainer.model.train()
    trainer.create_optimizer_and_scheduler(1)
    return trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))


def _completions(batch: dict[str, Any]) -> list[tuple[int, ...]]:
    pairs = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
    return [tuple(ids[mask].tolist()) for ids, mask in pairs]


def test_it_is_called_once_for_each_rollout_and_each_sample(
    explore: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    reward = Counting()
    batch = _one_batch(explore(reward, exploration_samples_per_attempt=3))
    rollouts, *verified = reward.calls
    assert len(rollouts) == 8
    assert [len(call) for call in verified] == [len(prompts) for prompts in rescuing_sampler if prompts] == [6]
    final = _completions(batch)
    for row, injected in enumerate(batch["injected"].tolist()):
        assert final[row] in verified[0] if injected else final[row] == rollouts[row]


@pytest.mark.parametrize("exploration", ["hint", "none"])
def test_it_is_told_which_completions_finished(
    explore: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]], exploration: str
) -> None:
    told: list[tuple[bool, int]] = []

    def reward(completions: Any, completion_ids: Any, completion_finished: list[bool], **_: Any) -> list[float]:
        told.extend(zip(completion_finished, (ids[-1] for ids in completion_ids), strict=True))
        return has_magic(completions, completion_ids)

    trainer = explore(reward, exploration=exploration)
    _one_batch(trainer)
    assert len(told) >= 8
    assert not all(end for end, _ in told)
    assert any(end for end, _ in told) or exploration == "none"  # an untrained student writes on to the limit
    assert all(end == (last in trainer.eos_token_ids) for end, last in told)


def test_an_asynchronous_reward_is_called_once_too(
    explore: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    reward = Counting()

    async def counting(**arguments: Any) -> list[float]:
        return reward(**arguments)

    batch = _one_batch(explore(counting))
    assert [len(call) for call in reward.calls] == [8, 4]
    assert (batch["advantages"] > 0).tolist() == batch["injected"].tolist()


def test_rewards_are_those_of_the_final_rows(
    explore: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]], tmp_path: Path
) -> None:
    trainer = explore(Counting())
    trainer.train()
    rows = read_rollouts(tmp_path / "run").to_pylist()
    assert [row["reward/counting"] for row in rows] == [float(row["injected"]) for row in rows]
    assert [row["reward"] for row in rows] == [1.0 + row["injected"] for row in rows]
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["rewards/counting/mean"] == 0.5
    assert log["rewards/counting/std"] == pytest.approx(torch.tensor([0.0, 1.0] * 4).std().item())


def test_every_row_keeps_what_the_reward_logged_for_it(
    explore: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]], tmp_path: Path
) -> None:
    trainer = explore(Counting(), log_completions=True)
    trainer.train()
    table = pd.read_parquet(next((tmp_path / "run" / "completions").glob("*.parquet")))
    injected = [row["injected"] for row in read_rollouts(tmp_path / "run").to_pylist()]
    assert len(table) == 8
    assert [text.startswith(str(list(ANSWER_IDS))[:-1]) for text in table["tokens"]] == injected
    assert table["tokens"].nunique() > 4
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["called_with"] == 8.0  # of the rollouts; verification is not a batch of its own


def test_a_row_that_it_does_not_apply_to_stays_without_reward(
    explore: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]], tmp_path: Path
) -> None:
    def sometimes(completions: Any, completion_ids: Any, id: Any, **_: Any) -> list[float | None]:
        values = has_magic(completions, completion_ids)
        return [None if name == known[0] else value for name, value in zip(id, values, strict=True)]

    trainer = explore(sometimes)
    known = [next(iter(trainer.get_train_dataloader()))[0]["id"]]
    trainer.train()
    rows = read_rollouts(tmp_path / "run").to_pylist()
    unknown = [row for row in rows if row["id"] == known[0]]
    assert len(unknown) == 4
    assert all(row["reward/sometimes"] != row["reward/sometimes"] and not row["injected"] for row in unknown)
    assert sum(row["reward/sometimes"] == 1.0 for row in rows) == 2


def test_a_row_trained_under_its_hint_is_scored_with_the_prompt_it_is_trained_with(
    explore: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    reward = Counting()
    _one_batch(explore(reward, injection_context="hinted"))
    assert [len(call) for call in reward.calls] == [8, 4, 4]
    assert ["border" in prompt for prompt in reward.prompts] == [False] * 12 + [True] * 4


def test_without_exploration_trl_calls_it(make_trainer: Callable[..., KEPOTrainer]) -> None:
    reward = Counting()
    _one_batch(make_trainer((reward, well_formed), teacher=None, distillation_weight=0.0, exploration="none"))
    assert [len(call) for call in reward.calls] == [8]


def test_evaluation_calls_it_as_trl_does(
    explore: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    reward = Counting()
    trainer = explore(reward)
    trainer.model.eval()
    trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))
    assert [len(call) for call in reward.calls] == [8]
    assert trainer.reward_funcs[0] is reward


@pytest.mark.parametrize(
    ("rewards", "column", "words"),
    [(7, 8, "'faulty' gave 7 rewards for 8 completions"), (8, 3, "'faulty' gave 3 values of 'note' for 8 completions")],
)
def test_a_reward_that_gives_another_number_of_values_is_refused(
    explore: Callable[..., KEPOTrainer], rewards: int, column: int, words: str
) -> None:
    def faulty(log_extra: Any, **_: Any) -> list[float]:
        log_extra("note", ["x"] * column)
        return [0.0] * rewards

    with pytest.raises(ConfigError, match=words):
        _one_batch(explore(faulty))
