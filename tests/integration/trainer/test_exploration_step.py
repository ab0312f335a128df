"""Exploration inside TRL's step: which rollouts are replaced, what they are trained under, and that they survive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kepo import KEPOTrainer, ScriptedTeacher
from kepo.runs import read_rollouts
from tests.tiny_runs import ANSWER_IDS, has_magic, well_formed

HINT = "<hint>look at\nthe {border}</hint>"


def _one_batch(trainer: KEPOTrainer) -> dict[str, Any]:
    """The first batch of rollouts, as it reaches the loss."""
    trainer.model.train()
    trainer.create_optimizer_and_scheduler(1)
    return trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))


@pytest.fixture
def explore_only(make_trainer: Callable[..., KEPOTrainer]) -> Callable[..., KEPOTrainer]:
    def make(rewards: Any = (has_magic, well_formed), **fields: Any) -> KEPOTrainer:
        teacher = ScriptedTeacher(hints=[HINT])
        return make_trainer(rewards, teacher=teacher, distillation_weight=0.0, **fields)

    return make


def test_a_group_that_earns_the_format_but_no_answer_is_rescued(
    explore_only: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    batch = _one_batch(explore_only())
    injected = batch["injected"].view(2, 4)
    assert injected.sum(1).tolist() == [2, 2]
    rescued = batch["completion_ids"][batch["injected"]]
    assert [tuple(row[:3].tolist()) for row in rescued] == [ANSWER_IDS] * 4
    assert (batch["advantages"][batch["injected"]] > 0).all()
    assert (batch["advantages"][~batch["injected"]] < 0).all()
    assert "look at\nthe {border}" in rescuing_sampler[0][0][-1]["content"]


def test_injected_rollouts_are_trained_under_the_original_prompt(
    explore_only: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    trainer = explore_only()
    batch = _one_batch(trainer)
    texts = trainer.processing_class.batch_decode(batch["prompt_ids"])
    assert not any("border" in text for text in texts)


def test_injected_rollouts_can_be_trained_under_the_hinted_prompt(
    explore_only: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    trainer = explore_only(injection_context="hinted")
    batch = _one_batch(trainer)
    texts = trainer.processing_class.batch_decode(batch["prompt_ids"])
    assert ["border" in text for text in texts] == batch["injected"].tolist()


def test_rollouts_of_a_solved_group_are_left_alone(
    explore_only: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    def first_prompt_solved(completions: Any, completion_ids: Any, id: list[str], **_: Any) -> list[float]:
        magic = has_magic(completions, completion_ids)
        return [1.0 if name == solved[0] else value for name, value in zip(id, magic, strict=True)]

    trainer = explore_only((first_prompt_solved, well_formed))
    rows = next(iter(trainer.get_train_dataloader()))
    solved = [rows[0]["id"]]
    trainer.model.train()
    batch = trainer.make_generation_batch(rows)
    assert batch["injected"].tolist() == [False] * 4 + [True, True, False, False]


@pytest.mark.parametrize("mode", ["sequence_mask", "token_truncate"])
def test_injected_rollouts_survive_the_importance_sampling_correction_of_vllm(
    explore_only: Callable[..., KEPOTrainer],
    rescuing_sampler: list[list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    class StandIn:
        """The vLLM engine's interface as TRL uses it; it samples what the policy would give log-probability -1."""

        def __init__(self, **_: Any) -> None: ...

        def sync_weights(self) -> None: ...

        def generate(self, prompts: Any, images: Any, num_generations: int, profiler: Any) -> Any:
            completions = [[70 + i % 5, 71, 2] for i in range(len(prompts))]
            return prompts, completions, [[[-5.0]] * 3 for _ in prompts], None

    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", StandIn)
    trainer = explore_only(use_vllm=True, vllm_mode="colocate", vllm_importance_sampling_mode=mode)
    batch = _one_batch(trainer)
    ratios = batch["importance_sampling_ratio"].expand_as(batch["completion_mask"])
    assert batch["injected"].sum() == 4
    assert (ratios[batch["injected"]] == 1.0).all()
    assert not (ratios[~batch["injected"]] == 1.0).all()
    # What TRL does to a row whose log-probabilities belong to another context: silently erased.
    gap = (batch["old_per_token_logps"] - (-0.1))[batch["injected"]].sum(1)
    assert (gap.exp() < 1e-3).all()


@pytest.mark.parametrize("correction", ["none", "shaped", "importance"])
def test_corrections_of_injected_rows_reach_the_ratio(
    explore_only: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]], correction: str
) -> None:
    trainer = explore_only(injection_correction=correction)
    batch = _one_batch(trainer)
    seen: dict[str, torch.Tensor] = {}
    original = trainer.corrected_old_logps

    def remember(inputs: dict[str, Any], logps: torch.Tensor) -> torch.Tensor:
        old_logps = original(inputs, logps)
        seen["ratio"] = torch.exp(logps - old_logps).detach()
        seen["p"] = logps.exp().detach()
        return old_logps

    trainer.corrected_old_logps = remember
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    if correction == "none":
        assert seen == {}
        return
    tokens = batch["completion_mask"].bool() & batch["injected"].unsqueeze(1)
    others = batch["completion_mask"].bool() & ~batch["injected"].unsqueeze(1)
    assert torch.equal(seen["ratio"][others], torch.ones(int(others.sum())))
    ratio, p = seen["ratio"][tokens], seen["p"][tokens]
    if correction == "shaped":
        torch.testing.assert_close(ratio, p / (p + 0.1))
    else:
        hinted = batch["hinted_per_token_logps"][tokens]
        assert not hinted.isnan().any()
        torch.testing.assert_close(ratio, p / hinted.exp())
        assert not torch.allclose(ratio, torch.ones_like(ratio)), "the hinted prompt must give other probabilities"


def test_the_control_samples_again_without_a_hint(
    explore_only: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]]
) -> None:
    trainer = explore_only(exploration="resample")
    batch = _one_batch(trainer)
    assert batch["injected"].sum() == 4
    assert trainer.teacher.hint_conversations == []
    assert not any("Hint" in prompt[-1]["content"] for prompt in rescuing_sampler[0])


def test_metrics_and_rollout_log_tell_what_happened(
    explore_only: Callable[..., KEPOTrainer], rescuing_sampler: list[list[Any]], tmp_path: Path
) -> None:
    trainer = explore_only()
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["exploration/all_failed_groups"] == 1.0
    assert log["exploration/rescued_groups"] == 1.0
    assert log["exploration/attempts_per_rescue"] == 1.0
    assert log["exploration/tokens_per_rescue"] == 2 * 5
    assert log["exploration/injected_share"] == 0.5
    assert log["exploration/correct_before"] == 0.0
    assert log["exploration/leaked_hints"] == 0.0
    assert log["reward_group_std"] == pytest.approx(0.57735, abs=1e-4)  # two of four right: std of 0, 0, 1, 1
    rows = read_rollouts(tmp_path / "run").to_pylist()
    assert len(rows) == 8
    injected = [row for row in rows if row["injected"]]
    assert len(injected) == 4
    assert {row["hint"] for row in injected} == {"look at\nthe {border}"}
    assert {row["completion"] for row in injected} == {"found 0", "found 1", "found 2", "found 3"}
    assert all(row["reward/has_magic"] == 1.0 and row["advantage"] > 0 for row in injected)
    assert {row["id"] for row in rows} <= {f"q{i}" for i in range(8)}


def test_a_group_that_stays_all_failed_changes_nothing(
    make_trainer: Callable[..., KEPOTrainer], tmp_path: Path
) -> None:
    trainer = make_trainer((has_magic, well_formed), teacher=ScriptedTeacher(hints=[""]), distillation_weight=0.0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())
    rows = read_rollouts(tmp_path / "run").to_pylist()
    assert {row["exploration_failure"] for row in rows} == {"no hint"}
    assert not any(row["injected"] for row in rows)


def test_hinted_samples_come_from_the_policy_itself(explore_only: Callable[..., KEPOTrainer]) -> None:
    """No stand-in: the real generation, on prompts of different lengths, gives completions of the policy."""
    trainer = explore_only()
    prompts = [[{"role": "user", "content": "short"}], [{"role": "user", "content": "a good deal longer than that"}]]
    samples = trainer.sample_completions(prompts, prompts[0])
    assert len(samples) == 2
    assert all(1 <= len(sample.completion_ids) <= 6 for sample in samples)
    assert trainer.sample_completions([], prompts[0]) == []
