"""The trainers that a KEPO step is compared with.

`TRLDistillation` is TRL's GRPO plus TRL's distillation loss; `PublicPattern` renders what the public implementation of
KEPO does in every step: the policy term from whole-vocabulary logits, a reference model that beta = 0 never uses, a
second forward pass of the student, the teacher on every row, images encoded for every rollout. Where that
implementation would divide 0 by 0 (no gate open), this one has a loss of 0. All take the same gate, so that in one
micro-batch their losses are those of `KEPOTrainer`.

Legend: B rows of a micro-batch, T completion tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from trl import DistillationTrainer, GRPOTrainer
from trl.experimental.gkd import GKDTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

_IMAGE_FIELDS = ("pixel_values", "image_grid_thw", "mm_token_type_ids", "token_type_ids")
INTERPOLATION = 0.5


class GatedGRPO(GRPOTrainer):
    """TRL's GRPO, whose batches say which rollouts were rewarded.

    Args:
        teacher_model: Frozen, of the student's vocabulary.
        distillation_weight: lambda.
        gate_threshold: tau: lowest total reward of a rollout whose gate is open.
    """

    def __init__(
        self,
        *args: Any,
        teacher_model: Any,
        distillation_weight: float = 1.0,
        gate_threshold: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.teacher_model = teacher_model
        self.distillation_weight = distillation_weight
        self.gate_threshold = gate_threshold

    def _calculate_rewards(self, *args: Any) -> torch.Tensor:
        self._rewards = super()._calculate_rewards(*args)
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        batch["gate"] = self._rewards.sum(1) >= self.gate_threshold  # (B,)
        batch["gated_tokens"] = (batch["completion_mask"] * batch["gate"].unsqueeze(1)).sum()
        return batch


class TRLDistillation(GatedGRPO):
    """TRL's policy loss, then TRL's distillation loss of the gated tokens from a second forward pass."""

    # TRL's distillation trainer looks here for what a model's forward takes; a backbone takes no `logits_to_keep`.
    model_kwarg_keys: frozenset[str] = frozenset()

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        read = _read(inputs)
        student = DistillationTrainer._get_last_hidden_state(self, model, **read)
        teacher = self.teacher_output(read)
        mask = inputs["completion_mask"] * inputs["gate"].unsqueeze(1)
        heads = model.get_output_embeddings().weight, self.teacher_model.get_output_embeddings().weight
        divergence, _, _ = _chunked_divergence_loss(
            student, teacher, *heads, mask, INTERPOLATION, num_items_in_batch=inputs["gated_tokens"].clamp(min=1)
        )
        return loss + self.distillation_weight * divergence

    @torch.no_grad()
    def teacher_output(self, read: Mapping[str, Any]) -> torch.Tensor:
        """The teacher's last hidden states of all rows."""
        return DistillationTrainer._get_last_hidden_state(self, self.teacher_model, **read)


class PublicPattern(GatedGRPO):
    """Two forward passes of the student, one of teacher and reference on all rows, whole logits in each.

    Args:
        reference_model: Frozen copy of the student.
    """

    def __init__(self, *args: Any, reference_model: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reference_model = reference_model

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        batch["unused_reference_logps"] = self.reference_logps(batch)
        return batch

    @torch.no_grad()
    def reference_logps(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """(B, T) log-probabilities by the reference model, a training micro-batch at a time."""
        size, rows = self.args.per_device_train_batch_size, len(batch["prompt_ids"])
        counts = {name: len(batch[name]) // rows for name in _IMAGE_FIELDS if name in batch}
        parts = []
        for start in range(0, rows, size):
            part = {
                name: batch[name][start : start + size]
                for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
            }
            part |= {name: batch[name][start * n : (start + size) * n] for name, n in counts.items()}
            logits = _completion_logits(self.reference_model, _read(part), self.temperature)
            parts.append(selective_log_softmax(logits, part["completion_ids"]))
        return torch.cat(parts)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *_: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        read = {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": logits_to_keep}
        read |= {name: kwargs[name] for name in _IMAGE_FIELDS if kwargs.get(name) is not None}
        with self.accelerator.autocast():
            logits = _completion_logits(model, read, self.temperature)
        entropies = entropy_from_logits(logits) if kwargs.get("compute_entropy") else None
        return selective_log_softmax(logits, input_ids[:, -logits_to_keep:]), entropies, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        read = _read(inputs)
        teacher = self.teacher_output(read)
        student = _completion_logits(model, read, self.temperature)
        open_tokens = (inputs["completion_mask"] * inputs["gate"].unsqueeze(1)).bool()
        labels = inputs["completion_ids"].masked_fill(~open_tokens, -100)
        divergence = GKDTrainer.generalized_jsd_loss(student, teacher, labels, INTERPOLATION)
        return loss + self.distillation_weight * divergence / self.current_gradient_accumulation_steps

    @torch.no_grad()
    def teacher_output(self, read: Mapping[str, Any]) -> torch.Tensor:
        """(B, T, V) the teacher's logits of all rows."""
        return _completion_logits(self.teacher_model, read, self.temperature)


def _read(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a model reads of a micro-batch, under the names of TRL's distillation trainer."""
    return {
        "input_ids": torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        "attention_mask": torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
        "logits_to_keep": inputs["completion_ids"].size(1),
        **{name: inputs[name] for name in _IMAGE_FIELDS if name in inputs},
    }


def _completion_logits(model: Any, read: Mapping[str, Any], temperature: float) -> torch.Tensor:
    """(B, T, V): logits t predict token t."""
    tokens = read["logits_to_keep"]
    given = {**read, "logits_to_keep": tokens + 1}
    return model(**given, use_cache=False).logits[:, :-1] / temperature
