"""What a teacher is: it writes hints, and it says what it thinks of the student's tokens.

Shapes: T completion tokens of one row, K candidates kept per token, H the teacher's hidden width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from kepo.types import Conversation, Prompt

if TYPE_CHECKING:
    import torch

    from kepo.objective.divergence import OutputHead

MaxOverProcesses: TypeAlias = Callable[[int], int]
"""The largest of one integer per process. All processes must call it together."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One row to score: the prompt that the student is trained under, then the student's exact tokens.

    The trainer always gives `prompt_ids`: what the student's own forward pass reads, with its chat template, its
    template variables and the schemas of its tools. A teacher that takes token ids reads these and no others, so that
    a teacher with the student's weights has a divergence of 0. Images are in `prompt` (and `tool_images`), and become
    pixels by the teacher's own image processor.
    """

    prompt: Prompt  # its images; and the whole prompt for a teacher that renders it itself
    completion_ids: tuple[int, ...]  # length T >= 1; what tools answered is among them
    prompt_ids: tuple[int, ...] | None = None  # length P, images expanded; None: the teacher renders `prompt`
    tool_images: tuple[Any, ...] = ()  # images that tools returned, whose tokens are in `completion_ids`
    token_logps: bool = True  # whether the log-probabilities of the student's own tokens are wanted


@dataclass(frozen=True, slots=True)
class DenseScores:
    """A teacher's full next-token distribution at the T completion positions, as hidden states.

    The vocabulary-sized product with the teacher's `head` is only ever made in chunks, inside the divergence.
    """

    hidden: torch.Tensor  # (T, H) the states that predict completion tokens 0..T-1
    token_logps: torch.Tensor | None  # (T,) log-probability of the student's own tokens, in nats; None: not asked for


@dataclass(frozen=True, slots=True)
class SparseScores:
    """A teacher's K most likely next tokens at the T completion positions."""

    ids: torch.Tensor  # (T, K) token ids; a row may repeat no id
    logps: torch.Tensor  # (T, K) their log-probabilities, in nats; -inf marks an unused place
    token_logps: torch.Tensor  # (T,) log-probability of the student's own tokens, in nats


Scores: TypeAlias = DenseScores | SparseScores


@runtime_checkable
class HintWriter(Protocol):
    """Writes hints. Called by every process the same number of times, with an empty list where there is no work."""

    @property
    def name(self) -> str:
        """Says which model this is; a hint bank keeps the hints of each apart by it."""
        ...

    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        """One raw answer per conversation (see `kepo.prompts.hint_request`); a failure is an empty string."""
        ...


@runtime_checkable
class Teacher(HintWriter, Protocol):
    """A hint writer that also scores tokens."""

    def check_student(self, tokenizer: Any, vocab_size: int) -> None:
        """Refuse a student whose token ids mean something else here.

        Args:
            tokenizer: The student's tokenizer, or its processor.
            vocab_size: Rows of the student's output head, the padding included.

        Raises:
            TeacherError: says what to use instead.
        """
        ...

    def check_prompt(self, prompt: Prompt) -> None:
        """Refuse, before training starts, a kind of prompt that this teacher cannot render.

        Raises:
            TeacherError: e.g. a conversation, for a processor without chat template.
        """
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[Scores | None]:
        """One result per request, in order; None for a row that the teacher could not score and may go without.

        An empty list is allowed, and must be sent by a process without rows.
        """
        ...

    @property
    def head(self) -> OutputHead | None:
        """The output head that belongs to `DenseScores`; None for a teacher with sparse scores."""
        ...

    def place(self, device: Any, shard: Callable[[Any], Any] | None, max_over_processes: MaxOverProcesses) -> None:
        """Called once before training: where to compute, how to shard (None: not), how to agree on a number."""
        ...


class PendingHints(Protocol):
    """Hints on their way."""

    def result(self) -> list[str]:
        """Wait for the answers; they are as `HintWriter.write_hints` returns them."""
        ...


@runtime_checkable
class AsynchronousHintWriter(HintWriter, Protocol):
    """A hint writer elsewhere, which writes while this process does something else."""

    def start_hints(self, conversations: Sequence[Conversation]) -> PendingHints:
        """Begin what `write_hints` does."""
        ...


class PendingScores(Protocol):
    """Scores on their way."""

    def result(self) -> Sequence[Scores | None]:
        """Wait for the scores; they are as `Teacher.score` returns them."""
        ...


@runtime_checkable
class AsynchronousTeacher(Teacher, Protocol):
    """A teacher elsewhere, which scores while this process does something else."""

    def start_scoring(self, requests: Sequence[ScoreRequest]) -> PendingScores:
        """Begin what `score` does."""
        ...


@runtime_checkable
class CountingTeacher(Protocol):
    """A teacher with metrics of its own."""

    def take_metrics(self) -> dict[str, float]:
        """Counts of this process since the last call, by their names in the training log."""
        ...
