"""What a recipe and an accelerate config say about memory, as plain numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError
from kepo.planning.activations import AUTOCAST, BFLOAT16, FLOAT32, Precision
from kepo.planning.architecture import Architecture, load_architecture, load_meta_model
from kepo.planning.sequences import Sequences, largest_batch, sequences_of, spread_batch, whole_group_batches
from kepo.recipes.files import find_accelerate_config, override_values, read_recipes

if TYPE_CHECKING:
    from kepo.recipes.recipe import Recipe
    from kepo.trainer.config import KEPOConfig

TEXT_TOKENS = 256
"""Tokens of a prompt beside its image: a question with four options and the instruction takes 100 to 200."""
STRATEGIES = ("single", "ddp", "zero1", "zero2", "zero3", "fsdp")
# Of transformers: implementations of attention that read a block mask, and those that add a mask to the scores.
_TAKE_MASKS, _ADD_MASKS = ("sdpa", "eager", "flex_attention"), ("sdpa", "eager")
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2, None: 4}


@dataclass(frozen=True, slots=True)
class Launch:
    """GPUs and what is sharded over them."""

    strategy: str  # one of STRATEGIES
    gpus: int  # processes, one per GPU
    offload_optimizer: bool = False  # optimizer states lie in the memory of the machine
    offload_parameters: bool = False  # so do the weights

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"strategy {self.strategy!r} is unknown; use one of {', '.join(STRATEGIES)}.")

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed trains."""
        return self.strategy.startswith("zero")

    @property
    def parameter_shards(self) -> int:
        """Over how many GPUs the weights are spread, those of a teacher without device of its own too."""
        return self.gpus if self.strategy in ("zero3", "fsdp") else 1

    @property
    def gradient_shards(self) -> int:
        """Over how many GPUs the gradients are spread."""
        return self.gpus if self.strategy in ("zero2", "zero3", "fsdp") else 1

    @property
    def optimizer_shards(self) -> int:
        """Over how many GPUs the optimizer states are spread."""
        return self.gpus if self.strategy not in ("single", "ddp") else 1

    def __str__(self) -> str:
        return f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}, {self.strategy}"


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA weights."""

    parameters: int
    tower: bool  # the vision encoder has some, so that it is differentiated


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """The teacher of a run."""

    model: Architecture
    weight_bytes: int  # of an unquantized weight
    bits: int | None  # 4 when quantized
    own_device: bool  # it has a GPU of its own, which is not planned here
    scores: bool  # its distributions are needed
    hints: bool  # it writes hints
    batch: int  # rows of a forward pass
    share_prompt: bool  # a prompt is computed once for the rows of a pass that share it
    hint_tokens: int  # longest hint


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Everything that the memory of one GPU depends on."""

    student: Architecture
    adapter: Adapter | None  # None: all weights are trained
    launch: Launch
    gpu_memory: float  # of one GPU, in GiB
    weight_bytes: int  # of a student's weight as loaded
    bits: int | None  # 4 or 8 when the student is quantized
    mixed: bool  # bfloat16 (or float16) arithmetic
    micro_batch: int  # rows of a training forward pass
    accumulation: int  # micro-batches of an optimizer step
    prompt_text: int  # tokens of a prompt beside its image
    completion: int  # longest completion in tokens
    image_size: int | None  # pixels per side; None without images
    checkpointing: bool  # gradient checkpointing
    teacher: TeacherSettings | None = None
    rollouts: int = 0  # sequences generated at once; 0 without rollouts
    group: int = 1  # G
    own_passes: bool = False  # log-probabilities by our passes (micro-batches of whole groups), not by TRL's
    share_prompt: bool = False  # in those passes a prompt is computed once for the rows that share it
    added_mask: bool = True  # attention adds a mask to its scores; flash attention and FlexAttention do not
    share_images: bool = False  # the vision encoder runs once per distinct image
    reference: bool = False  # the reference model is loaded
    divergence_chunk: int = 0  # tokens per chunk of the divergence; 0 without distillation loss
    gather: bool = False  # whole weights on every GPU during rollouts under ZeRO-3
    vllm: float | None = None  # share of GPU memory that vLLM takes here, 0 for a server elsewhere; None without one
    vllm_sleeps: bool = False  # it gives its memory back between rollouts

    @property
    def precision(self) -> Precision:
        """Of the student's forward pass."""
        if not self.mixed:
            return FLOAT32 if self.weight_bytes == 4 else BFLOAT16
        if self.launch.deepspeed or self.launch.strategy == "fsdp" or self.weight_bytes == 2 or self.bits:
            return BFLOAT16  # weights are bfloat16 where they are used
        return AUTOCAST

    @property
    def prompts(self) -> int:
        """Distinct prompts of the rollouts on one GPU."""
        return max(self.rollouts // self.group, 1)

    @property
    def training_pass(self) -> Sequences:
        """The training forward pass that computes most tokens."""
        prompt, rows = self.prompt(self.student), self.micro_batch
        if not self.own_passes:  # TRL shuffles the rollouts
            prompts = min(rows, self.prompts) if self.rollouts else rows
            return Sequences(rows, prompts, rows, prompt + self.completion)
        batches = whole_group_batches(self.rollouts, self.group, rows, self.launch.gpus)
        return largest_batch(batches, prompt, self.completion, self.student.cost if self.share_prompt else None)

    @property
    def scoring_pass(self) -> Sequences:
        """The teacher's forward pass that computes most tokens: its rows share as few prompts as a gate may leave."""
        assert self.teacher is not None
        model = self.teacher.model
        groups = spread_batch(min(self.teacher.batch, self.rollouts), self.prompts)
        cost = model.cost if self.teacher.share_prompt else None
        return sequences_of(groups, self.prompt(model), self.completion, cost)

    @property
    def images_per_pass(self) -> int:
        """Most images that a training forward pass encodes."""
        if self.image_size is None or self.student.tower is None:
            return 0
        largest = self.training_pass
        return largest.prompts if self.share_images else largest.count

    @property
    def patches(self) -> int:
        """Of the images that a training forward pass encodes."""
        tower = self.student.tower
        return self.images_per_pass * tower.patches(self.image_size) if tower and self.image_size else 0

    def prompt(self, model: Architecture) -> int:
        """Tokens of a prompt as `model` reads it."""
        image = model.tower.tokens(self.image_size) if model.tower and self.image_size else 0
        return self.prompt_text + image


@dataclass(frozen=True, slots=True)
class Schedule:
    """The arithmetic of a run."""

    prompts_per_step: float  # questions of one optimizer step, over all GPUs
    steps_per_epoch: int
    steps: int  # of the whole run
    left_out: int  # questions that a pass does not reach, because only whole batches are generated; others in each pass


def read_launch(name: str | None, gpus: int | None = None) -> Launch:
    """What an accelerate config (see `find_accelerate_config`) asks for, with `gpus` instead of its `num_processes`.

    Without a config it is one GPU alone, or several with the paper's ZeRO-3.

    Raises:
        ConfigError: Not an accelerate config, or a way of training that is not planned for.
    """
    if name is None:
        return Launch("zero3", gpus) if gpus and gpus > 1 else Launch("single", 1)
    from accelerate.commands.config.config_args import load_config_from_file

    file = find_accelerate_config(name)
    try:
        config: Any = load_config_from_file(file)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is not an accelerate config: {error}") from error
    kind = str(getattr(config.distributed_type, "value", config.distributed_type))
    count = gpus or config.num_processes or 1
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        launch = Launch("single" if count == 1 else "ddp", count)
    elif kind == "FSDP":
        launch = Launch("fsdp", count, *([bool((config.fsdp_config or {}).get("fsdp_offload_params"))] * 2))
    elif kind == "DEEPSPEED":
        launch = _deepspeed(config.deepspeed_config or {}, count, file)
    else:
        raise ConfigError(f"{file}: distributed_type {kind} is not planned for; use DDP, DeepSpeed or FSDP.")
    return replace(launch, strategy="single") if count == 1 and not launch.deepspeed else launch


def _deepspeed(config: dict[str, Any], gpus: int, file: str) -> Launch:
    stage, own = config.get("zero_stage", 2), config.get("deepspeed_config_file")
    optimizer, parameters = config.get("offload_optimizer_device"), config.get("offload_param_device")
    if own:
        path = Path(own) if Path(own).is_file() else Path(file).parent / own
        try:
            zero = json.loads(path.read_text(encoding="utf-8")).get("zero_optimization", {})
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: deepspeed_config_file {own!r} cannot be read: {error}") from error
        stage = zero.get("stage", 0)
        optimizer = zero.get("offload_optimizer", {}).get("device")
        parameters = zero.get("offload_param", {}).get("device")
    if stage == 0:
        return Launch("ddp", gpus)
    return Launch(f"zero{stage}", gpus, optimizer in ("cpu", "nvme"), parameters in ("cpu", "nvme"))


def load_for_gpu(names: str | Sequence[str], overrides: Sequence[str] = ()) -> Recipe:
    """Recipes (`kepo.recipes.recipe.load_recipe`) as a machine with GPUs reads them, also where there is none.

    Without accelerator a recipe that says nothing of bfloat16 trains in float32; with one, TRL's default is bfloat16.
    """
    from kepo.recipes.recipe import load_recipe

    said = override_values(overrides).keys() | read_recipes(names).keys()
    return load_recipe(names, overrides if {"bf16", "fp16", "no_bf16"} & said else [*overrides, "--bf16", "true"])


def settings_of(recipe: Recipe, launch: Launch, gpu_memory: float, prompt_text: int = TEXT_TOKENS) -> PlanSettings:
    """The numbers of a recipe (see `load_for_gpu`); its models' configs are read.

    `gpu_memory` is that of one GPU, in GiB; `prompt_text` the tokens of a prompt beside its image.

    Raises:
        ConfigError: A model is missing or its config cannot be read, or the recipe holds images of any size and its
            model does too, so that nothing can be counted.
    """
    training, model = recipe.training, recipe.model
    name, remote = model.model_name_or_path, training.trust_remote_code
    if not name:
        raise ConfigError("model_name_or_path is missing: name the folder or the hub name of the student.")
    student = load_architecture(name, remote)
    adapter = _adapter(name, recipe.peft_config(), remote)
    batch, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    supervised = PlanSettings(
        student=student,
        adapter=adapter,
        launch=launch,
        gpu_memory=gpu_memory,
        weight_bytes=_BYTES[model.dtype],
        bits=4 if model.load_in_4bit else 8 if model.load_in_8bit else None,
        # A machine without accelerator plans for one that has it: TRL's own default is bfloat16 there.
        mixed=training.bf16 is not False or bool(training.fp16),
        micro_batch=batch,
        accumulation=accumulation,
        prompt_text=prompt_text,
        completion=prompt_text,
        image_size=_image_size(recipe.data.image_size, student),
        checkpointing=bool(training.gradient_checkpointing),
        added_mask=(model.attn_implementation or "sdpa") in _ADD_MASKS,
    )
    if recipe.run.method == "sft":
        return supervised
    colocated = training.use_vllm and training.vllm_mode == "colocate"
    return replace(
        supervised,
        teacher=_teacher(recipe),
        own_passes=bool(training.share_prompt or training.skip_idle_rows or training.uses_teacher_scores),
        share_prompt=bool(training.share_prompt) and _reads_packs(student, training, model.attn_implementation),
        rollouts=batch * (training.steps_per_generation or accumulation),
        group=training.num_generations,
        completion=training.max_completion_length,
        share_images=bool(training.share_image_features),
        reference=bool(training.beta and adapter is None),
        divergence_chunk=training.divergence_chunk_size if training.uses_teacher_scores else 0,
        gather=bool(training.ds3_gather_for_generation),
        vllm=(training.vllm_gpu_memory_utilization if colocated else 0.0) if training.use_vllm else None,
        vllm_sleeps=bool(colocated and training.vllm_enable_sleep_mode),
    )


def schedule_of(recipe: Recipe, gpus: int) -> Schedule | None:
    """The schedule of a recipe with TRL's sampler; None where the number of training questions is left to the data."""
    training, questions = recipe.training, recipe.data.num_train
    if questions is None:
        return None
    questions *= 1 + recipe.data.option_shuffles
    batch, accumulation = training.per_device_train_batch_size * gpus, training.gradient_accumulation_steps
    if recipe.run.method == "sft":
        group, left_out, micro_steps = 1, 0, math.ceil(questions / batch)
    else:
        group, per_generation = training.num_generations, training.steps_per_generation or accumulation
        batches, left_out = divmod(questions, batch * per_generation // group)  # of whole generation batches
        micro_steps = batches * per_generation * training.num_iterations
    per_epoch = math.ceil(micro_steps / accumulation)
    steps = training.max_steps if training.max_steps > 0 else math.ceil(per_epoch * training.num_train_epochs)
    return Schedule(batch * accumulation / group, per_epoch, steps, left_out)


def _reads_packs(student: Architecture, training: KEPOConfig, attention: str | None) -> bool:
    """Whether the student's passes can share prompts."""
    own = student.router_loss
    router_loss = own is not None and (own if training.router_aux_loss_coef is None else training.router_aux_loss_coef)
    return student.no_packs is None and (attention or "sdpa") in _TAKE_MASKS and not router_loss


def _teacher(recipe: Recipe) -> TeacherSettings | None:
    settings, training = recipe.teacher, recipe.training
    # A served teacher lies on its own GPUs.
    if settings.teacher_url or not (training.uses_teacher_scores or training.uses_hints):
        return None
    if settings.teacher_model_name_or_path is None:
        raise ConfigError("This arm needs a teacher; set teacher_model_name_or_path.")
    model = load_architecture(settings.teacher_model_name_or_path, training.trust_remote_code)
    return TeacherSettings(
        model=model,
        weight_bytes=_BYTES.get(settings.teacher_dtype, 2),
        bits=4 if settings.teacher_load_in_4bit else None,
        own_device=settings.teacher_device is not None,
        scores=training.uses_teacher_scores,
        hints=training.uses_hints,
        batch=settings.teacher_batch_size,
        share_prompt=training.share_prompt is not False and model.no_packs is None,
        hint_tokens=settings.hint_max_new_tokens,
    )


def _adapter(name: str, config: Any, trust_remote_code: bool) -> Adapter | None:
    """The adapter that PEFT puts on the model, counted on the meta device."""
    if config is None:
        return None
    from peft import get_peft_model

    try:
        model = get_peft_model(load_meta_model(name, trust_remote_code)[0], config, low_cpu_mem_usage=True)
    except ValueError as error:
        raise ConfigError(f"PEFT cannot put this adapter on {name}: {error}") from error
    trained = [(path, p.numel()) for path, p in model.named_parameters() if p.requires_grad]
    tower = any(".visual." in path or "vision" in path for path, _ in trained)
    return Adapter(sum(count for _, count in trained), tower)


def _image_size(given: int | None, student: Architecture) -> int | None:
    if student.tower is None:
        return None
    size = given or student.tower.image_size
    if size is None:
        raise ConfigError(
            "image_size is not set and the model takes images of any size, so their tokens cannot be counted. Set "
            "image_size, for example --image_size 384."
        )
    return int(size)
