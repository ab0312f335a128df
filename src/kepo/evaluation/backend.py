"""What answers the questions of an evaluation: the protocol of a backend, how it samples, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kepo.types import Conversation


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion.

    Attributes:
        text: Decoded, without special tokens.
        tokens: Its length in tokens, the end token included.
        finished: Whether it ended by itself, before the limit.
    """

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        max_new_tokens: Longest completion, >= 1.
        temperature: Softmax temperature, >= 0; 0 is greedy.
        top_p: Nucleus: the smallest set of tokens with at least this probability, in (0, 1].
        samples: Completions per prompt, >= 1.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1


class Backend(Protocol):
    """Whatever answers prompts.

    Attributes:
        kind: "transformers" or "openai", for the records.
        model: Name of the model, for the records.
        fingerprint: Changes when the model's weights do; empty where that cannot be known.
        batch_size: How many prompts it likes to get at once, >= 1.
    """

    kind: str
    model: str
    fingerprint: str
    batch_size: int

    def generate(
        self, prompts: Sequence[Conversation], sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """`sampling.samples` completions per prompt, in order.

        Args:
            prompts: Conversations, images included as parts `{"type": "image", "image": PIL image}`.
            sampling: How to draw.
            seeds: One per prompt, 0..2**63-1. Equal seeds give equal completions where the backend can promise it.
        """
        ...
