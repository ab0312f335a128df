"""The records that pass between the rooms of this package.

Frozen and free of any framework: everything here imports the standard library only, so that exploration, rewards and
data can be read and tested without a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, NamedTuple, TypeAlias

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
    """One question of a data set."""

    id: str  # unique within its data set
    text: str  # the question itself, without its options
    answer: str  # ground truth. With options: the LETTER of the correct one ("A", "B", ...). Else: free text
    # The texts of the options in order, without their letters; empty for an open question.
    options: tuple[str, ...] = ()
    images: tuple[Any, ...] = ()  # paths of image files, or images already decoded (PIL)
    modality: str | None = None  # imaging modality ("MRI", "CT", ...); None where it means nothing
    task: str | None = None  # question type ("Disease Diagnosis", ...) or task name; None where unknown
    # Anything else a reward function needs; must survive JSON.
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
class Content:
    """What a question shows, as hashes; made by `kepo.data.contents`, kept by a run for what it was trained on."""

    text: str  # hash of the question and its options, without case, spaces and order of options
    images: tuple[str, ...] = ()  # hash of the pixels of each image
    thumbnails: tuple[bytes, ...] = ()  # each image in 16 x 16 grey pixels, row by row (256 bytes)


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion sampled from the policy; with tools all its turns, and between them the results of the tools."""

    completion_ids: tuple[int, ...]  # token ids, the end-of-sequence token included when it was sampled (length T)
    text: str  # the decoded completion, without special tokens
    # Log-probabilities at sampling time, one per token, in nats; None when the engine gives none, of a token or at all.
    logps: tuple[float | None, ...] | None = None
    finished: bool = True  # whether it ended with an end token, and was not cut off
    # What reward functions are given, with reasoning and tool calls parsed; None: `text`, as a message if in a chat.
    completion: Any = None
    tool_mask: tuple[int, ...] | None = None  # 1 for tokens of the policy, 0 for those of tools (length T); None: all 1
    images: tuple[Any, ...] = ()  # those that tools returned

    @property
    def sampled_tokens(self) -> int:
        """Tokens that the policy wrote."""
        return len(self.completion_ids) if self.tool_mask is None else sum(self.tool_mask)


@dataclass(frozen=True, slots=True)
class Hint:
    """A hint for one question."""

    text: str  # what is shown to the student; empty when there is no usable hint
    level: int = 0  # 0 is the weakest (a concept); higher levels tell more
    leaks: tuple[str, ...] = ()  # what the audit found in `written`: any of "letter", "option"
    written: str = ""  # the hint as the teacher wrote it, before the leak policy
    raw: str = ""  # the teacher's answer as it came, for the log
    banked: bool = False  # whether it was read from a hint bank instead of being asked for


@dataclass(frozen=True, slots=True)
class Group:
    """The G rollouts of one prompt, as exploration sees them."""

    key: str  # names the question (its id); used in logs, and for the reader of a hint bank
    prompt: Prompt  # the original prompt, images included
    answer: str | None  # ground truth: the option's letter, or free text. None if the data set has none
    options: tuple[str, ...]  # option texts in order; empty for an open question
    correct: tuple[bool, ...]  # one flag per rollout (length G): did it answer correctly? Format does not count
    # The reward that says what is correct, one per rollout (length G); NaN where it does not apply.
    rewards: tuple[float, ...]
    row: Mapping[str, Any] = field(default_factory=dict)  # the data set row, handed unchanged to the verifier


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A sample that rejection kept, with where it came from."""

    sample: Sample  # the verified completion
    hint: Hint | None  # the hint it was sampled under; None for the control that resamples without one
    attempt: int  # 1 for the first attempt
    prompt: Prompt  # the prompt it was sampled under (with the hint)


class Outcomes(NamedTuple):
    """What came of samples: whole numbers, or less where older ones count less."""

    correct: float = 0  # finished and correct, those that equal another one or were not needed included
    samples: float = 0


@dataclass(frozen=True, slots=True)
class Rescue:
    """What exploration did for one group."""

    key: str
    kept: tuple[KeptSample, ...] = ()  # verified samples, at most `num_injected`
    # For each kept sample the rollout (0..G-1) it replaces; distinct, all of failed rollouts.
    slots: tuple[int, ...] = ()
    attempts: int = 0  # how many attempts this group took part in
    sampled_tokens: int = 0  # completion tokens sampled for it in all attempts
    hints: tuple[Hint, ...] = ()  # every hint at hand, in order
    # What came of its samples, by the level of the hint that they were sampled under (None: without one).
    outcomes: Mapping[int | None, Outcomes] = field(default_factory=dict)
    truncated_samples: int = 0  # how many of its samples were cut off, and so not even verified
    leaked_hints: int = 0  # how many of the teacher's answers leaked, those asked again included
    unneeded_hints: int = 0  # how many were asked for ahead, and were not needed when they came
    levels_asked: int = 0  # at how many levels hints were asked for, of a bank or of the teacher
    # Why nothing was kept ("no hint", "no correct sample", "no finished sample", "no failed rollout"); None when
    # something was.
    failure: str | None = None


def option_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Letters of `options` in order: ("A", "B", ...). At most 26 options have one."""
    return tuple(ascii_uppercase[: len(options)])
