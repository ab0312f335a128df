"""Rewards, samples and log-probabilities the way TRL makes them, for rows that TRL does not know of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from trl.trainer.utils import get_callable_name, is_async_callable

from kepo.models.encoding import encode
from kepo.prompts import prompt_images
from kepo.trainer.seams.processes import max_over_processes
from kepo.types import Prompt, Sample

if TYPE_CHECKING:
    from kepo.trainer.trainer import KEPOTrainer


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


def completion_ids(trainer: KEPOTrainer, text: str) -> list[int]:
    """The token ids of a completion that was not sampled, its end token included, cut where rollouts are cut."""
    ids: list[int] = trainer._tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, trainer.eos_token_ids[0]][: trainer.args.max_completion_length]


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
        image_counts = [len(prompt_images(prompt)) for prompt in padded[chunk]]
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
