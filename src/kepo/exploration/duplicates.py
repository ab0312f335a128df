"""Which of a question's hints say the same, and how long a hint is. By rule: a paraphrase is no duplicate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

DUPLICATE_RATIO = 0.9
"""Share of words in common, in order (`difflib`'s ratio), from which two hints say the same."""

_COMPARED = 400  # words; a teacher that repeats itself without end must cost no time
_WORD = re.compile(r"\w+")
# Scripts without spaces between words are compared letter by letter.
_TOKEN = re.compile(r"[a-z0-9_]+|\w")


def count_words(text: str) -> int:
    """Words of a text; a run of letters without space between them (Chinese, Japanese) counts as one."""
    return len(_WORD.findall(text))


def is_duplicate(text: str, others: Sequence[str]) -> bool:
    """Whether `text` says the same as one of `others`: equal but for case, spaces and punctuation, or nearly equal
    (`DUPLICATE_RATIO`). An empty text is no duplicate."""
    words = _tokens(text)
    return bool(words) and any(_alike(words, _tokens(other)) for other in others)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.casefold())[:_COMPARED]


def _alike(one: list[str], other: list[str]) -> bool:
    if one == other:
        return True
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    # The two bounds are cheap, the ratio itself is not.
    ratios = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
    return all(ratio() >= DUPLICATE_RATIO for ratio in ratios)
