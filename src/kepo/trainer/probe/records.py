"""What a probe looks at, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Scope:
    """How much is looked at. Rows are taken evenly over the data set."""

    rows: int  # questions whose perfect and incorrect answers are rewarded
    texts: int | None  # rows whose prompts are read; None: all
    images: int | None  # rows whose images are looked at; None: all
    shapes: int  # images given to the processor, one of each size and mode
    own_rewards: bool  # also call reward functions that are not of this package, which may be slow or counted


QUICK = Scope(rows=8, texts=2000, images=64, shapes=8, own_rewards=False)
"""At the start of every trainer: a second at most, whatever the size of the data."""

WHOLE = Scope(rows=64, texts=None, images=None, shapes=500, own_rewards=True)
"""Before `kepo train`, and `kepo check`."""


@dataclass(frozen=True, slots=True)
class RewardCheck:
    """What one reward function gives for the probed question; None: it was not asked, or it does not apply."""

    name: str
    perfect: float | None  # for the perfect completion
    incorrect: float | None  # for the same form with an incorrect answer
    correctness: bool = False  # whether it is the run's correctness reward


@dataclass(frozen=True, slots=True)
class HintCheck:
    """One hint of the teacher for the probed question, and its audit."""

    request: str  # what the teacher was asked, as text
    raw: str  # its answer
    hint: str  # the hint in it; empty: there is none
    leaks: tuple[str, ...]  # what the audit found, see `kepo.exploration.leaks.audit`
    shown: str  # what the leak policy leaves for the student


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found before the first step; everything that would end the run is raised instead."""

    rows: int | None = None  # of train_dataset; None: it is streamed, or an environment owns the data
    texts_read: int = 0  # rows whose prompts were read
    per_batch: int | None = None  # questions of one generation batch; None: supervised training
    row: str = ""  # which row the prompt and the completions below belong to
    prompt: str = ""  # as the model reads it
    completion: str | None = None  # a perfect completion, encoded and decoded; None: there is none to be made
    incorrect: str | None = None
    rewards: tuple[RewardCheck, ...] = ()
    rewarded_rows: int = 0  # questions whose perfect and incorrect answers were rewarded
    longest_prompt: int = 0  # tokens
    longest_row: str = ""  # which row that is
    max_completion: int | None = None  # tokens; None: not limited
    context: int | None = None  # tokens the model can read; None: its config does not say
    images: int = 0  # distinct images that were looked at
    image_shapes: int = 0  # of those, sizes and modes that the processor was given
    trainable: int = 0  # parameters
    parameters: int = 0
    hint: HintCheck | None = None
    notes: tuple[str, ...] = ()  # what is worth knowing and ends nothing


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a data set, with their numbers."""

    name: str  # of the data set, as the reader knows it
    numbers: Sequence[int]
    ids: Sequence[Any] | None  # of the whole data set; None: it has no column `id`

    def where(self, number: int) -> str:
        """How row `number` is called in messages."""
        return row_name(self.name, number, None if self.ids is None else self.ids[number])


def row_name(data: str, number: int, identity: Any = None) -> str:
    """`train_dataset, row 3 (id 'q3')`."""
    return f"{data}, row {number}" + ("" if identity is None else f" (id {identity!r})")


def evenly(count: int, most: int | None) -> list[int]:
    """At most `most` of 0..count-1, the first and the last included, evenly spread; all where `most` is None."""
    if most is None or count <= most:
        return list(range(count))
    if most == 1:
        return [0]
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})
