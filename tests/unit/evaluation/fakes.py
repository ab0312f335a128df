"""A backend that knows its answers, for tests of everything around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kepo.evaluation.settings import Completion, EvaluationSettings
from kepo.types import Conversation, Question


def questions(count: int) -> list[Question]:
    """Questions with four options; the right one moves on from A to D and starts again."""
    return [
        Question(
            id=f"q{number}",
            text=f"What is {number}?",
            answer="ABCD"[number % 4],
            options=("round", "oval", "ragged", "large"),
            modality=("MRI", "CT")[number % 2],
            task="Shape",
            metadata={"level": number, "facts": {"shape": "round"}},
        )
        for number in range(count)
    ]


class FakeBackend:
    """Answers by a function of the prompt's text; `calls` holds how many prompts came at once, `seeds` their seeds."""

    kind = "transformers"
    model = "fake"
    fingerprint = "1"

    def __init__(self, answer: Callable[[str], str], batch_size: int = 4, fail_after: int | None = None) -> None:
        self.batch_size = batch_size
        self.calls: list[int] = []
        self.seeds: list[int] = []
        self.asked: list[Conversation] = []
        self._answer = answer
        self._fail_after = fail_after

    def generate(
        self, prompts: Sequence[Conversation], sampling: EvaluationSettings, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        if self._fail_after is not None and len(self.calls) >= self._fail_after:
            raise KeyboardInterrupt
        self.calls.append(len(prompts))
        self.seeds += seeds
        self.asked += prompts
        return [
            [Completion(self._answer(_text(prompt)), 7, True) for _ in range(sampling.samples)] for prompt in prompts
        ]


def _text(prompt: Conversation) -> str:
    content = prompt[0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def always(letter: str) -> Callable[[str], str]:
    """The same letter, well formed, whatever is asked."""
    return lambda _: f"<think>shape round</think><answer>{letter}</answer>"


def by_text(option: str) -> Callable[[str], str]:
    """The letter under which `option` stands in the prompt."""

    def answer(prompt: str) -> str:
        [line] = [line for line in prompt.splitlines() if line.endswith(f") {option}")]
        return f"<think>{option}</think><answer>{line[0]}</answer>"

    return answer
