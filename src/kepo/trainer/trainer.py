"""`KEPOTrainer`: TRL's `GRPOTrainer` with exploration after the rollouts and the gated teacher term in the loss.

With `distillation_weight=0` and `exploration="none"` every override hands straight to TRL, so the run is TRL's GRPO bit
for bit. Shapes: B sequences, T completion tokens, N gated tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOTrainer

from kepo.errors import ConfigError, KepoError
from kepo.objective.loss import distillation_loss, step_normalizer
from kepo.objective.weights import injected_old_logps
from kepo.prompts import hint_request
from kepo.teachers.base import CountingTeacher, Teacher
from kepo.trainer import checks, seams
from kepo.trainer.config import TOTAL_REWARD, KEPOConfig
from kepo.trainer.exploring import ExplorationStep, Rollouts, make_explorer
from kepo.trainer.off_policy import check_references, put_references
from kepo.trainer.outages import TogetherWriter, random_states, save_before_stopping, together
from kepo.trainer.resuming import CheckpointWeights
from kepo.trainer.rollout_log import write_rollouts
from kepo.trainer.round import Round
from kepo.trainer.shared_images import share_image_features
from kepo.trainer.teaching import TeachingStep


class KEPOTrainer(GRPOTrainer):
    """Knowledge-Enhanced Preference Optimization (arXiv 2602.00400) on TRL's GRPO trainer.

    Args:
        model: As in `GRPOTrainer`: a path, a hub name or a model.
        reward_funcs: As in `GRPOTrainer`. One of them says what is correct (`KEPOConfig.correctness_reward`).
        args: A `KEPOConfig`.
        train_dataset: Columns `prompt`, and what the rewards read. Exploration with hints reads `answer` (or
            `solution`), `options` if there are any, and `id`.
        teacher: Needed for the teacher term, and for hints that `hint_bank` does not have; see `kepo.teachers`.
        **grpo: Everything else that `GRPOTrainer` takes (`eval_dataset`, `processing_class`, `peft_config`, ...).

    Raises:
        ConfigError: Settings that cannot work together, or that name a reward that is not there.
        DataError: An empty data set.
        TeacherError: A teacher whose vocabulary is not the student's.
    """

    # What TRL writes into the model card.
    _tag_names: ClassVar[list[str]] = ["trl", "kepo"]
    _name = "KEPO"
    _paper: ClassVar[dict[str, str]] = {"title": "KEPO: Knowledge-Enhanced Preference Optimization", "id": "2602.00400"}

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: KEPOConfig | None = None,
        train_dataset: Any = None,
        *,
        teacher: Teacher | None = None,
        **grpo: Any,
    ) -> None:
        args = KEPOConfig("kepo-run") if args is None else args
        functions = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs] if reward_funcs else []
        names = seams.reward_names(functions)
        correctness = checks.correctness_index(args, names, functions)
        checks.check_gate_reward(args, names)
        checks.check_teacher(args, teacher)
        checks.check_dataset(train_dataset)
        check_references(train_dataset, args.lmbda)
        checks.check_generation(args, grpo)
        hint_writer = TogetherWriter(self, teacher) if teacher is not None and args.uses_hints else None
        explorer = None
        if args.exploration != "none":
            explorer = make_explorer(args, hint_writer, through=lambda call: together(self, call))
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, train_dataset=train_dataset, **grpo)
        checks.check_chat_template(self.processing_class, train_dataset)
        if args.share_image_features:
            share_image_features(self.model)
        seams.mend_colocated_images(self)

        self.teacher = teacher
        self.failure: KepoError | None = None  # for which all processes stop together, see `outages`
        self._round: Round | None = None
        self._loss_inputs: dict[str, Any] | None = None
        self._target: seams.DistillationTarget | None = None
        self._divergence: torch.Tensor | None = None
        self._random_states: dict[str, Any] | None = None
        self._exploration = None if explorer is None else ExplorationStep(self, explorer, correctness)
        self._teaching: TeachingStep | None = None
        if teacher is not None:
            self._welcome(teacher, args, names[correctness] if names else TOTAL_REWARD)
            prompt = next(iter(train_dataset))["prompt"]
            teacher.check_prompt(hint_request(prompt, "") if args.uses_hints else prompt)

    def _welcome(self, teacher: Teacher, args: KEPOConfig, correctness_reward: str) -> None:
        """Check the teacher against the student, place it, and prepare the student's forward for it."""
        if args.uses_teacher_scores:
            if teacher.head is None and args.divergence_temperature != 1.0:
                raise ConfigError(
                    f"divergence_temperature is {args.divergence_temperature}, but this teacher tells its likeliest "
                    "tokens only, at temperature 1. Set divergence_temperature to 1, or use a LocalTeacher."
                )
            # From the config, because a sharded embedding may have no rows here.
            teacher.check_student(self._tokenizer, self.model.config.get_text_config().vocab_size)
            seams.add_divergence(self.model)
            self._teaching = TeachingStep(self, teacher, args.gate_reward or correctness_reward, correctness_reward)
        teacher.place(
            self.accelerator.device, seams.teacher_sharding(self), lambda n: seams.max_over_processes(self, n)
        )

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """As in `transformers.Trainer`; resuming also finds the weights of models that are saved under other names.

        Raises:
            KepoError: the teacher or the hint bank failed, here or on another process; a checkpoint of the last whole
                step was written before.
        """
        last = resume_from_checkpoint is True
        checkpoint = get_last_checkpoint(self.args.output_dir) if last else resume_from_checkpoint
        if checkpoint:
            self.add_callback(CheckpointWeights(self, str(checkpoint)))
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        except KepoError as error:
            if error is self.failure:
                save_before_stopping(self, self._random_states, error)
            raise

    # --- what the steps need ----------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Share of training done, 0..1."""
        return min(self.state.global_step / max(self.state.max_steps, 1), 1.0)

    def log_metric(self, name: str, value: float) -> None:
        """Add `value` to a training metric; TRL averages it over the logging interval."""
        self._metrics["train"][name].append(value)

    def sum_over_processes(self, value: float) -> float:
        """The sum of `value` over all processes (collective)."""
        if self.accelerator.num_processes == 1:
            return value
        return float(self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).sum())

    # --- rollouts ---------------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training:  # evaluation measures the policy alone
            return super()._generate_and_score_completions(inputs)
        self._random_states = random_states()
        self._round = round_ = Round(rows=inputs)
        try:
            output = super()._generate_and_score_completions(inputs)
            return self._finish_round(round_, output)
        finally:
            self._round = None

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        round_ = self._round
        if round_ is None:
            return super()._generate(prompts)
        with round_.clock("rollouts"):
            prompt_ids, completion_ids, tool_mask, completions, logprobs, *rest = super()._generate(prompts)
        round_.prompts = prompts  # TRL's own list: a prompt replaced here is replaced in the rest of its step too
        round_.completions = completions
        rollouts = Rollouts(prompt_ids, completion_ids, completions, logprobs)
        if self.args.lmbda < 1:
            put_references(self, round_, rollouts)
        if self._exploration is not None:
            with round_.clock("exploration"):
                self._exploration.judge(round_, rollouts)
                if self._teaching is not None and self.args.distillation_weight_at(self.progress) > 0:
                    self._teaching.begin(round_, rollouts)
                self._exploration.run(round_, rollouts)
        return (prompt_ids, completion_ids, tool_mask, completions, logprobs, *rest)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._round is not None:
            first = self.accelerator.process_index * len(prompts)
            self._round.rewards = rewards[first : first + len(prompts)]
            self._log_spread(rewards)
        return rewards

    def _finish_round(self, round_: Round, output: dict[str, Any]) -> dict[str, Any]:
        """Add our keys to TRL's batch; every one has B as its first dimension, or none, so that TRL can split it."""
        if self._teaching is not None and self.args.distillation_weight_at(self.progress) > 0:
            output.update(self._teaching.run(round_, output))
        if self._exploration is not None:
            output["injected"] = round_.injected_mask(output["completion_ids"].device)
            injected = self.sum_over_processes(len(round_.injected))
            self.log_metric(
                "exploration/injected_share", injected / (len(round_.rows) * self.accelerator.num_processes)
            )
        if self._exploration is not None and self.args.injection_correction == "importance":
            output["behaviour_logps"] = _padded_rows(round_.behaviour_logps, output["completion_mask"])
        for phase, seconds in round_.seconds.items():
            self.log_metric(f"time/{phase}_s", seconds)
        if isinstance(self.teacher, CountingTeacher):
            for name, value in seams.sums_over_processes(self, self.teacher.take_metrics()).items():
                self.log_metric(name, value)
        if self.args.rollout_log:
            write_rollouts(self, round_, output)
        if self.args.policy_weight != 1.0:
            output["advantages"] = output["advantages"] * self.args.policy_weight
        return output

    def _log_spread(self, rewards: torch.Tensor) -> None:
        totals = (rewards * self.reward_weights.to(rewards.device)).nansum(1).view(-1, self.num_generations)
        self.log_metric("reward_group_std", totals.std(1).mean().item())

    # --- the loss ---------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        inputs = {**inputs}  # the old log-probabilities of injected rows are set below, for this pass only
        self._target = self._distillation_target(inputs)
        self._loss_inputs = inputs if self._corrects_injection(inputs) else None
        try:
            loss = super()._compute_loss(model, inputs)
            if self._divergence is not None:
                return loss + self._teacher_term(inputs, self._divergence)
            if "gate_weights" in inputs:
                self.log_metric("distillation/loss", 0.0)
            return loss
        finally:
            self._target = self._loss_inputs = self._divergence = None

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        if self._target is not None:
            model = seams.ForwardWithTarget(model, self._target)
        logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if isinstance(model, seams.ForwardWithTarget):
            self._divergence = model.divergence
        if self._loss_inputs is not None:
            self._correct_injection(self._loss_inputs, logps)
        return logps, entropies, aux_loss

    def _distillation_target(self, inputs: Mapping[str, Any]) -> seams.DistillationTarget | None:
        """The teacher's view of this micro-batch; None when the gate is closed everywhere, which then costs nothing."""
        if "gate_weights" not in inputs or inputs["gate_open"] == 0 or self.teacher is None:
            return None
        if self.accelerator.num_processes == 1 and not bool(inputs["gate_weights"].any()):
            return None
        return seams.DistillationTarget(
            weights=inputs["gate_weights"],
            scores=inputs["teacher_scores"],
            teacher_head=self.teacher.head,
            interpolation=self.args.divergence_interpolation,
            temperature=self.args.divergence_temperature,
            chunk_size=self.args.divergence_chunk_size,
        )

    def _teacher_term(self, inputs: Mapping[str, Any], divergence: torch.Tensor) -> torch.Tensor:
        """lambda times the gated divergence of this micro-batch's share of the optimizer step."""
        weights = inputs["gate_weights"]
        normalizer = step_normalizer(
            inputs["gate_total"],
            self.accelerator.num_processes,
            self.current_gradient_accumulation_steps,
            self.args.steps_per_generation,
        )
        gated = weights[weights > 0].to(divergence.device)
        loss = distillation_loss(divergence, gated, normalizer)
        scale = self.current_gradient_accumulation_steps
        self.log_metric("distillation/loss", self.accelerator.reduce(loss.detach(), reduction="mean").item() * scale)
        weight = self.args.distillation_weight_at(self.progress)
        self.log_metric("distillation/weight", weight)
        return weight * loss.to(weights.device)

    def _corrects_injection(self, inputs: Mapping[str, Any]) -> bool:
        return self.args.injection_correction != "none" and "injected" in inputs and bool(inputs["injected"].any())

    def _correct_injection(self, inputs: dict[str, Any], logps: torch.Tensor) -> None:
        inputs["old_per_token_logps"] = injected_old_logps(
            logps,
            inputs.get("old_per_token_logps"),
            inputs["injected"],
            self.args.injection_correction,
            self.args.injection_gamma,
            inputs.get("behaviour_logps"),
        )


def _padded_rows(rows: Mapping[int, Sequence[float]], mask: torch.Tensor) -> torch.Tensor:
    """(B, T) the given rows, NaN elsewhere."""
    padded = torch.full(mask.shape, float("nan"), device=mask.device)
    for row, values in rows.items():
        padded[row, : len(values)] = torch.tensor(values, device=mask.device)
    return padded
