"""The records that pass between the rooms of this package.

Frozen and free of any framework: everything here imports the standard library only, so that exploration, rewards and
data can be read and tested without a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]
"""One chat message: `{"role": ..., "content": str | list of parts}`; a part is `{"type": "text", "text": str}` or
`{"type": "image", "image": PIL.Image.Image}` (the format of Hugging Face chat templates)."""

Conversation: TypeAlias = list[Message]

SPLITS: tuple[str, ...] = ("train", "validation", "test")
"""The parts of a data set, in the order in which they are listed."""

Prompt: TypeAlias = "str | Conversation"
"""What a policy is asked: a conversation, or plain text for a model without chat template."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a data set.

    Attributes:
        id: Unique within its data set.
        text: The question itself, without its options.
        answer: The ground truth. With options: the LETTER of the correct one ("A", "B", ...). Else: free text.
        options: The texts of the options in order, without their letters; empty for an open question.
        images: Paths of image files, or images already decoded (PIL).
        modality: Imaging modality ("MRI", "CT", ...); None where it means nothing.
        task: Question type ("Disease Diagnosis", ...) or task name; None where unknown.
        metadata: Anything else a reward function needs; must survive JSON.
    """

    id: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    images: tuple[Any, ...] = ()
    modality: str | None = None
    task: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options: ("A", "B", ...)."""
        return option_letters(self.options)

    @property
    def answer_text(self) -> str:
        """The text of the correct option, or the answer itself for an open question."""
        if not self.options:
            return self.answer
        return self.options[self.letters.index(self.answer)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion sampled from the policy.

    Attributes:
        completion_ids: Token ids, the end-of-sequence token included when it was sampled (length T).
        text: The decoded completion, without special tokens.
        logps: Log-probabilities at sampling time, one per token, in nats; None when the engine gives none.
    """

    completion_ids: tuple[int, ...]
    text: str
    logps: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """A hint for one question.

    Attributes:
        text: What is shown to the student; empty when there is no usable hint.
        level: 0 is the weakest (a concept); higher levels tell more.
        leaks: What the audit found in `written`: any of "letter", "option".
        written: The hint as the teacher wrote it, before the leak policy.
        raw: The teacher's answer as it came, for the log.
        banked: Whether it was read from a hint bank instead of being asked for.
    """

    text: str
    level: int = 0
    leaks: tuple[str, ...] = ()
    written: str = ""
    raw: str = ""
    banked: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """The G rollouts of one prompt, as exploration sees them.

    Attributes:
        key: Names the question (its id); used in logs, and for the reader of a hint bank.
        prompt: The original prompt, images included.
        answer: Ground truth: the option's letter, or free text. None if the data set has none.
        options: Option texts in order; empty for an open question.
        correct: One flag per rollout (length G): did it answer correctly? Format does not count.
        rewards: The reward that says what is correct, one per rollout (length G); NaN where it does not apply.
        row: The data set row, handed unchanged to the verifier.
    """

    key: str
    prompt: Prompt
    answer: str | None
    options: tuple[str, ...]
    correct: tuple[bool, ...]
    rewards: tuple[float, ...]
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A sample that rejection kept, with where it came from.

    Attributes:
        sample: The verified completion.
        hint: The hint it was sampled under; None for the control that resamples without one.
        attempt: 1 for the first attempt.
        prompt: The prompt it was sampled under (with the hint).
    """

    sample: Sample
    hint: Hint | None
    attempt: int
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Rescue:
    """What exploration did for one group.

    Attributes:
        key: The group's key.
        kept: Verified samples, at most `num_injected`.
        slots: For each kept sample the rollout (0..G-1) it replaces; distinct, all of failed rollouts.
        attempts: How many attempts this group took part in.
        sampled_tokens: Completion tokens sampled for it in all attempts.
        hints: Every hint at hand, in order.
        leaked_hints: How many of the teacher's answers leaked, those asked again included.
        levels_asked: At how many levels hints were asked for, of a bank or of the teacher.
        failure: Why nothing was kept ("no hint", "no correct sample", "no failed rollout"); None when something was.
    """

    key: str
    kept: tuple[KeptSample, ...] = ()
    slots: tuple[int, ...] = ()
    attempts: int = 0
    sampled_tokens: int = 0
    hints: tuple[Hint, ...] = ()
    leaked_hints: int = 0
    levels_asked: int = 0
    failure: str | None = None


def option_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Letters of `options` in order: ("A", "B", ...). At most 26 options have one."""
    return tuple(ascii_uppercase[: len(options)])
