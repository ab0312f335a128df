"""Settings of a run: TRL's `GRPOConfig` plus what KEPO adds.

Every arm is a setting of this one class:

| arm | settings |
| --- | --- |
| GRPO | `exploration="none"`, `distillation_weight=0` |
| on-policy distillation | `exploration="none"`, `gate="always"`, `policy_weight=0` |
| GRPO + uniform distillation | `exploration="none"`, `gate="always"` |
| GRPO + gated distillation | `exploration="none"` |
| KEPO | the defaults |
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from transformers.hf_argparser import HfArg
from trl import GRPOConfig

from kepo.errors import ConfigError, check_choice
from kepo.exploration import ExplorationSettings
from kepo.objective.gate import GATE_MODES
from kepo.objective.schedules import SCHEDULE_KINDS, Schedule
from kepo.objective.weights import INJECTION_CORRECTIONS

logger = logging.getLogger(__name__)

TOTAL_REWARD = "total"
_CHOICES = {
    "gate": GATE_MODES,
    "distillation_normalization": ("gated", "all"),
    "injection_correction": INJECTION_CORRECTIONS,
    "injection_context": ("original", "hinted"),
    "gate_schedule": SCHEDULE_KINDS,
    "distillation_schedule": SCHEDULE_KINDS,
}
_RANGES = {
    **dict.fromkeys(("divergence_interpolation", "lmbda"), (0.0, 1.0)),
    **dict.fromkeys(("distillation_weight", "distillation_weight_end", "policy_weight"), (0.0, math.inf)),
}


class OneGPU:
    """Of training arguments: a process trains on one GPU, also where it sees several, as that of the teacher.

    transformers would wrap the student in `nn.DataParallel` there, which TRL refuses. The first visible GPU is used.
    """

    @property
    def n_gpu(self) -> int:
        """GPUs that this process trains on, 0 or 1."""
        return min(super().n_gpu, 1)  # type: ignore[misc]


@dataclass
class KEPOConfig(OneGPU, GRPOConfig):
    """Configuration of `KEPOTrainer`: all fields of TRL's `GRPOConfig`, and these.

    Defaults are the published method with its known defects fixed. Symbols are those of arXiv 2602.00400: tau the
    gate's threshold, lambda the weight of the distillation loss, K the injected rollouts of a group of G.
    """

    # Which answers count as correct.
    correctness_reward: str | None = HfArg(
        default=None,
        help="Name of the reward function that says whether an answer is correct; exploration and, unless "
        "`gate_reward` is set, the gate look at it alone, so that format never counts as success. None: the first.",
    )
    correctness_threshold: float = HfArg(default=1.0, help="Lowest `correctness_reward` of a correct rollout.")

    # The quality gate.
    gate: str = HfArg(
        default="trajectory",
        help="Which tokens the teacher may teach: 'trajectory' (rewarded rollouts, the paper), 'token' (rewarded "
        "rollouts, and failed ones up to their first error), 'always', 'never', 'inverted' (failed rollouts only).",
    )
    gate_reward: str | None = HfArg(
        default=None,
        help="Reward the gate looks at: a reward function's name, 'total' for the weighted sum (as the authors' code "
        "does), or None for `correctness_reward`.",
    )
    gate_threshold: float = HfArg(default=1.0, help="tau: lowest `gate_reward` of a rollout whose gate is open.")
    gate_threshold_end: float | None = HfArg(default=None, help="tau at the end of training; None: it stays.")
    gate_schedule: str = HfArg(default="linear", help="How tau moves to its end: 'constant', 'linear' or 'cosine'.")
    gate_min_probability: float = HfArg(
        default=0.1,
        help="gate='token': a failed rollout is taught up to the first token to which the teacher gives less than this "
        "probability, in (0, 1).",
    )

    # The distillation loss.
    distillation_weight: float = HfArg(
        default=1.0,
        help="lambda >= 0: weight of the distillation loss; 0: off. That loss is a mean over its tokens whatever "
        "`loss_type` is; the policy term is one with 'dapo', but is divided by `max_completion_length` with 'dr_grpo', "
        "and by no number of tokens with 'luspo', so lambda means something else beside each: docs/method.md.",
    )
    distillation_weight_end: float | None = HfArg(default=None, help="lambda at the end of training; None: it stays.")
    distillation_schedule: str = HfArg(
        default="linear", help="How lambda moves to its end: 'constant', 'linear' or 'cosine'."
    )
    distillation_normalization: str = HfArg(
        default="gated",
        help="What the distillation loss is averaged over: 'gated' (tokens the gate lets through, the authors' code) "
        "or 'all' (every completion token, so that a rarely open gate weighs little).",
    )
    divergence_interpolation: float = HfArg(
        default=0.5,
        help="In [0, 1]: 0 is the forward KL(teacher || student), 1 the reverse KL, between them the generalized "
        "Jensen-Shannon divergence (GKD, arXiv 2306.13649, eq. 1).",
    )
    divergence_temperature: float = HfArg(default=1.0, help="> 0: softmax temperature of teacher and student.")
    divergence_chunk_size: int = HfArg(
        default=4096,
        help="Most tokens whose logits are made at once for the loss. With a large vocabulary there are fewer: a chunk "
        "has at most 2**24 logits, 64 MiB in float32.",
    )
    policy_weight: float = HfArg(default=1.0, help="Weight of the policy loss; 0 leaves pure on-policy distillation.")
    lmbda: float = HfArg(
        default=1.0,
        help="In [0, 1], lambda of GKD: share of groups learned from the student's rollouts; the others are learned "
        "from the data's own completions (column 'reference').",
    )

    # Knowledge-enhanced exploration.
    exploration: str = HfArg(
        default="hint",
        help="'hint' (knowledge-enhanced, the paper), 'resample' (the same budget without a hint: the control that "
        "shows what hints add) or 'none'.",
    )
    exploration_trigger: str = HfArg(
        default="all_failed",
        help="Which groups are explored: 'all_failed' (no rollout correct), 'mean_below' (mean of "
        "`correctness_reward` below `exploration_trigger_mean`) or 'always' (any failed rollout).",
    )
    exploration_trigger_mean: float = HfArg(default=0.5, help="Bound of `exploration_trigger=mean_below`.")
    num_injected: int = HfArg(default=2, help="K: rollouts of a group replaced at most, 1 <= K <= G.")
    exploration_attempts: int = HfArg(default=5, help="Attempts per explored group, >= 1.")
    exploration_samples_per_attempt: int | None = HfArg(
        default=None,
        help="Samples per attempt and group; None: as many as are still missing, and more where a correct one is rare "
        "(`exploration_surplus`).",
    )
    exploration_surplus: float = HfArg(
        default=0.13,
        help="In [0, 1): share of the correct samples of an attempt that may be expected to be more than are missing; "
        "kept rollouts cost at most 1 / (1 - this) times the tokens that they would. 0: never more than are missing.",
    )
    exploration_max_cost: int = HfArg(
        default=16,
        help="Samples that one replaced rollout may cost, >= 1: beyond what is missing, a group is sampled only where "
        "the chance is expected to be at least 1 in this, and this many times per rollout at most.",
    )
    hint_level: int = HfArg(default=1, help="Strength of the hint: 0 concept, 1 plan, 2 near-solution.")
    hint_max_level: int | None = HfArg(
        default=None,
        help="Climb: attempts begin at `hint_level` and rise evenly to this level, so that the weakest hint that works "
        "is used; None: all attempts at `hint_level`.",
    )
    hint_bank: str | None = HfArg(
        default=None,
        help="File of hints (`kepo hints`): read first, and the teacher's new hints are added to it. With it "
        "exploration needs no teacher; what is missing then stays missing.",
    )
    hint_bank_teacher: str | None = HfArg(
        default=None,
        help="Whose hints are read from `hint_bank`: a teacher's name as it stands there, or 'any'. None: the run's "
        "own teacher's; any without a teacher.",
    )
    hint_leak_policy: str = HfArg(
        default="reject", help="A hint that names the answer is: 'allow'ed, 'strip'ped, 'ask_again' or 'reject'ed."
    )
    hint_retries: int = HfArg(default=2, help="How often 'ask_again' asks again, >= 0.")
    injection_correction: str = HfArg(
        default="none",
        help="Injected rollouts were sampled under a hint and are trained without it: 'none' (the paper), 'shaped' "
        "(ratio p/(p + gamma), LUFFY) or 'importance' (ratio to the hinted policy, clipped).",
    )
    injection_gamma: float = HfArg(default=0.1, help="gamma > 0 of `injection_correction=shaped`.")
    injection_context: str = HfArg(
        default="original",
        help="Prompt that injected rollouts are trained under: 'original' (the paper) or 'hinted'.",
    )

    share_image_features: bool | None = HfArg(
        default=None,
        help="Encode each image once instead of once per rollout; the results differ by rounding. None: where the run "
        "distills or explores, so that a run that does neither is TRL's GRPO bit for bit.",
    )
    share_prompt: bool | None = HfArg(
        default=None,
        help="Compute a prompt once for the rollouts that share it, in rollouts, training and scoring; the results "
        "differ by rounding. The first batch is checked, and it is turned off where a model does not allow it. None: "
        "as `share_image_features`.",
    )
    skip_idle_rows: bool | None = HfArg(
        default=None,
        help="Leave rollouts without gradient (no advantage, gate closed, no KL term) out of the training pass; the "
        "update is the same up to rounding. None: as `share_image_features`.",
    )
    rollout_log: bool = HfArg(default=True, help="Write every rollout of every step to OUTPUT_DIR/rollouts/*.parquet.")

    def __post_init__(self) -> None:
        self._choose_device()
        super().__post_init__()
        self._check_values()
        if self.exploration != "none":
            ExplorationSettings.of(self).check_group_size(self.num_generations)
        self._align_checkpoints()
        for name in ("share_image_features", "share_prompt", "skip_idle_rows"):
            if getattr(self, name) is None:
                setattr(self, name, self.uses_teacher_scores or self.exploration != "none")

    def gate_threshold_at(self, progress: float) -> float:
        """tau at `progress` (0..1) of training."""
        return Schedule(self.gate_threshold, self.gate_threshold_end, self.gate_schedule).at(progress)

    def distillation_weight_at(self, progress: float) -> float:
        """lambda at `progress` (0..1) of training."""
        return Schedule(self.distillation_weight, self.distillation_weight_end, self.distillation_schedule).at(progress)

    @property
    def uses_teacher_scores(self) -> bool:
        """Whether any step of the run needs the teacher's token distributions."""
        return self.gate != "never" and max(self.distillation_weight, self.distillation_weight_end or 0.0) > 0.0

    @property
    def uses_hints(self) -> bool:
        """Whether the run asks a teacher for hints."""
        return self.exploration == "hint"

    def _choose_device(self) -> None:
        # TRL's default is bfloat16 mixed precision, which transformers refuses on a machine without accelerator unless
        # use_cpu is given; where a script gives it, it trains as it does with TRL.
        if self.use_cpu or torch.accelerator.is_available():  # type: ignore[has-type]
            return
        self.use_cpu = True
        if getattr(self, "bf16", None) is None:
            self.bf16 = False
            logger.info("No accelerator found: training on the CPU in float32.")

    def _check_values(self) -> None:
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name, (low, high) in _RANGES.items():
            if (value := getattr(self, name)) is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be between {low:g} and {high:g}.")
        if self.lmbda < 1 and self.exploration != "none":
            raise ConfigError(
                f"lmbda is {self.lmbda} with exploration={self.exploration!r}: groups taken from "
                "the data cannot be explored. Set exploration to 'none', or lmbda to 1."
            )
        for name in ("divergence_temperature", "divergence_chunk_size", "injection_gamma", "gate_min_probability"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be greater than 0.")
        self.gate_threshold_at(0.0)  # an impossible schedule says so now, not in the first step
        self.distillation_weight_at(0.0)
        if self.gate == "token" and not self.gate_min_probability < 1:
            raise ConfigError(f"gate_min_probability is {self.gate_min_probability}; it must be below 1.")
        if self.injection_context == "hinted" and self.injection_correction == "importance":
            raise ConfigError(
                "injection_context=hinted with injection_correction=importance corrects what needs no correction: "
                "rollouts trained under the prompt they were sampled with are on-policy. Use injection_correction=none."
            )
        if self.policy_weight == 0 and not self.uses_teacher_scores:
            raise ConfigError(
                "policy_weight is 0 and the distillation loss is off (distillation_weight 0 or gate 'never'), so "
                "nothing would be learned. Raise one of them."
            )

    def _align_checkpoints(self) -> None:
        # A checkpoint inside a window of optimizer steps that share one generation batch could not be resumed exactly,
        # because the rollouts of that window are not part of a checkpoint.
        accumulation = self.gradient_accumulation_steps
        window = math.lcm(self.steps_per_generation * self.num_iterations, accumulation) // accumulation
        before: dict[str, float] = {name: getattr(self, name) for name in ("save_steps", "eval_steps")}
        by_steps = self.eval_strategy == "steps"
        if self.save_strategy == "steps" and self._needs_alignment("save_steps", window):
            multiple = window
            if self.load_best_model_at_end and by_steps:
                # Weights can only be chosen where they were saved, so both are moved.
                multiple = self.eval_steps = self._evaluated_every(window)
            self.save_steps = math.ceil(before["save_steps"] / multiple) * multiple
        elif self.save_strategy == "best" and by_steps and self._needs_alignment("eval_steps", window):
            self.eval_steps = self._evaluated_every(window)
        for name, value in before.items():
            if value != getattr(self, name):
                logger.warning(
                    "%s was raised from %s to %s, a multiple of the %s optimizer steps that share one generation "
                    "batch, so that every checkpoint can be resumed exactly.",
                    name,
                    value,
                    getattr(self, name),
                    window,
                )

    def _needs_alignment(self, name: str, window: int) -> bool:
        """Whether checkpoints every `name` optimizer steps would lie inside a window."""
        steps = getattr(self, name)
        if 0 < steps < 1 and window > 1:
            logger.warning(
                "%s is %s, a share of the run, so a checkpoint may lie inside the %s optimizer steps that share one "
                "generation batch; a run resumed from there samples anew. Give a number of steps, a multiple of %s.",
                name,
                steps,
                window,
                window,
            )
        return steps >= 1 and steps % window != 0

    def _evaluated_every(self, window: int) -> int:
        """`eval_steps`, raised to a multiple of the window.

        Raises:
            ConfigError: It is a share of the run, or nothing would ever be evaluated.
        """
        if self.eval_steps < 1:
            raise ConfigError(
                f"eval_steps is {self.eval_steps}, a share of the run, but the best weights must be chosen at "
                f"multiples of the {window} optimizer steps that share one generation batch. Give eval_steps as a "
                "number of steps."
            )
        every = math.ceil(self.eval_steps / window) * window
        if 0 < self.max_steps < every:
            raise ConfigError(
                f"max_steps is {self.max_steps}, and {window} optimizer steps share one generation batch, so there is "
                f"no step at which the weights could be both evaluated and saved. Raise max_steps to at least {every}, "
                "lower num_iterations, or set load_best_model_at_end to false."
            )
        return every
