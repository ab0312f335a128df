"""How questions are asked, and the protocol of what answers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kepo.errors import ConfigError
from kepo.prompts import PROMPT_STYLES, PromptStyle
from kepo.rewards import get_rewards
from kepo.types import Conversation


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How questions are asked and answers scored: what decides the records beside the model and the questions.

    Attributes:
        prompt_style: As in training, see `kepo.prompts`.
        image_size: Side in pixels that images are resized to, as in training; None keeps their size.
        max_new_tokens: Longest completion, in tokens, >= 1.
        temperature: Of sampling, >= 0; 0 is greedy.
        top_p: Nucleus of sampling, in (0, 1].
        samples: Completions per question and option order, >= 1. More than one needs a temperature above 0.
        permutations: How many other orders of its options each question is asked in again, >= 0.
        seed: Of sampling and of the orders.
        reward: Decides `correct`: a reward function by its name (see `kepo.rewards.get_rewards`), correct from 1.0 on.

    Raises:
        ConfigError: a value outside its range, or an unknown reward.
    """

    prompt_style: PromptStyle = "think"
    image_size: int | None = None
    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    permutations: int = 0
    seed: int = 0
    reward: str = "choice_accuracy"

    def __post_init__(self) -> None:
        if self.prompt_style not in PROMPT_STYLES:
            raise ConfigError(f"prompt_style {self.prompt_style!r} is unknown; use one of {', '.join(PROMPT_STYLES)}")
        for name, least in (("max_new_tokens", 1), ("samples", 1), ("permutations", 0), ("temperature", 0)):
            # Written so that NaN is refused too.
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least {least}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; give a number above 0 and up to 1")
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"image_size is {self.image_size}; give at least 1 pixel, or leave it out")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"samples is {self.samples} and temperature 0: greedy samples are all the same; set a temperature"
            )
        get_rewards([self.reward])


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion."""

    text: str  # decoded, without special tokens but the tags that are read
    tokens: int  # its length, the end token included
    finished: bool  # ended by itself, before the limit
    # Whether the prompt ended with an opened `<think>`; None where that is not known, as of a server's template.
    reasoning_opened: bool | None = field(default=None, compare=False)


class Backend(Protocol):
    """Whatever answers prompts."""

    kind: str  # "transformers" or "openai", for the records
    model: str  # its name, for the records
    fingerprint: str  # changes when the model's weights do; empty where that cannot be known
    batch_size: int  # prompts per call, >= 1

    def generate(
        self, prompts: Sequence[Conversation], sampling: EvaluationSettings, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """`sampling.samples` completions per prompt, in order.

        Args:
            prompts: Conversations, images included as parts `{"type": "image", "image": PIL image}`.
            sampling: How to draw: `max_new_tokens`, `temperature`, `top_p` and `samples` count.
            seeds: One per prompt, 0..2**63-1. Equal seeds give equal completions where the backend can promise it.
        """
        ...
