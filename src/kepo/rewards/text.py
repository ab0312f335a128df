"""How texts are compared, here, in the leak audit and in evaluation: one folding, one way to find an option's text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0640\u064b-\u065f\u0670]")
_SINGLE_LETTER = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
_NEGATED = re.compile(
    r"(?:\b(?:not|no|nor|never|without|unlike|except|excludes?|excluding|rather than|instead of|rules? out|ruled out)"
    r"|n't)\s+(?:an?\s+|the\s+)?$",
    re.IGNORECASE,
)


def folded(text: str) -> str:
    """`text` in one case, with single blanks."""
    return " ".join(text.casefold().split())


def without_accents(text: str) -> str:
    """`text` without the accents of Latin, Greek and Cyrillic letters and without Arabic and Hebrew vowel signs.

    Marks that make another letter or syllable stay, such as those of Japanese and Indian scripts.
    """
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text)))


def phrase_pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    """Finds any of `phrases` (the longest where several fit) as whole words, whatever their case and blanks."""
    longest_first = sorted(phrases, key=len, reverse=True)
    texts = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in longest_first) or r"(?!)"
    # Not inside a longer word or number: "normal" in "abnormal", "5" in "2.5", "small" in "non-small".
    return re.compile(rf"(?<![\w-])(?<!\d[.,])(?:{texts})(?![\w-])(?![.,]\d)", re.IGNORECASE)


def is_denied(text: str, start: int) -> bool:
    """Whether "not", "rather than" or the like stands right before `start`."""
    return _NEGATED.search(text[max(0, start - 40) : start]) is not None


def single_letters(text: str) -> set[str]:
    """The letters that stand alone in `text`, in upper case."""
    return {letter.upper() for letter in _SINGLE_LETTER.findall(text)}
