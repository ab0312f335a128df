"""The memory of one GPU, part by part, its largest moment, and what would make a run fit.

A run goes through phases; what lies in memory always is added to the largest of them: rollouts, hints, the teacher's
scoring, the optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from kepo.objective import chunk_tokens
from kepo.planning import activations
from kepo.planning.activations import BFLOAT16, FLOAT32, Precision
from kepo.planning.architecture import Architecture
from kepo.planning.settings import Adapter, Launch, PlanSettings, TeacherSettings

GIB = 1024**3
ALWAYS, ROLLOUTS, HINTS, SCORING, STEP = "always", "rollouts", "hints", "scoring", "step"
PHASES = (ROLLOUTS, HINTS, SCORING, STEP)

# Assumed, not computed: CUDA context, cuBLAS and NCCL buffers, and what the allocator loses to fragments.
CONTEXT_BYTES = int(1.5 * GIB)
FRAGMENTS = 0.06
# ZeRO-3 keeps up to this many gathered parameters (DeepSpeed's stage3_max_live_parameters).
LIVE_PARAMETERS = 1_000_000_000
# Tokens of the request for a hint beside the prompt.
TEXT_OF_REQUEST = 128
# Bytes per weight in bitsandbytes: the value, and a float32 scale per 64 weights, or per row in 8 bit.
_QUANTIZED = {4: 0.5 + 4 / 64, 8: 1.0}
_RANK = 32  # of the LoRA that is advised


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the memory of one GPU."""

    name: str
    bytes: int
    phase: str  # ALWAYS, or the phase in which it is there
    note: str = ""  # how it comes about, in a few words


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory of one GPU of a run."""

    parts: tuple[Part, ...]  # all above 0 bytes
    gpu_bytes: int  # what the GPU has

    def total(self, phase: str) -> int:
        """Bytes in a phase, with what is there always; for `ALWAYS` that alone."""
        return sum(part.bytes for part in self.parts if part.phase in (ALWAYS, phase))

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases that the run has, in their order."""
        return tuple(phase for phase in PHASES if any(part.phase == phase for part in self.parts))

    @property
    def largest_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=self.total)

    @property
    def peak(self) -> int:
        """Bytes of the largest moment."""
        return self.total(self.largest_phase)

    @property
    def usable(self) -> int:
        """Bytes that a run may plan with; the rest is lost to fragments."""
        return int(self.gpu_bytes * (1 - FRAGMENTS))

    @property
    def fits(self) -> bool:
        """Whether the largest moment fits the GPU."""
        return self.peak <= self.usable


class Advice(NamedTuple):
    """A change of settings, in the words of a recipe or of the command line, and the memory with it."""

    change: str
    plan: MemoryPlan


def plan_memory(settings: PlanSettings) -> MemoryPlan:
    """The memory of one GPU."""
    parts = [*_resident(settings), *_rollouts(settings), *_teaching(settings), *_step(settings)]
    return MemoryPlan(tuple(part for part in parts if part.bytes > 0), int(settings.gpu_memory * GIB))


def weight_bytes(model: Architecture, per_weight: int, bits: int | None) -> int:
    """Bytes of a model's weights; quantization leaves embeddings, norms and the output head as they are."""
    if bits is None:
        return model.parameters * per_weight
    return int(model.linear_parameters * _QUANTIZED[bits]) + (model.parameters - model.linear_parameters) * per_weight


def _resident(s: PlanSettings) -> Iterator[Part]:
    launch, trainable = s.launch, _trainable(s)
    on_gpu = 0 if launch.offload_parameters else 1
    weights = weight_bytes(s.student, _student_weight(s), s.bits) // launch.parameter_shards * on_gpu
    yield Part("student weights", weights, ALWAYS, _spread(s.student.parameters, launch.parameter_shards))
    if s.adapter is not None:
        shared = s.adapter.parameters * _adapter_weight(s) // launch.parameter_shards
        yield Part("LoRA weights", shared, ALWAYS, f"{s.adapter.parameters:,} parameters")
    if s.reference:
        yield Part("reference weights", weights, ALWAYS, "beta > 0")
    yield from _teacher_weights(s)
    if not launch.offload_optimizer:
        states = trainable * _optimizer_bytes(s) // launch.optimizer_shards
        yield Part("optimizer states", states, ALWAYS, f"Adam, {_optimizer_bytes(s)} bytes a trained parameter")
    if launch.deepspeed:
        yield Part("gradients", trainable * 2 // launch.gradient_shards, ALWAYS, "bfloat16, kept by DeepSpeed")
    if s.vllm:
        phase = ROLLOUTS if s.vllm_sleeps else ALWAYS
        yield Part("vLLM", int(s.vllm * s.gpu_memory * GIB), phase, f"vllm_gpu_memory_utilization {s.vllm:g}")
    yield Part("CUDA context, libraries", CONTEXT_BYTES, ALWAYS, "assumed")


def _teacher_weights(s: PlanSettings) -> Iterator[Part]:
    teacher = s.teacher
    if teacher is None or teacher.own_device:
        return
    shards = 1 if teacher.bits else s.launch.parameter_shards  # a quantized teacher is never moved: whole on every GPU
    kind = f"{teacher.bits} bit" if teacher.bits else f"{8 * teacher.weight_bytes} bit"
    size = weight_bytes(teacher.model, teacher.weight_bytes, teacher.bits) // shards
    yield Part("teacher weights", size, ALWAYS, f"{kind}, {_spread(teacher.model.parameters, shards)}")
    if shards > 1:
        decoder = teacher.model.decoder
        copy = decoder.vocab * decoder.hidden * teacher.weight_bytes
        yield Part("teacher output head", copy, ALWAYS, "a whole copy on every GPU")


def _rollouts(s: PlanSettings) -> Iterator[Part]:
    if not s.rollouts:
        return
    if s.vllm is not None:
        # TRL gathers one parameter at once for vLLM, or all where an adapter is merged into them.
        largest = s.student.parameters if s.adapter else s.student.decoder.vocab * s.student.decoder.hidden
        handed_over = largest * 2 if s.launch.parameter_shards > 1 else 0
        yield Part("weights on their way to vLLM", handed_over, ROLLOUTS, "gathered")
        return
    decoder, prompt = s.student.decoder, s.prompt(s.student)
    length = prompt + s.completion
    cache = activations.kv_cache_bytes(decoder, s.rollouts, length, s.precision)
    yield Part("key-value cache", cache, ROLLOUTS, f"{s.rollouts} rollouts x {length} tokens")
    yield _gathered("whole weights", s, s.student, ROLLOUTS, at_once=s.gather)
    prefill = activations.forward_bytes(decoder, s.rollouts * prompt, s.precision)
    yield Part("prefill", prefill, ROLLOUTS, f"{s.rollouts} x {prompt} tokens at once")
    yield Part("sampling", s.rollouts * decoder.vocab * 20, ROLLOUTS, "logits, sorted for top_p")


def _teaching(s: PlanSettings) -> Iterator[Part]:
    teacher = s.teacher
    if teacher is None:
        return
    model, decoder = teacher.model, teacher.model.decoder
    precision = FLOAT32 if teacher.weight_bytes == 4 else BFLOAT16
    prompt = s.prompt(model)
    if teacher.hints and not teacher.own_device:
        rows = min(teacher.batch, max(s.rollouts // s.group, 1))
        length = prompt + TEXT_OF_REQUEST + teacher.hint_tokens
        cache = activations.kv_cache_bytes(decoder, rows, length, precision)
        yield Part("teacher's key-value cache", cache, HINTS, f"{rows} hints x {length} tokens")
        if not teacher.bits:
            yield _gathered("teacher's gathered weights", s, model, HINTS)
        prefill = activations.forward_bytes(decoder, rows * (prompt + TEXT_OF_REQUEST), precision)
        yield Part("teacher's prefill", prefill, HINTS)
    if teacher.scores and not teacher.own_device:
        read = s.scoring_pass
        forward = activations.forward_bytes(decoder, read.tokens, precision)
        yield Part("teacher's activations", forward, SCORING, f"{read}, no gradient")
        masks = activations.mask_bytes(decoder, read.count, read.longest, precision, layers=1)
        yield Part("teacher's attention mask", masks, SCORING, f"{read.count} x {read.longest}^2")
        if not teacher.bits:
            yield _gathered("teacher's gathered weights", s, model, SCORING)
        yield Part("teacher's log-probabilities", 3 * 256 * decoder.vocab * 4, SCORING, "chunks of 256 tokens")
        kept = s.rollouts * s.completion * decoder.hidden * teacher.weight_bytes
        for phase in (SCORING, STEP):
            yield Part("teacher's hidden states", kept, phase, f"{s.rollouts} x {s.completion} tokens, at most")


def _step(s: PlanSettings) -> Iterator[Part]:
    launch, precision, student = s.launch, s.precision, s.student
    trainable, decoder = _trainable(s), student.decoder
    if not launch.deepspeed:
        per_gradient = _adapter_weight(s) if s.adapter else _student_weight(s)
        copies = 2 if launch.strategy == "ddp" else 1
        gradients = trainable * per_gradient * copies // launch.gradient_shards
        yield Part("gradients", gradients, STEP, "and DDP's buckets" if copies == 2 else f"{8 * per_gradient} bit")
    yield _gathered("gathered weights", s, student, STEP)
    read = s.training_pass
    tokens = read.tokens
    kept = activations.decoder_bytes(decoder, tokens, precision, s.checkpointing) + _tower_kept(s, precision)
    how = "inputs of layers" if s.checkpointing else "all layers"
    yield Part("activations", kept, STEP, f"{read}, {how}")
    again = _recomputed(s, tokens, precision) if s.checkpointing else 0
    yield Part("one layer computed again", again, STEP)
    if s.added_mask:
        layers = 1 if s.checkpointing else decoder.layers
        masks = activations.mask_bytes(decoder, read.count, read.longest, precision, layers)
        note = f"{read.count} x {read.longest}^2, additive in {'one layer' if layers == 1 else 'all layers'}"
        yield Part("attention mask", masks, STEP, note)
    logits, note = _logits(s, precision)
    yield Part("logits", logits, STEP, note)
    if precision.casts:
        # With checkpointing the copies of a forward pass are gone when the backward pass starts.
        copies = student.parameters * 2 - (again + logits if s.checkpointing else 0)
        yield Part("weights cast to bfloat16", copies, STEP, "autocast over float32 weights")


def _logits(s: PlanSettings, precision: Precision) -> tuple[int, str]:
    """What the output head needs in the loss's backward pass: all completions at once, prompts not at all."""
    decoder = s.student.decoder
    completions = s.micro_batch * s.completion
    weight = 0 if s.adapter is not None else _student_weight(s)
    if not s.own_passes:
        trl = activations.trl_policy_bytes(completions, decoder.hidden, decoder.vocab, precision.compute, weight)
        return trl, "TRL's tiles, gradient of the output head"
    teacher = s.teacher if s.teacher is not None and s.teacher.scores and not s.teacher.own_device else None
    of_teacher = 0 if teacher is None else teacher.weight_bytes
    most = s.divergence_chunk or None
    copy = decoder.vocab * decoder.hidden * 2
    needed = activations.one_pass_bytes(completions, decoder.hidden, decoder.vocab, precision, weight, of_teacher, most)
    needed += copy if precision.casts else 0
    note = f"chunks of {min(completions, chunk_tokens(decoder.vocab, most))} tokens"
    if s.launch.strategy != "zero3":  # there TRL's kernels, which may compute instead, have no whole head
        kernel = activations.trl_divergence_bytes if teacher is not None else activations.trl_policy_bytes
        tiles = kernel(completions, decoder.hidden, decoder.vocab, precision.compute, weight)
        needed, note = max((needed, note), (tiles, "TRL's tiles"))
    whole = copy if s.launch.parameter_shards > 1 else 0
    states = 0 if teacher is None else completions * teacher.model.decoder.hidden * of_teacher  # put together
    return needed + whole + states, f"{note}, gradient of the output head"


def _tower_kept(s: PlanSettings, precision: Precision) -> int:
    tower = s.student.tower
    if tower is None or (s.adapter is not None and not s.adapter.tower):
        return 0
    mergers = activations.mergers_bytes(tower, s.student.decoder, s.patches, precision)
    return activations.tower_bytes(tower, s.patches, precision, s.checkpointing) + mergers


def _recomputed(s: PlanSettings, tokens: int, precision: Precision) -> int:
    layer = activations.decoder_layer_bytes(s.student.decoder, tokens, precision)
    tower = s.student.tower
    return max(layer, activations.tower_layer_bytes(tower, s.patches, precision)) if tower else layer


def _trainable(s: PlanSettings) -> int:
    return s.student.parameters if s.adapter is None else s.adapter.parameters


def _student_weight(s: PlanSettings) -> int:
    """Bytes of a weight as it lies in memory."""
    if s.launch.deepspeed and s.mixed:
        return 2
    if s.launch.strategy == "fsdp" and s.mixed and s.adapter is None:
        return 4  # accelerate keeps what is trained in float32
    return s.weight_bytes


def _adapter_weight(s: PlanSettings) -> int:
    # PEFT trains adapters in float32; under ZeRO-3 TRL leaves them in the model's dtype.
    return 2 if s.launch.deepspeed and s.mixed else 4


def _optimizer_bytes(s: PlanSettings) -> int:
    """Adam's two moments, and DeepSpeed's float32 copy of the weights."""
    if s.launch.deepspeed:
        return 12 if s.mixed else 8
    return 2 * (_adapter_weight(s) if s.adapter else _student_weight(s))


def _gathered(name: str, s: PlanSettings, model: Architecture, phase: str, at_once: bool = False) -> Part:
    """Weights that are gathered to be used, beyond a GPU's own share."""
    if s.launch.parameter_shards == 1:
        return Part(name, 0, phase)
    if s.launch.strategy == "zero3":
        whole = model.parameters if at_once else min(model.parameters, LIVE_PARAMETERS)
        note = "ds3_gather_for_generation" if at_once else "at most 1e9 parameters"
        return Part(name, whole * 2 * (s.launch.gpus - 1) // s.launch.gpus, phase, note)
    return Part(name, (model.embedding + 2 * model.largest_block) * 2, phase, "embedding, head and two blocks")


def _spread(parameters: int, shards: int) -> str:
    return f"{parameters:,} parameters" + (f" over {shards} GPUs" if shards > 1 else "")


def single_changes(settings: PlanSettings) -> list[Advice]:
    """Every single change that makes the run fit, smallest memory last."""
    advice = [Advice(words, plan_memory(changed)) for words, changed in _changes(settings)]
    return sorted((a for a in advice if a.plan.fits), key=lambda a: -a.plan.peak)


def combined_changes(settings: PlanSettings) -> list[Advice]:
    """Changes that make the run fit together: always the one that saves most next; empty if nothing does.

    Each plan is that of its change and of those before it.
    """
    steps: list[Advice] = []
    plan = plan_memory(settings)
    while not plan.fits:
        options = [(words, changed, plan_memory(changed)) for words, changed in _changes(settings)]
        words, settings, best = min(options, key=lambda option: option[2].peak, default=("", settings, plan))
        if best.peak >= plan.peak:
            return []
        plan = best
        steps.append(Advice(words, plan))
    return steps


def _changes(s: PlanSettings) -> Iterator[tuple[str, PlanSettings]]:
    """Every single change that the settings leave, in words and done."""
    if not s.checkpointing:
        yield "gradient_checkpointing: true", replace(s, checkpointing=True)
    if s.micro_batch > 1 and s.micro_batch % 2 == 0:
        half, twice = s.micro_batch // 2, s.accumulation * 2
        words = f"per_device_train_batch_size: {half} with gradient_accumulation_steps: {twice}"
        yield words, replace(s, micro_batch=half, accumulation=twice)
    if s.teacher is not None and not s.teacher.own_device:
        for words, changed in _teacher_changes(s.teacher, s.launch.gpus):
            yield words, replace(s, teacher=changed)
    if s.adapter is None:
        adapter = Adapter(_RANK * s.student.linear_widths, tower=s.student.tower is not None)
        words = f"use_peft: true, lora_r: {_RANK}, lora_target_modules: [all-linear], dtype: bfloat16"
        yield words, replace(s, adapter=adapter, weight_bytes=2, reference=False)
    if s.vllm and not s.vllm_sleeps:
        yield "vllm_enable_sleep_mode: true", replace(s, vllm_sleeps=True)
    if s.vllm is not None and s.vllm > 0.2:
        yield "vllm_gpu_memory_utilization: 0.2", replace(s, vllm=0.2)
    if s.vllm is None and s.launch.strategy == "zero3" and s.gather:
        yield "ds3_gather_for_generation: false (slower rollouts)", replace(s, gather=False)
    for gpus in (4, 8):
        if gpus > s.launch.gpus or (gpus == s.launch.gpus and s.launch.parameter_shards == 1):
            yield f"--accelerate-config zero3-{gpus}gpu", replace(s, launch=Launch("zero3", gpus))


def _teacher_changes(teacher: TeacherSettings, gpus: int) -> Iterator[tuple[str, TeacherSettings]]:
    if teacher.bits is None:
        yield "teacher_load_in_4bit: true", replace(teacher, bits=4)
    if teacher.batch > 1:
        half = teacher.batch // 2
        yield f"teacher_batch_size: {half}", replace(teacher, batch=half)
    if gpus == 1:
        words = "teacher_device: a second GPU, as cuda:1 (its own memory is not planned here)"
        yield words, replace(teacher, own_device=True)
