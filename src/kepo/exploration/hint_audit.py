"""The audit of hints: which language they are in, and which of a question's hints say the same.

Leaks are found by `kepo.exploration.leaks`. All of it is by rule or by letter statistics: it finds what is plain and
misses what is subtle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import Any

MIN_WORDS = 4
"""Words below which no language is told: names and fragments look like any language."""

MIN_LETTERS_OUTSIDE_ASCII = 8
"""... or so many letters outside ASCII, for scripts that put no spaces between words."""

MIN_PROBABILITY = 0.7
"""Normalized probability from which a language counts as clear."""

DUPLICATE_RATIO = 0.9
"""Share of words in common, in order (`difflib`'s ratio), from which two hints say the same."""

_COMPARED = 400  # words; a teacher that repeats itself without end must cost no time
_WORD = re.compile(r"\w+")
# Scripts without spaces between words are compared letter by letter.
_TOKEN = re.compile(r"[a-z0-9_]+|\w")


def count_words(text: str) -> int:
    """Words of a text; a run of letters without space between them (Chinese, Japanese) counts as one."""
    return len(_WORD.findall(text))


def language_of(text: str) -> str:
    """The ISO 639 code of a text's language ("en"), or "" where it is not clear.

    Clear means: at least `MIN_WORDS` words or `MIN_LETTERS_OUTSIDE_ASCII` letters outside ASCII, and a normalized
    probability of at least `MIN_PROBABILITY` (py3langid). Lists of Latin terms, formulas and short texts are not.
    """
    outside = sum(character.isalpha() and not character.isascii() for character in text)
    if count_words(text) < MIN_WORDS and outside < MIN_LETTERS_OUTSIDE_ASCII:
        return ""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= MIN_PROBABILITY else ""


def in_another_language(hint: str, question: str) -> bool:
    """Whether a hint is clearly in another language than its question; False where one of the two is not clear.

    Args:
        hint: Language of the hint, see `language_of`.
        question: Language of the question.
    """
    return bool(hint and question) and hint != question


def is_duplicate(text: str, others: Sequence[str]) -> bool:
    """Whether `text` says the same as one of `others`: equal but for case, spaces and punctuation, or nearly equal
    (`DUPLICATE_RATIO`). An empty text is no duplicate."""
    words = _normalized(text)
    return bool(words) and any(_alike(words, _normalized(other)) for other in others)


def _normalized(text: str) -> list[str]:
    return _TOKEN.findall(text.casefold())[:_COMPARED]


def _alike(one: list[str], other: list[str]) -> bool:
    if one == other:
        return True
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    # The two bounds are cheap, the ratio itself is not.
    return (
        matcher.real_quick_ratio() >= DUPLICATE_RATIO
        and matcher.quick_ratio() >= DUPLICATE_RATIO
        and matcher.ratio() >= DUPLICATE_RATIO
    )


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
