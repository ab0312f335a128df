"""A scripted policy and groups of questions, for exploration without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from kepo.prompts import prompt_text
from kepo.types import Group, Prompt, Sample


class ScriptedPolicy:
    """A sampler and its verifier. A completion is right when its text starts with "right"; one token per character.

    `script` maps a question's text to the completions sampled for it, in order; after the last one it says "wrong".
    """

    def __init__(self, script: Mapping[str, Sequence[str]]) -> None:
        self._left = {question: list(texts) for question, texts in script.items()}
        self.calls: list[list[Prompt]] = []
        self.verified: list[tuple[list[str], list[str]]] = []

    def sample(self, prompts: Sequence[Prompt]) -> list[Sample]:
        self.calls.append(list(prompts))
        return [_sample(self._next(prompt_text(prompt))) for prompt in prompts]

    def _next(self, prompt: str) -> str:
        texts = next((texts for question, texts in self._left.items() if question in prompt), [])
        return texts.pop(0) if texts else "wrong"

    def verify(self, groups: Sequence[Group], samples: Sequence[Sample]) -> list[bool]:
        assert samples, "the verifier may only be called when there are samples"
        self.verified.append(([group.key for group in groups], [sample.text for sample in samples]))
        return [sample.text.startswith("right") for sample in samples]


def _sample(text: str) -> Sample:
    return Sample(completion_ids=tuple(map(ord, text)), text=text)


@pytest.fixture
def sample_of() -> Callable[[str], Sample]:
    """A sample with this text, one token per character."""
    return _sample


@pytest.fixture
def policy() -> Callable[..., ScriptedPolicy]:
    def make(script: Mapping[str, Sequence[str]] | None = None) -> ScriptedPolicy:
        return ScriptedPolicy(script or {})

    return make


@pytest.fixture
def group() -> Callable[..., Group]:
    """An all-failed group of four rollouts whose question is its key; the correct option is B, "Melanoma"."""

    def make(key: str = "q1", **fields: Any) -> Group:
        correct = fields.pop("correct", (False,) * 4)
        defaults: dict[str, Any] = dict(
            prompt=[{"role": "user", "content": f"{key}?"}],
            answer="B",
            options=("Cyst", "Melanoma", "Naevus"),
            correct=correct,
            rewards=tuple(float(flag) for flag in correct),
        )
        return Group(key=key, **{**defaults, **fields})

    return make
