"""The loss of TRL's `GRPOTrainer`, computed from forward passes of our own where a run asks for them.

B rollouts of a micro-batch, T completion tokens, M gated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOTrainer

from kepo.models.packing import rows_of
from kepo.models.shared_prompt import SharedPrompt
from kepo.trainer.adapter.forward import DistillationTarget, add_token_pass
from kepo.trainer.adapter.micro_batches import whole_group_batches
from kepo.trainer.adapter.passes import PassSettings, StudentPasses
from kepo.trainer.phases import WithPhases, logprobs_phase
from kepo.trainer.processes import Processes

OldLogps = Callable[[torch.Tensor], torch.Tensor]
"""From the current policy's (B, T) log-probabilities of the tokens to those the ratio is taken to."""


@dataclass
class _LossPass:
    """One pass of the policy loss: what is added to TRL's forward, and what comes out of it beside TRL's loss."""

    inputs: dict[str, Any]
    target: DistillationTarget | None
    old_logps: OldLogps | None
    idle: torch.Tensor | None
    divergence: torch.Tensor | None = None
    entropy: torch.Tensor | None = None  # (2,) sum of the entropies of the rows that are not idle, and their tokens

    def note_entropies(self, entropies: torch.Tensor) -> None:
        """Remember those (B, T) of the rows that were computed for the loss."""
        mask = self.inputs["completion_mask"] * self.inputs.get("tool_mask", 1)
        if self.idle is not None:
            mask = mask * ~self.idle.unsqueeze(1).to(mask.device)
        self.entropy = torch.stack([(entropies.detach() * mask).sum(), mask.sum().to(entropies.dtype)])

    def correct(self, logps: torch.Tensor) -> None:
        """Set the old log-probabilities that TRL compares `logps` (B, T) with."""
        if self.old_logps is not None:
            self.inputs["old_per_token_logps"] = self.old_logps(logps)
        old = self.inputs.get("old_per_token_logps")
        if self.idle is not None and old is not None:
            # Nothing is known of rows that were not computed; a ratio of 1 keeps them out of the clipping metrics.
            idle = self.idle.unsqueeze(1).to(old.device)
            self.inputs["old_per_token_logps"] = torch.where(idle, logps.detach(), old)


class LossAdapter(WithPhases, GRPOTrainer):
    """TRL's GRPO trainer, whose log-probabilities may come from passes of our own; the formula of the loss is TRL's.

    Attributes:
        processes: The processes of the run.
        passes: Forward passes of our own, by policy ("student", "reference model"); empty: TRL's.
    """

    _buffered_inputs: list[dict[str, Any]] | None
    _loss_pass: _LossPass | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.processes = Processes(self.accelerator)
        self.passes: dict[str, StudentPasses] = {}

    def log_metric(self, name: str, value: float) -> None:
        """Add `value` to a training metric; TRL averages it over the logging interval."""
        self._metrics["train"][name].append(value)

    def compute_policy_loss(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        target: DistillationTarget | None = None,
        old_logps: OldLogps | None = None,
        idle: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """TRL's loss of a micro-batch, and the (M,) divergence of its gated tokens out of the same forward pass.

        Args:
            model: As TRL calls it.
            inputs: Of the micro-batch, B rows.
            target: The teacher's view; None: there is no divergence. Needs `use_token_passes`, like `idle`.
            old_logps: Gives the old log-probabilities; None: TRL's own.
            idle: (B,) bool, rows that have no gradient and need not be computed.
        """
        self._loss_pass = current = _LossPass({**inputs}, target, old_logps, idle)
        try:
            loss = super()._compute_loss(model, current.inputs)
        finally:
            self._loss_pass = None
        if idle is not None and current.entropy is not None and self.model.training:
            self._correct_entropy(current.entropy)
        return loss, current.divergence

    def _correct_entropy(self, entropy: torch.Tensor) -> None:
        """Replace TRL's metric, which counts idle rows as 0, by the mean over the others; there may be none."""
        total, tokens = self.processes.sum_tensor(entropy).tolist()
        logged = self._metrics["train"]["entropy"]
        logged.pop()
        if tokens:
            logged.append(total / tokens)
        elif not logged:
            del self._metrics["train"]["entropy"]

    @property
    def sees_every_row(self) -> bool:
        """Whether a term of TRL's loss looks at rows without advantage, too.

        These are the KL term, the entropy bonus, the mask of entropies, and the load-balancing loss.
        """
        entropies = self._entropy_bonus_enabled or self.top_entropy_quantile < 1.0
        return bool(entropies or self.beta != 0.0 or self.aux_loss_enabled)

    @property
    def uses_autocast(self) -> bool:
        """Whether the student computes in half precision although its weights do not have it."""
        return bool(self.accelerator.mixed_precision in ("bf16", "fp16", "fp8"))

    def use_token_passes(self, *, share_prompt: bool) -> None:
        """Compute log-probabilities by passes of our own from here on: see `StudentPasses`.

        Args:
            share_prompt: Whether equal prompts are computed once.
        """
        reference = getattr(self, "ref_model", None)
        settings = PassSettings(self.temperature, self.args.cast_lm_head_to_fp32)
        pad_id = self._tokenizer.pad_token_id
        for who, policy in (("student", self.model), ("reference model", reference)):
            if policy is not None:
                plain = self.accelerator.unwrap_model(policy)
                add_token_pass(plain)
                share = share_prompt and not self.aux_loss_enabled
                shared = SharedPrompt(plain, pad_id, who, enabled=share, autocast=self.uses_autocast)
                self.passes[who] = StudentPasses(shared, settings, self.accelerator.autocast, self.processes.max)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        num_images: Sequence[int] | None = None,
        num_tiles: Sequence[int] | None = None,
        **fields: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        given = {"num_images": num_images, "num_tiles": num_tiles, **fields}
        with logprobs_phase(self.phases):
            compute = self._token_passes if self.passes else super()._get_per_token_logps_and_entropies
            logps, entropies, aux_loss = compute(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, **given
            )
        if self._loss_pass is not None:
            self._loss_pass.correct(logps)
        return logps, entropies, aux_loss

    def _token_passes(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        width: int,
        batch_size: int | None,
        entropy: bool,
        aux_loss: bool,
        num_images: Sequence[int] | None,
        num_tiles: Sequence[int] | None,
        **fields: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """As `_get_per_token_logps_and_entropies` of TRL, by passes of our own."""
        current = self._loss_pass
        image_token = getattr(self.model.config, "image_token_id", None)
        rows = rows_of(input_ids, attention_mask, width, fields, num_images, num_tiles, image_token)
        passes = self.passes["reference model" if model is getattr(self, "ref_model", None) else "student"]
        size = batch_size or len(rows)
        results = [
            passes.run(
                model,
                rows[start : start + size],
                width,
                input_ids.device,
                idle=None if current is None else current.idle,
                entropy=entropy,
                target=None if current is None else current.target,
                **({"output_router_logits": True} if aux_loss else {}),
            )
            for start in range(0, len(rows), size)
        ]
        if current is not None:
            current.divergence = results[0].divergence
            if self.model.training:
                left_out = 0.0 if current.idle is None else current.idle.float().mean().item()
                self.log_metric("training/rows_share", 1.0 - left_out)
                self.log_metric("training/tokens", float(sum(result.computed for result in results)))
        entropies = [result.entropies for result in results if result.entropies is not None]
        if current is not None and entropies:
            current.note_entropies(entropies[0])
        aux_losses = [result.aux_loss for result in results if result.aux_loss is not None]
        return (
            torch.cat([result.logps for result in results]),
            torch.cat(entropies) if entropies else None,
            torch.stack(aux_losses).mean() if aux_losses else None,
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if not (self.passes and self.model.training):
            return super()._prepare_inputs(generation_batch)
        count = self.args.steps_per_generation
        if self._step % (count * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            first_row = self.processes.index * len(generation_batch)
            self._buffered_inputs = whole_group_batches(batch, count, self.num_generations, first_row)
        return self._buffered_inputs[self._step % count]
