"""One forward pass of the student, and everything the loss needs of its tokens from it.

Shapes: B rollouts of a micro-batch, T completion tokens, H hidden width, V vocabulary, N tokens that are scored, M
gated ones among them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import ModelOutput
from trl.trainer.utils import maybe_gather_lm_head_ctx

from kepo.models.head import output_head
from kepo.objective import DenseTeacher, SparseTeacher
from kepo.objective.divergence import OutputHead
from kepo.teachers.base import DenseScores, Scores, SparseScores
from kepo.trainer.adapter.head_terms import token_terms


@dataclass
class TokenOutput(ModelOutput):
    """What a pass says of its tokens; an output of the model, so that FSDP and DDP see its graph."""

    logps: torch.Tensor | None = None  # (N,) in nats
    entropy: torch.Tensor | None = None  # (N,) in nats
    divergence: torch.Tensor | None = None  # (M,) in nats
    aux_loss: torch.Tensor | None = None  # load-balancing loss of a mixture of experts


@dataclass(frozen=True)
class DistillationTarget:
    """The teacher's view of one micro-batch."""

    weights: torch.Tensor  # (B, T) gate weights; positions with weight 0 are not computed
    scores: Sequence[Scores | None]  # one entry per row; None where the row has no weight
    teacher_head: OutputHead | None  # of a teacher with dense scores
    interpolation: float  # of the divergence, in [0, 1]
    temperature: float  # of the softmax, > 0
    chunk_size: int  # tokens whose vocabulary is expanded at once, at most

    def teacher(self, device: torch.device) -> DenseTeacher | SparseTeacher | None:
        """What is known of the teacher at the M positions with weight, rows first; None: nothing."""
        open_positions = self.weights > 0  # (B, T)
        rows = [(row, scores) for row, scores in enumerate(self.scores) if scores is not None]
        dense = [(row, scores) for row, scores in rows if isinstance(scores, DenseScores)]
        sparse = [(row, scores) for row, scores in rows if isinstance(scores, SparseScores)]

        def gated(row: int, values: torch.Tensor) -> torch.Tensor:
            return values[open_positions[row, : len(values)].to(values.device)]

        if sparse:
            ids = torch.cat([gated(row, scores.ids).to(device) for row, scores in sparse])
            return SparseTeacher(ids, torch.cat([gated(row, scores.logps).to(device) for row, scores in sparse]))
        if not dense or self.teacher_head is None:
            return None
        return DenseTeacher(torch.cat([gated(row, scores.hidden) for row, scores in dense]), self.teacher_head)


@dataclass(frozen=True)
class TokenPass:
    """What is wanted of a forward pass, beside the model's own inputs.

    Attributes:
        states: (N,) where the states that predict the tokens stand among all those of the batch.
        tokens: (N,) the tokens.
        temperature: Divides the policy's logits.
        entropy: Whether the entropies are wanted.
        float32_head: Whether the product with the output head is in float32.
        target: The teacher's view; None: no divergence.
        gated: (N,) bool, where `target` has weight.
    """

    states: torch.Tensor
    tokens: torch.Tensor
    temperature: float
    entropy: bool
    float32_head: bool = False
    target: DistillationTarget | None = None
    gated: torch.Tensor | None = None


def add_token_pass(model: Any) -> None:
    """Let `model(..., token_pass=TokenPass(...))` return a `TokenOutput`, all of it from ONE pass of the backbone.

    Everything happens inside the (wrapped) model's forward, where sharded parameters are materialized. Call it after
    TRL patched the model and before the model is wrapped for distributed training.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    other_forward = base.forward

    @functools.wraps(other_forward)  # `generate` validates its arguments against the signature
    def forward(*args: Any, token_pass: TokenPass | None = None, **kwargs: Any) -> Any:
        if token_pass is None:
            return other_forward(*args, **kwargs)
        output = base.base_model(*args, **kwargs, use_cache=False)
        states = output.last_hidden_state.flatten(0, 1)  # (n * S, H)
        head = _whole_head(base)
        device = head.weight.device
        hidden = states[token_pass.states].to(device)
        target = token_pass.target
        teacher = None if target is None else target.teacher(device)
        terms = token_terms(
            hidden,
            head,
            token_pass.tokens.to(device),
            token_pass.temperature,
            teacher=teacher,
            gated=None if teacher is None else token_pass.gated,
            interpolation=0.5 if target is None else target.interpolation,
            divergence_temperature=1.0 if target is None else target.temperature,
            chunk_size=None if target is None else target.chunk_size,
            entropy=token_pass.entropy,
            dtype=torch.float32 if token_pass.float32_head else None,
        )
        divergence = None if target is None else terms.divergence
        aux_loss = _aux_loss(base, output, kwargs) if kwargs.get("output_router_logits") else None
        return TokenOutput(logps=terms.logps, entropy=terms.entropy, divergence=divergence, aux_loss=aux_loss)

    base.forward = forward


def _aux_loss(model: Any, output: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The load-balancing loss of a mixture of experts, as transformers computes it for every family."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = model.config.get_text_config()
    mask = inputs.get("attention_mask")
    loss: torch.Tensor = load_balancing_loss_func(
        output.router_logits, config.num_experts, config.num_experts_per_tok, mask
    )
    return loss


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
