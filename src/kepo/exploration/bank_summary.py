"""What is in a bank, counted level by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import MappingProxyType

from kepo.exploration.bank_lines import BankedHint

Count = Callable[[Sequence[BankedHint]], float]

COUNTS: Mapping[str, Count] = MappingProxyType(
    {
        "questions": lambda hints: len({hint.question for hint in hints}),
        "hints": len,
        "usable: with a text, no leak": lambda hints: len(_usable(hints)),
        "questions with a usable one": lambda hints: len({hint.question for hint in _usable(hints)}),
        "without a hint in the answer": lambda hints: sum(not hint.text for hint in hints),
        "naming the letter": lambda hints: sum("letter" in hint.leaks for hint in hints),
        "naming the answer": lambda hints: sum("option" in hint.leaks for hint in hints),
        "duplicates": lambda hints: sum(hint.duplicate for hint in hints),
        "words, median": lambda hints: median([hint.words for hint in hints if hint.text] or [0]),
    }
)
"""What is counted, by the names that a reader sees."""


def summarize(hints: Sequence[BankedHint]) -> dict[str, dict[str, float]]:
    """`COUNTS` of each level that occurs ("level 0", ...), weakest first, and of "all" where there are several."""
    of_level: dict[str, Sequence[BankedHint]] = {
        f"level {level}": [hint for hint in hints if hint.level == level]
        for level in sorted({hint.level for hint in hints})
    }
    if len(of_level) > 1:
        of_level["all"] = hints
    return {level: {name: count(those) for name, count in COUNTS.items()} for level, those in of_level.items()}


def _usable(hints: Sequence[BankedHint]) -> list[BankedHint]:
    return [hint for hint in hints if hint.text and not hint.leaks]
