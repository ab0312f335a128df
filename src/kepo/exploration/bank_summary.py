"""What is in a bank, counted level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from kepo.exploration.bank_lines import BankedHint


@dataclass(frozen=True, slots=True)
class LevelSummary:
    """The hints of one level.

    Attributes:
        level: Index into `kepo.prompts.HINT_LEVELS`; None for all levels together.
        questions: Questions that have any, by their ids.
        hints: Hints.
        usable: Hints that have a text and do not give the answer away.
        served: Questions that have a usable one.
        empty: Answers without a hint in them.
        letter: Hints that name the letter.
        option: Hints that name the answer's text.
        other_language: Hints that are clearly not in the question's language.
        duplicates: Hints that say what an earlier one of the question says.
        words: Median length of those with a text; 0 without any.
    """

    level: int | None
    questions: int
    hints: int
    usable: int
    served: int
    empty: int
    letter: int
    option: int
    other_language: int
    duplicates: int
    words: float


def summarize(hints: Sequence[BankedHint]) -> list[LevelSummary]:
    """One summary per level that occurs, weakest first, and one of all where there are several."""
    levels = sorted({hint.level for hint in hints})
    summaries = [_summary(level, [hint for hint in hints if hint.level == level]) for level in levels]
    return summaries if len(levels) < 2 else [*summaries, _summary(None, hints)]


def _summary(level: int | None, hints: Sequence[BankedHint]) -> LevelSummary:
    usable = [hint for hint in hints if hint.text and not hint.leaks]
    return LevelSummary(
        level=level,
        questions=len({hint.question for hint in hints}),
        hints=len(hints),
        usable=len(usable),
        served=len({hint.question for hint in usable}),
        empty=sum(not hint.text for hint in hints),
        letter=sum("letter" in hint.leaks for hint in hints),
        option=sum("option" in hint.leaks for hint in hints),
        other_language=sum(hint.other_language for hint in hints),
        duplicates=sum(hint.duplicate for hint in hints),
        words=median([hint.words for hint in hints if hint.text] or [0]),
    )
