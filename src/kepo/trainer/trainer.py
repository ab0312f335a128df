"""`KEPOTrainer`: TRL's `GRPOTrainer` with exploration after the rollouts and the gated distillation loss.

With `distillation_weight=0` and `exploration="none"` every hook hands straight to TRL, so the run is TRL's GRPO bit
for bit. Shapes: B sequences, T completion tokens, N gated tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig

from kepo.errors import ConfigError, KepoError
from kepo.models.shared_images import share_image_features
from kepo.objective.loss import distillation_loss, step_normalizer
from kepo.objective.weights import injected_old_logps
from kepo.runs.folder import claim
from kepo.teachers.base import CountingTeacher, Teacher
from kepo.trainer import checks
from kepo.trainer.adapter import DistillationTarget, TRLAdapter, distinct_names, reward_names
from kepo.trainer.config import KEPOConfig
from kepo.trainer.exploring import ExplorationStep, make_explorer
from kepo.trainer.from_grpo import as_kepo_config
from kepo.trainer.generation_batch import Completions, GenerationBatch, Rollouts, RowReward, put_references
from kepo.trainer.idle_rows import equal_in_groups, idle_rows
from kepo.trainer.model_card import create_model_card
from kepo.trainer.phases import EXPLORATION, LOGGING, REST, REWARDS, ROLLOUTS
from kepo.trainer.probe import (
    QUICK,
    WHOLE,
    GradientWatch,
    Probe,
    Scope,
    check_steps,
    check_trained,
    look,
    owns_rollouts,
    say,
)
from kepo.trainer.processes import FailTogether, together_writer
from kepo.trainer.resuming import CheckpointWeights, random_states, save_before_stopping
from kepo.trainer.run_folder import RunRecord, script_parts, write_rollouts
from kepo.trainer.teaching import TeachingStep, check_teacher_prompt
from kepo.trainer.trained_on import keep_trained_on
from kepo.types import Prompt


class KEPOTrainer(TRLAdapter):
    """Knowledge-Enhanced Preference Optimization (arXiv 2602.00400) on TRL's GRPO trainer.

    Args:
        model: As in `GRPOTrainer`: a path, a hub name or a model.
        reward_funcs: As in `GRPOTrainer`. One of them says what is correct (`KEPOConfig.correctness_reward`).
        args: A `KEPOConfig`; or a `GRPOConfig`, whose fields are kept, with everything of KEPO's at its defaults.
        train_dataset: Columns `prompt`, and what the rewards read. Exploration with hints reads `answer` (or
            `solution`), `options` if there are any, and `id`. May be left out as in `GRPOTrainer`.
        eval_dataset: As in `GRPOTrainer`, like the following ones.
        processing_class: Of the student.
        reward_processing_classes: Of reward models.
        callbacks: Called while training.
        optimizers: Optimizer and learning rate schedule.
        quantization_config: How the student is loaded.
        peft_config: The adapter that is trained.
        tools: Functions that the student may call.
        rollout_func: Makes the rollouts.
        environment_factory: Makes the environments that the student acts in.
        teacher: Needed for the distillation loss, and for hints that `hint_bank` does not have; see `kepo.teachers`.

    Raises:
        ConfigError: Settings that cannot work together, or that name a reward that is not there.
        DataError: An empty data set.
        TeacherError: A teacher whose vocabulary is not the student's.
    """

    _batch: GenerationBatch | None = None

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: Any = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        tools: Any = None,
        rollout_func: Any = None,
        environment_factory: Any = None,
        *,
        teacher: Teacher | None = None,
    ) -> None:
        args = as_kepo_config(args)
        own = {"rollout_func": rollout_func, "environment_factory": environment_factory}
        reward_funcs = list(reward_funcs) if isinstance(reward_funcs, tuple) else reward_funcs
        functions = [] if reward_funcs is None else reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        names = distinct_names(reward_names(functions))
        checks.check_given(args, teacher, functions, names, train_dataset, eval_dataset, own)
        self._together = FailTogether(lambda value: self.processes.max(value))
        explorer = None
        if args.exploration != "none":
            writer = together_writer(teacher, self._together) if teacher is not None and args.uses_hints else None
            explorer = make_explorer(args, writer, through=self._together)
        super().__init__(
            model,
            reward_funcs,
            args,
            train_dataset,
            eval_dataset,
            processing_class,
            reward_processing_classes,
            callbacks,
            optimizers,
            quantization_config,
            peft_config,
            tools,
            rollout_func,
            environment_factory,
        )
        names = distinct_names(self.reward_func_names)  # those of an environment included
        self._correctness, gate_reward = checks.reward_indices(args, names, self.reward_funcs)
        if args.share_image_features:
            share_image_features(self.model)
        if args.share_prompt or args.skip_idle_rows or args.uses_teacher_scores:
            self.use_token_passes(share_prompt=bool(args.share_prompt))

        self.teacher = teacher
        self.run_record = RunRecord(self, script_parts(self, functions, teacher))
        self.add_callback(self.run_record)
        self._random_states: dict[str, Any] | None = None
        self._exploration = None if explorer is None else ExplorationStep(explorer, self, self._correctness)
        if self._exploration is not None and self._exploration.memory is not None:
            self.add_callback(self._exploration.memory)
        self._teaching: TeachingStep | None = None
        if teacher is not None:
            self._prepare_teacher(teacher, args, gate_reward)
        self._owns_rollouts = owns_rollouts(own)
        first = checks.first_prompt(train_dataset, own)
        self._prompt_unchecked = first is None
        if first is not None:
            self._check_prompt(first)
        self.add_callback(GradientWatch(vars(args)))
        self.first_look = self.probe(QUICK)

    def probe(self, scope: Scope = WHOLE, style: str | None = None) -> Probe:
        """What makes a run useless, looked for on the real model, processor, data and rewards. Collective.

        Args:
            scope: How much is looked at.
            style: The prompt style that the prompts were made with; None: unknown.

        Raises:
            ConfigError: Settings or a model with which nothing could be learned.
            DataError: A row that cannot be trained on.
        """
        return self._together(lambda: look(self, self._correctness, scope, style, self._owns_rollouts))

    def _prepare_teacher(self, teacher: Teacher, args: KEPOConfig, gate_reward: int | None) -> None:
        """Check the teacher against the student, place it, and prepare the student's forward for it."""
        if args.uses_teacher_scores:
            if teacher.head is None and args.divergence_temperature != 1.0:
                raise ConfigError(
                    f"divergence_temperature is {args.divergence_temperature}, but this teacher tells its likeliest "
                    "tokens only, at temperature 1. Set divergence_temperature to 1, or use a LocalTeacher."
                )
            # From the config, because a sharded embedding may have no rows here.
            teacher.check_student(self.tokenizer, self.model.config.get_text_config().vocab_size)
            opens = gate_reward == self._correctness
            self._teaching = TeachingStep(teacher, self, self._together, gate_reward, correctness_opens=opens)
        teacher.place(self.accelerator.device, self.teacher_sharding, self.processes.max)

    def _check_prompt(self, prompt: Prompt) -> None:
        """The student and the teacher can read prompts of this form."""
        if self.rollout_func is None:  # which writes prompts in its own way
            checks.check_chat_template(self.processing_class, prompt)
        if self.teacher is not None:
            check_teacher_prompt(self.teacher, prompt, self.args.uses_hints)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """As in `transformers.Trainer`; resuming also finds the weights of models that are saved under other names.

        Args:
            resume_from_checkpoint: A checkpoint folder, or True: the last whole one in `output_dir`.
            **kwargs: Everything else that `transformers.Trainer.train` takes.

        Raises:
            ConfigError: There is no checkpoint to resume from, or no step to make.
            DataError: Not one optimizer step was made.
            KepoError: The teacher or the hint bank failed, here or on another process; a checkpoint of the last whole
                step was written before.
        """
        check_steps(self.args.max_steps, self.args.num_train_epochs)
        say(self.first_look)
        checkpoint = resume_from_checkpoint
        if checkpoint is True:
            checkpoint = claim(Path(self.args.output_dir), overwrite=False, resume="latest")
        self._together(lambda: self._keep_trained_on(resumed=bool(checkpoint)))
        self.add_callback(CheckpointWeights(self, str(checkpoint) if checkpoint else None))
        try:
            with self.run_record.writing():
                result = super().train(resume_from_checkpoint=checkpoint, **kwargs)
                check_trained(self.state.global_step)
                return result
        except KepoError as error:
            if error is self.failure:
                step = self.state.global_step
                save_before_stopping(self.args.output_dir, step, self._random_states, self.save_checkpoint, error)
            raise

    def _keep_trained_on(self, *, resumed: bool) -> None:
        if self.is_world_process_zero():
            keep_trained_on(Path(self.args.output_dir), self.train_dataset, resumed=resumed)

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        """Write `README.md` of the run folder; called with every checkpoint and by `push_to_hub`.

        Args:
            model_name: Of the model; default: the hub's, else the folder's.
            dataset_name: Not used: the run knows its data.
            tags: More tags.
        """
        create_model_card(self, self.run_record, model_name, tags)

    @property
    def failure(self) -> KepoError | None:
        """For what all processes stopped together; None as long as all goes well."""
        return self._together.failure

    @property
    def progress(self) -> float:
        """Share of training done, 0..1."""
        return min(self.state.global_step / max(self.state.max_steps, 1), 1.0)

    # --- rollouts ---------------------------------------------------------------------------------------------------

    def make_generation_batch(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch with our keys; every one has B as its first dimension, or none, so that TRL can split it."""
        if not self.model.training:  # evaluation measures the policy alone
            return super().make_generation_batch(rows)
        self._random_states = random_states()
        self._batch = batch = GenerationBatch(rows, first_row=self.processes.index * len(rows))
        try:
            with self.phases(REST):
                return self._finish_batch(batch, super().make_generation_batch(rows))
        finally:
            self._batch = None

    def generate_rollouts(self, prompts: list[Prompt]) -> Rollouts:
        """TRL's rollouts, some of them replaced by references or by what exploration kept."""
        batch = self._batch
        if batch is None:
            return super().generate_rollouts(prompts)
        if self._prompt_unchecked:
            self._together(lambda: self._check_prompt(prompts[0]))
            self._prompt_unchecked = False
        with self.phases(ROLLOUTS):
            rollouts = super().generate_rollouts(prompts)
        self.phases.times.completion_tokens += sum(map(len, rollouts.completion_ids))
        batch.prompts = prompts  # TRL's own list: a prompt replaced here is replaced in the rest of its step too
        batch.completions, batch.tool_images = rollouts.completions, rollouts.tool_images
        if self.args.lmbda < 1:
            put = put_references(batch, rollouts, self.args, self.state.global_step, self.reference_sample)
            for name, value in self.processes.sums(put).items():
                self.log_metric(name, value)
        if self._exploration is not None:
            with self.phases(REWARDS):
                self._exploration.score(batch, rollouts)
            # A teacher elsewhere works beside this process: on hints first, which are needed first.
            with self.phases(EXPLORATION):
                begun = self._exploration.begin(batch)
            self._begin_scoring(batch, rollouts)
            with self.phases(EXPLORATION):
                self._exploration.run(batch, rollouts, begun)
            self._begin_scoring(batch, rollouts)
        return rollouts

    def _begin_scoring(self, batch: GenerationBatch, rollouts: Rollouts) -> None:
        if self._teaching is not None and self._distillation_weight > 0:
            self._teaching.begin(batch, rollouts, self.progress)

    def score_rollouts(
        self, rollouts: Completions, known: Mapping[int, Sequence[RowReward]] | None = None
    ) -> torch.Tensor:
        """As in `TRLAdapter`; what exploration knows is not computed again."""
        batch = self._batch
        if batch is not None and self._exploration is not None:
            known = {self._correctness: batch.correctness_rewards}
        with self.phases(REWARDS):
            rewards = super().score_rollouts(rollouts, known)
        if batch is not None:
            total = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
            batch.rewards, batch.total = rewards[batch.local], total[batch.local]
            batch.equal = equal_in_groups(total, rewards, self.num_generations)[batch.local]
            self.log_metric("reward_group_std", total.view(-1, self.num_generations).std(1).mean().item())
            if self._exploration is None:
                self._note_all_failed(batch, rewards)
        return rewards

    def _note_all_failed(self, batch: GenerationBatch, rewards: torch.Tensor) -> None:
        """What exploration notes where there is some: the groups without a correct rollout. A reward model has none."""
        functions = self.reward_funcs
        if functions and not isinstance(functions[self._correctness], torch.nn.Module):
            values = rewards[:, self._correctness].view(-1, self.num_generations)
            failed = (values < self.args.correctness_threshold).all(1)  # NaN, "does not apply", is no failure
            self.log_metric("exploration/all_failed_groups", failed.float().mean().item())
            batch.all_failed = failed.repeat_interleave(self.num_generations)[batch.local].tolist()

    def _finish_batch(self, batch: GenerationBatch, output: dict[str, Any]) -> dict[str, Any]:
        if self._teaching is not None and self._distillation_weight > 0:
            output.update(self._teaching.run(batch, output, self.progress))
        if self._exploration is not None:
            output["injected"] = batch.injected_mask(output["completion_ids"].device)
            injected = self.processes.sum_tensor(output["injected"].sum()).item()
            self.log_metric("exploration/injected_share", injected / (len(batch.rows) * self.processes.count))
            self._exploration.finish(batch, output)
            if self.args.injection_correction == "importance":
                # Not under TRL's own key "sampling_per_token_logps", which vLLM's rollouts fill, injected rows with
                # NaN: TRL takes its ratio to the training prompt, these belong to the hinted one.
                output["hinted_per_token_logps"] = _padded_rows(batch.hinted_logps, output["completion_mask"])
        if isinstance(self.teacher, CountingTeacher):
            for name, value in self.processes.sums(self.teacher.take_metrics()).items():
                self.log_metric(name, value)
        if self.args.rollout_log:
            with self.phases(LOGGING):
                write_rollouts(self, batch, output)
        if self.args.skip_idle_rows and self.args.multi_objective_aggregation == "sum_then_normalize":
            # Where all rewards of a group are equal, their mean may differ from them in the last bit, and what is left
            # of that divided by a standard deviation of 0 is noise; without it these rows have no gradient.
            assert batch.equal is not None
            output["advantages"] = output["advantages"].masked_fill(batch.equal.to(output["advantages"].device), 0.0)
        if self.args.policy_weight != 1.0:
            output["advantages"] = output["advantages"] * self.args.policy_weight
        return output

    # --- the loss ---------------------------------------------------------------------------------------------------

    def compute_batch_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The policy loss, and the distillation loss of a micro-batch with gated tokens."""

        def old_logps(logps: torch.Tensor) -> torch.Tensor:
            return self.corrected_old_logps(inputs, logps)

        corrects = self.args.injection_correction != "none" and "injected" in inputs and bool(inputs["injected"].any())
        target = self._distillation_target(inputs)
        idle = self._idle_rows(inputs)
        loss, divergence = self.compute_policy_loss(model, inputs, target, old_logps if corrects else None, idle)
        if divergence is not None:
            return loss + self._distillation_loss(inputs, divergence)
        if "gate_weights" in inputs:
            self.log_metric("distillation/loss", 0.0)
        return loss

    def _idle_rows(self, inputs: Mapping[str, Any]) -> torch.Tensor | None:
        if not self.args.skip_idle_rows or self.sees_every_row or not self.model.training:
            return None
        return idle_rows(inputs["advantages"], inputs.get("gate_weights"))

    def corrected_old_logps(self, inputs: Mapping[str, Any], logps: torch.Tensor) -> torch.Tensor:
        """(B, T) what the current log-probabilities are compared with, with the correction of injected rows."""
        return injected_old_logps(
            logps,
            inputs.get("old_per_token_logps"),
            inputs["injected"],
            self.args.injection_correction,
            self.args.injection_gamma,
            inputs.get("hinted_per_token_logps"),
        )

    @property
    def _distillation_weight(self) -> float:
        return self.args.distillation_weight_at(self.progress)

    def _distillation_target(self, inputs: Mapping[str, Any]) -> DistillationTarget | None:
        """The teacher's view of this micro-batch; None when the gate is closed everywhere, which then costs nothing."""
        if "gate_weights" not in inputs or inputs["gate_open"] == 0 or self.teacher is None:
            return None
        if self.processes.count == 1 and not bool(inputs["gate_weights"].any()):
            return None
        return DistillationTarget(
            weights=inputs["gate_weights"],
            scores=inputs["teacher_scores"],
            teacher_head=self.teacher.head,
            interpolation=self.args.divergence_interpolation,
            temperature=self.args.divergence_temperature,
            chunk_size=self.args.divergence_chunk_size,
        )

    def _distillation_loss(self, inputs: Mapping[str, Any], divergence: torch.Tensor) -> torch.Tensor:
        """lambda times the gated divergence of this micro-batch's share of the optimizer step."""
        weights = inputs["gate_weights"]
        normalizer = step_normalizer(
            inputs["gate_total"],
            self.processes.count,
            self.current_gradient_accumulation_steps,
            self.args.steps_per_generation,
        )
        gated = weights[weights > 0].to(divergence.device)
        loss = distillation_loss(divergence, gated, normalizer)
        scale = self.current_gradient_accumulation_steps
        self.log_metric("distillation/loss", self.accelerator.reduce(loss.detach(), reduction="mean").item() * scale)
        self.log_metric("distillation/weight", self._distillation_weight)
        return self._distillation_weight * loss.to(weights.device)


def _padded_rows(rows: Mapping[int, Sequence[float]], mask: torch.Tensor) -> torch.Tensor:
    """(B, T) the given rows, NaN elsewhere."""
    padded = torch.full(mask.shape, float("nan"), device=mask.device)
    for row, values in rows.items():
        padded[row, : len(values)] = torch.tensor(values, device=mask.device)
    return padded
