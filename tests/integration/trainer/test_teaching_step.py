"""The gated teacher term inside TRL's step: who is shown to the teacher, what it costs, what closed gates give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from kepo import KEPOTrainer, LocalTeacher
from kepo.teachers.base import ScoreRequest
from tests.tiny_runs import even_start, has_magic, well_formed


def _one_batch(trainer: KEPOTrainer) -> dict[str, Any]:
    trainer.model.train()
    trainer.create_optimizer_and_scheduler(1)
    trainer.current_gradient_accumulation_steps = 1
    return trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))


@contextmanager
def _requests(teacher: Any) -> Iterator[list[ScoreRequest]]:
    """Everything the teacher is asked to score."""
    seen: list[ScoreRequest] = []
    score = teacher.score

    def remember(requests: Any) -> Any:
        seen.extend(requests)
        return score(requests)

    teacher.score = remember
    yield seen


def test_the_teacher_sees_only_rows_that_can_get_weight(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((even_start, well_formed), exploration="none")
    with _requests(trainer.teacher) as seen:
        batch = _one_batch(trainer)
    right = [bool(ids[0] % 2 == 0) for ids in batch["completion_ids"].tolist()]
    assert 0 < sum(right) < 8, "the seed must give some right and some wrong rollouts"
    assert [request.completion_ids[0] % 2 for request in seen] == [0] * sum(right)
    assert [scores is not None for scores in batch["teacher_scores"]] == right
    assert torch.equal(batch["gate_weights"] > 0, batch["completion_mask"].bool() & torch.tensor(right).unsqueeze(1))


def test_a_well_formed_wrong_answer_is_not_taught(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((has_magic, well_formed), exploration="none", gate_threshold=1.0)
    with _requests(trainer.teacher) as seen:
        batch = _one_batch(trainer)
    assert seen == []
    assert batch["gate_weights"].sum() == 0


def test_the_gate_on_the_total_is_there_for_faithful_comparison(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((has_magic, well_formed), exploration="none", gate_reward="total", gate_threshold=1.0)
    batch = _one_batch(trainer)
    assert (batch["gate_weights"].sum(1) > 0).all(), "format alone reaches 1.0, the defect this option reproduces"


def test_a_closed_gate_costs_no_forward_and_adds_exactly_nothing(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((has_magic, well_formed), exploration="none")
    plain = make_trainer((has_magic, well_formed), exploration="none", teacher=None, distillation_weight=0.0)
    forwards = _count_backbone_forwards(trainer.teacher.model)
    trainer.train()
    plain.train()
    assert forwards == []
    for name, parameter in plain.model.named_parameters():
        assert torch.equal(parameter, trainer.model.get_parameter(name)), name
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_policy_and_teacher_term_share_one_forward_of_the_student(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(exploration="none", gate="always")
    batch = _one_batch(trainer)
    trainer.compute_loss(trainer.model, batch)  # the first batch is checked
    forwards = _count_backbone_forwards(trainer.model)
    trainer.compute_loss(trainer.model, batch).backward()
    assert len(forwards) == 1
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trainer.model.parameters())


def test_the_reference_model_is_not_loaded_without_kl(make_trainer: Callable[..., KEPOTrainer]) -> None:
    assert make_trainer(exploration="none").ref_model is None


def test_the_teacher_term_is_the_mean_divergence_of_gated_tokens(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(exploration="none", distillation_weight=0.7, divergence_interpolation=0.0)
    batch = _one_batch(trainer)
    with_term = trainer.compute_loss(trainer.model, batch)
    keys = ("gate_weights", "teacher_scores", "gate_total", "gate_open")
    without = trainer.compute_loss(trainer.model, {k: v for k, v in batch.items() if k not in keys})
    expected = _forward_kl_by_hand(trainer, batch)
    torch.testing.assert_close(with_term - without, 0.7 * expected, rtol=1e-4, atol=1e-6)


def test_the_token_gate_teaches_failed_rollouts_up_to_their_first_error(
    make_trainer: Callable[..., KEPOTrainer],
) -> None:
    trainer = make_trainer((has_magic, well_formed), exploration="none", gate="token", gate_min_probability=1 / 300)
    batch = _one_batch(trainer)
    tokens = batch["completion_mask"].bool()
    assert batch["gate_weights"][:, 0].tolist() == [1.0] * 8, "the first token always has a sound context"
    for row, scores in enumerate(batch["teacher_scores"]):
        errors = (scores.token_logps.exp() < 1 / 300).nonzero().flatten().tolist()
        length = int(tokens[row].sum())
        taught = min(errors[0] + 1, length) if errors else length
        assert batch["gate_weights"][row].sum() == taught
    assert 0 < batch["gate_weights"].sum() < tokens.sum()


def test_schedules_move_lambda_and_tau(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(
        exploration="none",
        gate="always",
        distillation_weight=1.0,
        distillation_weight_end=0.0,
        distillation_schedule="linear",
        max_steps=4,
    )
    trainer.train()
    weights = [log["distillation/weight"] for log in trainer.state.log_history if log.get("distillation/weight")]
    assert weights == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_several_updates_per_batch_ask_the_teacher_once(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(exploration="none", gate="always", num_iterations=2, max_steps=4)
    with _requests(trainer.teacher) as seen:
        trainer.train()
    assert len(seen) == 2 * 8
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_gate_metrics_and_teacher_tokens(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(exploration="none")
    with _requests(trainer.teacher) as seen:
        trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["gate/open_share"] == len(seen) / 8
    assert log["teacher/tokens"] == sum(len(request.completion_ids) for request in seen)
    assert log["distillation/loss"] > 0
    assert log["time/teacher_s"] > 0
    assert log["time/rollouts_s"] > 0


def test_evaluation_measures_the_policy_alone(make_trainer: Callable[..., KEPOTrainer]) -> None:
    from tests.tiny_runs import questions

    trainer = make_trainer(eval_dataset=questions(4), per_device_eval_batch_size=4, eval_strategy="steps", eval_steps=1)
    with _requests(trainer.teacher) as seen:
        metrics = trainer.evaluate()
    assert seen == []
    assert "eval_rewards/even_start/mean" in metrics


def _count_backbone_forwards(model: Any) -> list[int]:
    calls: list[int] = []
    model.base_model.register_forward_hook(lambda *_: calls.append(1))
    return calls


def _forward_kl_by_hand(trainer: KEPOTrainer, batch: dict[str, Any]) -> torch.Tensor:
    """Mean over gated tokens of sum_v p_T (log p_T - log p_S), from two plain forwards in float64."""
    assert isinstance(trainer.teacher, LocalTeacher)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    tokens = batch["completion_ids"].size(1)
    logps = []
    for model in (trainer.model, trainer.teacher.model):
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, -tokens - 1 : -1]
        logps.append(logits.double().log_softmax(-1))
    student, teacher = logps
    divergence = (teacher.exp() * (teacher - student)).sum(-1)  # (B, T)
    weights = batch["gate_weights"].double()
    return ((divergence * weights).sum() / weights.sum()).float()
