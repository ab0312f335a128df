"""The student's one forward: TRL's fused output head, and beside it the divergence of the gated tokens.

Shapes: B rollouts of a micro-batch, T completion tokens, L whole sequence, H hidden width, N gated tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.trainer.utils import FusedCausalLMOutput, maybe_gather_lm_head_ctx

from kepo.models.head import output_head
from kepo.objective.divergence import OutputHead, chunked_divergence, sparse_divergence
from kepo.teachers.base import DenseScores, Scores, SparseScores


@dataclass
class DistilledOutput(FusedCausalLMOutput):
    """TRL's fused output with the divergence of the gated tokens, so that FSDP and DDP see its graph."""

    divergence: torch.Tensor | None = None  # (N,) at the gated positions, rows first


@dataclass(frozen=True)
class DistillationTarget:
    """The teacher's view of one micro-batch."""

    weights: torch.Tensor  # (B, T) gate weights; positions with weight 0 are not computed
    scores: Sequence[Scores | None]  # one entry per row; None where the row has no weight
    teacher_head: OutputHead | None  # of a teacher with dense scores
    interpolation: float  # of the divergence, in [0, 1]
    temperature: float  # of the softmax, > 0
    chunk_size: int  # tokens whose vocabulary is expanded at once

    def divergence(self, student_hidden: torch.Tensor, student_head: OutputHead) -> torch.Tensor:
        """(N,) divergence at the positions with weight, from the student's states (B, T, H)."""
        device = student_head.weight.device
        open_positions = self.weights.to(device) > 0  # (B, T)
        student = student_hidden.to(device)[open_positions]  # (N, H)
        rows = [(row, scores) for row, scores in enumerate(self.scores) if scores is not None]
        dense = [(row, scores) for row, scores in rows if isinstance(scores, DenseScores)]
        sparse = [(row, scores) for row, scores in rows if isinstance(scores, SparseScores)]
        if sparse:
            ids = torch.cat([s.ids.to(device)[open_positions[r, : len(s.ids)]] for r, s in sparse])
            logps = torch.cat([s.logps.to(device)[open_positions[r, : len(s.logps)]] for r, s in sparse])
            return sparse_divergence(
                student, student_head, ids, logps, interpolation=self.interpolation, chunk_size=self.chunk_size
            )
        if not dense or self.teacher_head is None:
            return student.sum(-1) * 0.0  # no gated token in this micro-batch: an empty tensor that keeps the graph
        hidden = torch.cat([s.hidden[open_positions[r, : len(s.hidden)].to(s.hidden.device)] for r, s in dense])
        return chunked_divergence(
            student,
            student_head,
            hidden,
            self.teacher_head,
            interpolation=self.interpolation,
            temperature=self.temperature,
            chunk_size=self.chunk_size,
        )


def add_divergence(model: Any) -> None:
    """Let `model(..., fused_lm_head=True, distillation_target=...)` return the divergence from the SAME forward pass.

    TRL's fused forward runs the backbone and the output head; this wraps it and keeps the backbone's last hidden
    states of that very call. Everything happens inside the (wrapped) model's forward, where sharded parameters are
    materialized. Call it after TRL patched the model and before the model is wrapped for distributed training.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    fused_forward = base.forward
    caught: list[torch.Tensor] = []
    listening = [False]

    def catch(_module: Any, _args: Any, output: Any) -> None:
        if listening[0]:
            caught.append(output.last_hidden_state)

    base.base_model.register_forward_hook(catch)

    @functools.wraps(fused_forward)  # `generate` validates its arguments against the signature
    def forward(*args: Any, distillation_target: DistillationTarget | None = None, **kwargs: Any) -> Any:
        if distillation_target is None:
            return fused_forward(*args, **kwargs)
        listening[0] = True
        try:
            output = fused_forward(*args, **kwargs)
            hidden = caught[-1]  # (B, L, H)
        finally:
            listening[0] = False
            caught.clear()
        tokens = distillation_target.weights.size(1)
        student_hidden = hidden[:, -tokens - 1 : -1]  # (B, T, H): state t predicts token t
        divergence = distillation_target.divergence(student_hidden, _whole_head(base))
        return DistilledOutput(**output, divergence=divergence)

    base.forward = forward


def _whole_head(model: Any) -> OutputHead:
    """The student's output head with all its rows, also where it is sharded."""
    head = output_head(model)
    weight, bias = head.weight, head.bias
    if isinstance(weight, DTensor):
        weight = weight.full_tensor()
        bias = bias.full_tensor() if isinstance(bias, DTensor) else bias
    elif is_deepspeed_zero3_enabled():
        with maybe_gather_lm_head_ctx(weight, bias):
            # A copy, because the gathered parameter is released again before the backward pass reads it.
            weight = weight.clone()
            bias = None if bias is None else bias.clone()
    return OutputHead(weight=weight, bias=bias, scale=head.scale, softcap=head.softcap)
