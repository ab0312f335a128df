"""The prompts that a colocated vLLM reads, where they hold images.

TRL 1.16 hands vLLM the trainer's own token ids, in which an image is many tokens already, and the image beside them,
for which vLLM puts its tokens in once more: the rollouts answer a broken prompt (a fault that TRL knows of and has not
mended). Here vLLM gets one token per image, and must come to the trainer's prompt by itself. Server mode hands images
over in another way, without that fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError
from kepo.types import Prompt

if TYPE_CHECKING:
    from kepo.trainer.trainer import KEPOTrainer


def mend_colocated_images(trainer: KEPOTrainer) -> None:
    """Put a `_ColocatedPrompts` before the engine of `trainer`, where it has one and a model that takes images."""
    if trainer.args.use_vllm and trainer.args.vllm_mode == "colocate" and trainer._is_vlm:
        between = _ColocatedPrompts(trainer)
        trainer._tokenize_prompts = between.tokenize
        trainer.vllm_generation.generate = between.generate


class _ColocatedPrompts:
    """Remembers what it tokenized with one token per image, and generates from that."""

    def __init__(self, trainer: KEPOTrainer) -> None:
        self._trainer = trainer
        self._tokenize, self._generate = trainer._tokenize_prompts, trainer.vllm_generation.generate
        self._short: dict[tuple[int, ...], list[int]] = {}

    def tokenize(self, prompts: Sequence[Prompt]) -> tuple[Any, Any, Any]:
        """As TRL's `_tokenize_prompts`."""
        prompt_ids, images, fields = self._tokenize(prompts)
        if images is not None:
            short = one_token_per_image(self._trainer, prompts)
            self._short = {tuple(ids): row for ids, row in zip(prompt_ids, short, strict=True)}
        return prompt_ids, images, fields

    def generate(self, prompts: list[list[int]], images: Any, **arguments: Any) -> tuple[Any, ...]:
        """As `generate` of TRL's `VLLMGeneration`.

        Raises:
            ConfigError: vLLM came to another prompt than the trainer, or the prompt was not tokenized just before.
        """
        if images is None:
            return tuple(self._generate(prompts=prompts, images=None, **arguments))
        if any(tuple(ids) not in self._short for ids in prompts):
            raise ConfigError("A colocated vLLM cannot be given images that tools return. Set vllm_mode to 'server'.")
        short = [self._short[tuple(ids)] for ids in prompts]
        read, *rest = self._generate(prompts=short, images=images, **arguments)
        for row, (theirs, ours) in enumerate(zip(read, prompts, strict=True)):
            if list(theirs) != list(ours):
                raise ConfigError(
                    f"vLLM reads prompt {row} of the batch as {len(theirs)} tokens, the trainer as {len(ours)}: their "
                    "processors turn its image into other tokens. Set image_size, so that all images have one size, or "
                    "vllm_mode to 'server', or use_vllm to false."
                )
        return (prompts, *rest)


def one_token_per_image(trainer: KEPOTrainer, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of `prompts` as the chat template writes them, before the processor puts in an image's own tokens."""
    texts: list[str] = trainer.processing_class.apply_chat_template(
        conversation=prompts,
        tools=trainer.tools or None,
        chat_template=trainer.chat_template,
        add_generation_prompt=True,
        tokenize=False,
        **trainer.chat_template_kwargs,
    )
    tokenizer = trainer._tokenizer
    # As transformers does it: no second start token where the template writes one.
    special = tokenizer.bos_token is None or not texts[0].startswith(tokenizer.bos_token)
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=special)["input_ids"]
    return ids
