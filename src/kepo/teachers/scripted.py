"""A teacher that follows a script: for tests, and for dry runs without a second model.

It stands behind the real `Teacher` protocol and records its requests. torch is imported only where scores are
made.

T completion tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from kepo.errors import TeacherError
from kepo.prompts import prompt_text
from kepo.teachers.base import MaxOverProcesses, ScoreRequest, Scores, SparseScores
from kepo.types import Conversation, Prompt

if TYPE_CHECKING:
    from kepo.objective.divergence import OutputHead

HintScript: TypeAlias = str | Mapping[str, str] | Sequence[str] | Callable[[Conversation], str]
ScoreScript: TypeAlias = Callable[[ScoreRequest], Scores]


class ScriptedTeacher:
    """Answers from a script.

    Args:
        hints: The raw answers (with their `<hint>` tags, as a model would write them):
            a text: the same for every request;
            a mapping: that of the first key which occurs in the text of the request, "" where none does;
            a sequence: one after the other, from the start again after the last;
            a function of the request.
        scores: The scores of one row; None for a teacher that only writes hints.
        head: The output head of scores that are `DenseScores`.

    Attributes:
        hint_conversations, score_requests: Every request, in order.
        hint_calls, score_calls: How many requests each call of `write_hints` or `score` held.
    """

    def __init__(
        self, hints: HintScript = "", scores: ScoreScript | None = None, head: OutputHead | None = None
    ) -> None:
        self.name = "scripted"
        self.hint_conversations: list[Conversation] = []
        self.hint_calls: list[int] = []
        self.score_requests: list[ScoreRequest] = []
        self.score_calls: list[int] = []
        self._hints = hints
        self._scores = scores
        self.head = head

    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        """The scripted answers, one per conversation."""
        self.hint_calls.append(len(conversations))
        return [self._hint(conversation) for conversation in conversations]

    def _hint(self, conversation: Conversation) -> str:
        script, place = self._hints, len(self.hint_conversations)
        self.hint_conversations.append(conversation)
        if isinstance(script, str):
            return script
        if isinstance(script, Mapping):
            text = prompt_text(conversation)
            return next((answer for key, answer in script.items() if key in text), "")
        if isinstance(script, Sequence):
            return script[place % len(script)] if script else ""
        return script(conversation)

    def check_prompt(self, prompt: Prompt) -> None:
        """Accept any prompt: none is rendered."""

    def check_student(self, tokenizer: Any, vocab_size: int) -> None:
        """Accept every student: whoever writes the scores knows what their token ids mean."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """The scripted scores, one per request.

        Raises:
            TeacherError: There is something to score and the script has no scores.
        """
        self.score_calls.append(len(requests))
        self.score_requests.extend(requests)
        if not requests:
            return []
        if self._scores is None:
            raise TeacherError(
                f"this scripted teacher has no scores, but {len(requests)} rows were to be scored. Give it "
                "scores=..., for example uniform_scores(vocab_size), or set distillation_weight to 0."
            )
        return [self._scores(request) for request in requests]

    def place(self, device: Any, shard: Callable[[Any], Any] | None, max_over_processes: MaxOverProcesses) -> None:
        """Do nothing: there is no model to place."""


def favourite_token_scores(vocab_size: int, token_id: int, probability: float) -> ScoreScript:
    """A teacher that prefers the same token everywhere: p = `probability` for it, (1 - p) / (V - 1) for each other.

    Args:
        vocab_size: V >= 2.
        token_id: The favourite, 0..V-1.
        probability: p, 0 < p < 1.

    Returns:
        A function that gives `SparseScores` of the whole vocabulary: `ids` and `logps` are (T, V), in nats, float32.

    Raises:
        TeacherError: An argument out of range, or, from the function, a completion with an id outside 0..V-1.
    """
    if vocab_size < 2 or not 0 <= token_id < vocab_size or not 0.0 < probability < 1.0:
        raise TeacherError(
            f"favourite_token_scores(vocab_size={vocab_size}, token_id={token_id}, probability={probability}): the "
            "vocabulary needs at least 2 tokens, the favourite must be one of them, the probability inside (0, 1)."
        )

    def scores(request: ScoreRequest) -> SparseScores:
        import torch

        completion = torch.tensor(request.completion_ids, dtype=torch.long)  # (T,)
        if completion.numel() and not 0 <= int(completion.min()) <= int(completion.max()) < vocab_size:
            raise TeacherError(
                f"a completion holds token ids from {int(completion.min())} to {int(completion.max())}, but the script "
                f"knows 0..{vocab_size - 1}. Give favourite_token_scores the student's vocabulary size."
            )
        row = torch.full((vocab_size,), math.log1p(-probability) - math.log(vocab_size - 1))  # (V,)
        row[token_id] = math.log(probability)
        repeat = (len(completion), 1)
        return SparseScores(torch.arange(vocab_size).repeat(repeat), row.repeat(repeat), row[completion])

    return scores


def uniform_scores(vocab_size: int) -> ScoreScript:
    """A teacher to which all V >= 2 tokens are equally likely: log-probability -log V everywhere."""
    return favourite_token_scores(vocab_size, token_id=0, probability=1.0 / max(vocab_size, 2))
