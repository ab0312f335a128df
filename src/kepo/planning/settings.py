"""What a recipe says about memory, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kepo.errors import ConfigError
from kepo.planning.activations import AUTOCAST, BFLOAT16, FLOAT32, Precision
from kepo.planning.architecture import Architecture
from kepo.planning.launch import Launch
from kepo.planning.schedule import Schedule, rollout_schedule, supervised_schedule

TEXT_TOKENS = 256
"""Tokens of a prompt beside its image: a question with four options and the instruction takes 100 to 200."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2, None: 4}


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA weights.

    Attributes:
        parameters: All of them.
        tower: Whether the vision encoder has any, so that it is differentiated.
    """

    parameters: int
    tower: bool


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """The teacher of a run.

    Attributes:
        model: Its sizes.
        weight_bytes: Of an unquantized weight.
        bits: 4 or 8 when quantized, else None.
        own_device: It has a GPU of its own, which is not planned here.
        scores: Its distributions are needed.
        hints: It writes hints.
        batch: Rows of a forward pass.
        hint_tokens: Longest hint.
    """

    model: Architecture
    weight_bytes: int
    bits: int | None
    own_device: bool
    scores: bool
    hints: bool
    batch: int
    hint_tokens: int


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Everything that the memory of one GPU depends on.

    Attributes:
        student: Sizes of the student.
        teacher: The teacher, where the run has one.
        adapter: LoRA; None: all weights are trained.
        launch: GPUs and sharding.
        gpu_memory: Of one GPU, in GiB.
        weight_bytes: Of a student's weight as loaded.
        bits: 4 or 8 when the student is quantized, else None.
        mixed: bfloat16 (or float16) arithmetic.
        micro_batch: Rows of a training forward pass.
        accumulation: Micro-batches of an update.
        rollouts: Sequences generated at once; 0 without rollouts.
        group: G; 1 without rollouts.
        prompt_text: Tokens of a prompt beside its image.
        completion: Longest completion in tokens.
        image_size: Side of the image in pixels; None without images.
        share_images: The vision encoder runs once per distinct image.
        checkpointing: Gradient checkpointing.
        reference: The reference model is loaded.
        divergence_chunk: Tokens per chunk of the divergence; 0 without teacher term.
        gather: Whole weights on every GPU during rollouts under ZeRO-3.
        vllm: Share of GPU memory that vLLM takes here, 0 where it is a server elsewhere; None without one.
        vllm_sleeps: It gives its memory back between rollouts.
    """

    student: Architecture
    teacher: TeacherSettings | None
    adapter: Adapter | None
    launch: Launch
    gpu_memory: float
    weight_bytes: int
    bits: int | None
    mixed: bool
    micro_batch: int
    accumulation: int
    rollouts: int
    group: int
    prompt_text: int
    completion: int
    image_size: int | None
    share_images: bool
    checkpointing: bool
    reference: bool
    divergence_chunk: int
    gather: bool
    vllm: float | None
    vllm_sleeps: bool

    @property
    def precision(self) -> Precision:
        """Of the student's forward pass."""
        if not self.mixed:
            return FLOAT32 if self.weight_bytes == 4 else BFLOAT16
        if self.launch.deepspeed or self.launch.strategy == "fsdp" or self.weight_bytes == 2 or self.bits:
            return BFLOAT16  # weights are bfloat16 where they are used
        return AUTOCAST

    @property
    def images_per_pass(self) -> int:
        """Most distinct images that a training forward pass encodes."""
        if self.image_size is None or self.student.tower is None:
            return 0
        prompts = max(self.rollouts // self.group, 1) if self.rollouts else self.micro_batch
        return min(self.micro_batch, prompts) if self.share_images else self.micro_batch

    def prompt(self, model: Architecture) -> int:
        """Tokens of a prompt as `model` reads it."""
        image = model.tower.tokens(self.image_size) if model.tower and self.image_size else 0
        return self.prompt_text + image


def settings_of(
    recipe: Any,
    launch: Launch,
    gpu_memory: float,
    student: Architecture,
    teacher: Architecture | None,
    adapter: Adapter | None,
    prompt_text: int = TEXT_TOKENS,
) -> PlanSettings:
    """The numbers of a recipe (`kepo.recipes.recipe.Recipe`).

    Raises:
        ConfigError: The recipe holds images of any size and its model does too, so that nothing can be counted.
    """
    training, model = recipe.training, recipe.model
    rollouts = recipe.run.method != "sft"
    image_size = _image_size(recipe, student)
    weight_bytes = _BYTES[model.dtype]
    steps = getattr(training, "steps_per_generation", None) or training.gradient_accumulation_steps
    vllm = rollouts and training.use_vllm
    colocated = vllm and training.vllm_mode == "colocate"
    return PlanSettings(
        student=student,
        teacher=None if teacher is None else _teacher(recipe, teacher),
        adapter=adapter,
        launch=launch,
        gpu_memory=gpu_memory,
        weight_bytes=weight_bytes,
        bits=4 if model.load_in_4bit else 8 if model.load_in_8bit else None,
        # A machine without accelerator plans for one that has it: TRL's own default is bfloat16 there.
        mixed=training.bf16 is not False or bool(training.fp16),
        micro_batch=training.per_device_train_batch_size,
        accumulation=training.gradient_accumulation_steps,
        rollouts=training.per_device_train_batch_size * steps if rollouts else 0,
        group=training.num_generations if rollouts else 1,
        prompt_text=prompt_text,
        completion=training.max_completion_length if rollouts else prompt_text,
        image_size=image_size,
        share_images=bool(rollouts and training.share_image_features),
        checkpointing=bool(training.gradient_checkpointing),
        reference=bool(rollouts and training.beta and adapter is None),
        divergence_chunk=training.divergence_chunk_size if rollouts and training.uses_teacher_scores else 0,
        gather=bool(rollouts and training.ds3_gather_for_generation),
        vllm=(training.vllm_gpu_memory_utilization if colocated else 0.0) if vllm else None,
        vllm_sleeps=bool(colocated and training.vllm_enable_sleep_mode),
    )


def schedule_of(recipe: Any, gpus: int) -> Schedule | None:
    """The schedule of a recipe on `gpus` GPUs; None where the number of training questions is left to the data."""
    training, questions = recipe.training, recipe.data.num_train
    if questions is None:
        return None
    questions *= 1 + recipe.data.option_shuffles
    shared: dict[str, Any] = {
        "gpus": gpus,
        "micro_batch": training.per_device_train_batch_size,
        "accumulation": training.gradient_accumulation_steps,
        "epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
    }
    if recipe.run.method == "sft":
        return supervised_schedule(questions, **shared)
    return rollout_schedule(
        questions,
        **shared,
        group=training.num_generations,
        steps_per_generation=training.steps_per_generation,
        iterations=training.num_iterations,
    )


def _teacher(recipe: Any, model: Architecture) -> TeacherSettings:
    settings, training = recipe.teacher, recipe.training
    return TeacherSettings(
        model=model,
        weight_bytes=_BYTES.get(settings.teacher_dtype, 2),
        bits=4 if settings.teacher_load_in_4bit else 8 if settings.teacher_load_in_8bit else None,
        own_device=settings.teacher_device is not None,
        scores=training.uses_teacher_scores,
        hints=training.uses_hints,
        batch=settings.teacher_batch_size,
        hint_tokens=settings.hint_max_new_tokens,
    )


def _image_size(recipe: Any, student: Architecture) -> int | None:
    if student.tower is None:
        return None
    size = recipe.data.image_size or student.tower.image_size
    if size is None:
        raise ConfigError(
            "image_size is not set and the model takes images of any size, so their tokens cannot be counted. Set "
            "image_size, for example --image_size 384."
        )
    return int(size)
