"""What lambda weighs beside each `loss_type`: one distillation loss, policy terms of different sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kepo import KEPOTrainer
from tests.tiny_runs import even_start

from .test_teaching_step import _one_batch


def _gradients(trainer: KEPOTrainer, batch: dict[str, Any], loss_type: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the output head, by the policy term and by lambda times the distillation loss."""
    trainer.loss_type = loss_type
    head = trainer.model.get_output_embeddings().weight
    keys = ("gate_weights", "teacher_scores", "gate_total", "gate_open")
    losses = (
        trainer.compute_batch_loss(trainer.model, {k: v for k, v in batch.items() if k not in keys}),
        trainer.compute_batch_loss(trainer.model, batch),
    )
    policy, both = (torch.autograd.grad(loss, head)[0] for loss in losses)
    return policy, both - policy


def test_the_policy_terms_are_as_docs_method_md_says(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((even_start,), exploration="none", max_completion_length=6, epsilon_high=5.0)
    batch = _one_batch(trainer)
    lengths = batch["completion_mask"].sum(1).float()
    # Rollouts of different lengths, of which TRL's tiny policy makes none.
    for row, length in enumerate((2, 3, 4, 5, 6, 6, 2, 3)):
        batch["completion_mask"][row, length:] = 0
    batch["gate_weights"] = batch["gate_weights"] * batch["completion_mask"]
    batch["gate_total"] = batch["gate_weights"].sum()
    lengths = batch["completion_mask"].sum(1).float()
    batch["num_items_in_batch"] = lengths.sum()
    dapo, distillation = _gradients(trainer, batch, "dapo")
    assert dapo.abs().max() > 1e-3
    mean = lengths.mean()
    for loss_type, factor in {
        "bnpo": 1.0,
        "cispo": 1.0,
        "vespo": 1.0,
        "dapo": 1.0,
        "dr_grpo": mean / 6,
        "luspo": mean,
    }.items():
        policy, taught = _gradients(trainer, batch, loss_type)
        torch.testing.assert_close(policy, factor * dapo, rtol=1e-3, atol=1e-5, msg=loss_type)
        torch.testing.assert_close(taught, distillation, rtol=1e-3, atol=1e-5, msg=loss_type)
    grpo, sapo = (_gradients(trainer, batch, name)[0] for name in ("grpo", "sapo"))
    torch.testing.assert_close(grpo, sapo, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(grpo, dapo, rtol=1e-2, atol=1e-4), "every rollout weighs the same, not every token"
