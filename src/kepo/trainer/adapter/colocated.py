"""What a vLLM in the trainer's own process reads, where prompts hold images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kepo.errors import ConfigError


class ColocatedPrompts:
    """The prompts that a colocated vLLM reads, where they hold images: one token per image.

    TRL 1.16 gives vLLM the trainer's own token ids, in which an image is many tokens already, and the image beside
    them, for which vLLM inserts its tokens once more: the rollouts answer a broken prompt (a known fault of TRL, not
    fixed yet). Here vLLM gets one token per image, and must arrive at the trainer's prompt by itself. Server mode does
    not have that fault.

    Args:
        generate: `generate` of TRL's `VLLMGeneration`.
    """

    def __init__(self, generate: Callable[..., Any]) -> None:
        self._generate = generate
        self._short: dict[tuple[int, ...], list[int]] = {}

    def remember(self, prompt_ids: Sequence[Sequence[int]], short: Sequence[list[int]]) -> None:
        """Prompts with images that are generated for next, as the trainer reads them and with one token per image."""
        self._short = {tuple(ids): row for ids, row in zip(prompt_ids, short, strict=True)}

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
