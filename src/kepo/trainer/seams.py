"""Everything that knows TRL from inside.

`KEPOTrainer` overrides five methods of TRL's `GRPOTrainer` and calls a few of its private helpers. Those names, and
what is expected of them, are gathered here, so that a new TRL release breaks in one place and says where:
`moved_seams` compares this file with the installed TRL.

Shapes: B rollouts of this process, P prompt tokens, T completion tokens, L = P + T, H hidden width, N gated tokens.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl import GRPOTrainer
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import FusedCausalLMOutput, get_callable_name, is_async_callable, maybe_gather_lm_head_ctx

from kepo.errors import ConfigError
from kepo.objective.divergence import OutputHead, chunked_divergence, sparse_divergence
from kepo.teachers.base import DenseScores, Scores, SparseScores
from kepo.teachers.encoding import encode
from kepo.teachers.head import output_head
from kepo.types import Prompt, Sample

if TYPE_CHECKING:
    from kepo.trainer.trainer import KEPOTrainer

# What `KEPOTrainer` overrides or calls, with the parameters it counts on.
EXPECTED_METHODS: dict[str, tuple[str, ...]] = {
    "_generate": ("prompts",),
    "_generate_and_score_completions": ("inputs",),
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_loss": ("model", "inputs"),
    "_get_per_token_logps_and_entropies": (
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "num_images",
    ),
    "_tokenize_prompts": ("prompts",),
    "_generate_single_turn": ("prompt_ids", "images", "multimodal_fields", "num_generations"),
}
# Text that must stand in a method's source, because no signature shows it.
EXPECTED_SOURCE: dict[str, tuple[str, ...]] = {
    "_generate": (
        "return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images, tool_images",
    ),
    "_generate_and_score_completions": (
        'float("nan") if x is None else x',  # a sampling log-probability of None means "no correction"
        "torch.nan_to_num(per_token_logps_diff, nan=0.0)",
        '"advantages": advantages',
        '"completion_mask": completion_mask',
    ),
    "_compute_loss": ('inputs.get("old_per_token_logps")', "compute_entropy=True"),
    "_get_per_token_logps_and_entropies": ("fused_lm_head=True", "model(**model_inputs"),
    "_calculate_rewards": ("rewards_per_func = gather(rewards_per_func)",),
}
EXPECTED_ATTRIBUTES = (
    "_metrics",
    "_step",
    "_tokenizer",
    "_is_vlm",
    "reward_func_names",
    "reward_weights",
    "aux_loss_enabled",
)


def moved_seams() -> list[str]:
    """What the installed TRL no longer has as this package expects it, one sentence each; empty when all is well."""
    moved = []
    for name, parameters in EXPECTED_METHODS.items():
        method = getattr(GRPOTrainer, name, None)
        if method is None:
            moved.append(f"trl.GRPOTrainer.{name} is gone.")
            continue
        missing = [p for p in parameters if p not in inspect.signature(method).parameters]
        if missing:
            moved.append(f"trl.GRPOTrainer.{name} no longer takes {', '.join(missing)}.")
        source = inspect.getsource(inspect.unwrap(method))
        moved += [
            f"trl.GRPOTrainer.{name} no longer contains {text!r}."
            for text in EXPECTED_SOURCE.get(name, ())
            if text not in source
        ]
    source = inspect.getsource(GRPOTrainer)
    moved += [
        f"trl.GRPOTrainer no longer sets self.{name}." for name in EXPECTED_ATTRIBUTES if f"self.{name}" not in source
    ]
    return moved


# --- the student's forward ------------------------------------------------------------------------------------------


@dataclass
class DistilledOutput(FusedCausalLMOutput):
    """TRL's fused output with the divergence of the gated tokens, so that FSDP and DDP see its graph.

    Attributes:
        divergence: (N,) divergence at the gated positions, rows first.
    """

    divergence: torch.Tensor | None = None


@dataclass(frozen=True)
class DistillationTarget:
    """The teacher's view of one micro-batch.

    Attributes:
        weights: (B, T) gate weights; positions with weight 0 are not computed.
        scores: One entry per row; None where the row has no weight.
        teacher_head: Output head of a teacher with dense scores.
        interpolation: Of the divergence, in [0, 1].
        temperature: Softmax temperature, > 0.
        chunk_size: Tokens whose vocabulary is expanded at once.
    """

    weights: torch.Tensor
    scores: Sequence[Scores | None]
    teacher_head: OutputHead | None
    interpolation: float
    temperature: float
    chunk_size: int

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


class ForwardWithTarget:
    """Stands in for the model inside `_get_per_token_logps_and_entropies`: adds the target, keeps the divergence."""

    def __init__(self, model: Any, target: DistillationTarget) -> None:
        self._model = model
        self._target = target
        self.divergence: torch.Tensor | None = None

    def __call__(self, **kwargs: Any) -> Any:
        output = self._model(**kwargs, distillation_target=self._target)
        self.divergence = output.divergence
        return output


# --- rollouts ---------------------------------------------------------------------------------------------------------


def reward_names(reward_funcs: Sequence[Any]) -> list[str]:
    """The names under which TRL logs `reward_funcs`."""
    names = []
    for reward in reward_funcs:
        if isinstance(reward, str):
            names.append(reward.split("/")[-1])
        elif isinstance(reward, torch.nn.Module):
            names.append(str(getattr(reward.config, "_name_or_path", "reward_model")).split("/")[-1])
        else:
            names.append(get_callable_name(reward))
    return names


def call_reward(
    trainer: KEPOTrainer,
    index: int,
    rows: Sequence[Mapping[str, Any]],
    prompts: Sequence[Prompt],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
) -> list[float]:
    """The rewards of one reward function for rows of this process alone; NaN where it does not apply.

    TRL's own `_calculate_rewards` calls every function and gathers over processes, which exploration cannot use: its
    processes verify different numbers of samples.
    """
    function = trainer.reward_funcs[index]
    columns = {key: [row[key] for row in rows] for key in rows[0] if key not in ("prompt", "completion")}
    arguments: dict[str, Any] = dict(
        prompts=list(prompts),
        completions=list(completions),
        completion_ids=[list(ids) for ids in completion_ids],
        trainer_state=trainer.state,
        log_extra=_ignore,
        log_metric=_ignore,
        **{key: values for key, values in columns.items() if key != "completion_ids"},
    )
    if is_async_callable(function):
        future = asyncio.run_coroutine_threadsafe(function(**arguments), trainer.async_loop)
        rewards = future.result()
    else:
        rewards = function(**arguments)
    return [float("nan") if reward is None else float(reward) for reward in rewards]


def _ignore(*_args: Any, **_kwargs: Any) -> None:
    """Stands in for TRL's logging callbacks while a reward function only verifies."""


def sample_completions(trainer: KEPOTrainer, prompts: Sequence[Prompt], filler: Prompt) -> list[Sample]:
    """One completion per prompt, generated the way TRL generates its rollouts (transformers or vLLM).

    Generation is collective: every process must call this together, with any number of prompts. Shorter lists are
    padded with `filler`, because sharded models and the vLLM server expect equal numbers.
    """
    longest = max_over_processes(trainer, len(prompts))
    if longest == 0:
        return []
    padded = [*prompts, *[filler] * (longest - len(prompts))]
    prompt_ids, images, fields = trainer._tokenize_prompts(padded)
    completion_ids, logps = trainer._generate_single_turn(prompt_ids, images, fields, 1)
    texts = trainer.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
    return [
        Sample(tuple(ids), text, None if logps is None else tuple(logps[row]))
        for row, (ids, text) in enumerate(zip(completion_ids[: len(prompts)], texts[: len(prompts)], strict=True))
    ]


def as_completion(prompt: Prompt, text: str) -> Any:
    """`text` in the form TRL gives to reward functions: a message for conversational prompts, else the text."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


@torch.no_grad()
def completion_logps(
    trainer: KEPOTrainer, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], filler: Prompt
) -> list[list[float]]:
    """Log-probabilities of `completions` under `prompts` by the current policy, in nats. Collective, as sampling is."""
    longest = max_over_processes(trainer, len(prompts))
    size = trainer.args.per_device_train_batch_size
    padded = [*prompts, *[filler] * (longest - len(prompts))]
    ids = [*[list(c) for c in completions], *[[trainer.eos_token_ids[0]]] * (longest - len(prompts))]
    logps: list[list[float]] = []
    for start in range(0, longest, size):
        chunk = slice(start, start + size)
        batch = encode(
            trainer.processing_class,
            padded[chunk],
            ids[chunk],
            trainer.accelerator.device,
            trainer.chat_template_kwargs,
        )
        keep = max(len(c) for c in ids[chunk])
        image_counts = [_count_images(prompt) for prompt in padded[chunk]]
        values, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            batch.pop("input_ids"),
            batch.pop("attention_mask"),
            keep,
            num_images=image_counts if any(image_counts) else None,
            **batch,
        )
        logps += [row[: len(c)].tolist() for row, c in zip(values, ids[chunk], strict=True)]
    return logps[: len(prompts)]


def _count_images(prompt: Prompt) -> int:
    if isinstance(prompt, str):
        return 0
    parts = [part for message in prompt if isinstance(message["content"], list) for part in message["content"]]
    return sum(part["type"] == "image" for part in parts)


# --- processes --------------------------------------------------------------------------------------------------------


def max_over_processes(trainer: KEPOTrainer, value: int) -> int:
    """The largest `value` of all processes; collective."""
    if trainer.accelerator.num_processes == 1:
        return value
    return int(trainer.accelerator.gather(torch.tensor([value], device=trainer.accelerator.device)).max())


def teacher_sharding(trainer: KEPOTrainer) -> Callable[[Any], Any] | None:
    """How a local teacher is sharded under this launch: as TRL shards its reference model; None: not at all."""
    if trainer.is_deepspeed_enabled:
        return lambda module: prepare_deepspeed(module, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return lambda module: prepare_fsdp(module, trainer.accelerator)
    return None


# --- launching --------------------------------------------------------------------------------------------------------


def accelerate_config_file(name: str) -> str:
    """The file of an accelerate config: a path, or the name of one that TRL ships.

    Raises:
        ConfigError: There is neither.
    """
    if Path(name).is_file():
        return name
    folder = Path(str(files("trl.accelerate_configs")))
    shipped = folder / f"{name}.yaml"
    if not shipped.is_file():
        names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ConfigError(f"accelerate_config {name!r} is neither a file nor one of TRL's: {names}.")
    return str(shipped)
