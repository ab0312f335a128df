"""Which option an answer means: "B", "(b)", "Option B", "the answer is B", "B) Drusen", "drusen." and the like.

Two readings are taken, by letter and by text, and they must agree. A reading that names several different options is no
answer: a policy that hedges must not be paid for the half that is correct.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from kepo.errors import DataError
from kepo.rewards.text import folded, is_denied, phrase_pattern, single_letters
from kepo.types import option_letters

# Stands for an option's text that was found and taken out, so that letters inside it ("Hepatitis C") are not read.
_TEXT = "\x00"

_LETTER_ALONE = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?[\s.:,;!)]*")
_EMPHASIS = re.compile(r"(\*{1,3}|__|`)[(\[]?\s*([A-Za-z])\s*[)\]]?[.:]?\1")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_MARKUP = re.compile(r"\*+|__|`|\$")


def match_option(answer_text: str, options: Sequence[str]) -> str | None:
    """The letter of the option that `answer_text` means.

    Args:
        answer_text: The inside of an answer tag, or a line that states the answer.
        options: Option texts in order, 2..26 of them.

    Returns:
        The letter, or None when no option is named, or several different ones.

    Raises:
        DataError: there are fewer than 2 or more than 26 options.
    """
    if not 2 <= len(options) <= 26:
        raise DataError(f"a multiple-choice question has 2 to 26 options, not {len(options)}: {list(options)!r}")
    letters = option_letters(options)
    text = _plain(answer_text)
    alone = _LETTER_ALONE.fullmatch(text)
    if alone and alone[1].upper() in letters:
        return alone[1].upper()
    by_text = _letters_of_texts(letters, options)
    whole = by_text.get(_folded(text))
    if whole:
        return _only(whole)
    masked, named_by_text = _take_out_texts(text, by_text)
    named_by_letter = _named_letters(masked, len(letters))
    if not named_by_letter:
        return _only(named_by_text)
    letter = _only(named_by_letter)
    return letter if letter in named_by_text or not named_by_text else None


def _only(letters: set[str]) -> str | None:
    return next(iter(letters)) if len(letters) == 1 else None


def _plain(text: str) -> str:
    """Without markup; a letter that the markup made stand out is put in parentheses."""
    text = unicodedata.normalize("NFKC", text).replace(_TEXT, "")
    text = _LATEX_TEXT.sub(r"\1", text)
    text = _BOXED.sub(lambda m: f"({m[1].strip()})" if len(m[1].strip()) == 1 else m[1], text)
    text = _EMPHASIS.sub(r"(\2)", text)
    text = _MARKUP.sub("", text)
    return re.sub(r"[^\S\n]+", " ", text).strip(" \n\"'“”‘’")


def _folded(text: str) -> str:
    return folded(text).rstrip(".,;:! ")


def _letters_of_texts(letters: Sequence[str], options: Sequence[str]) -> dict[str, set[str]]:
    """Option text (folded) -> its letters; more than one where two options read the same."""
    found: dict[str, set[str]] = defaultdict(set)
    for letter, option in zip(letters, options, strict=True):
        found[_folded(_plain(option))].add(letter)
    found.pop("", None)
    return dict(found)


def _take_out_texts(text: str, by_text: dict[str, set[str]]) -> tuple[str, set[str]]:
    """Replaces every option text in `text`, longest first; also gives the letters of those that are not denied."""
    named: set[str] = set()
    for option in sorted(by_text, key=len, reverse=True):
        if len(option) == 1 and option.isalpha():
            continue
        pattern = phrase_pattern([option])
        if any(not is_denied(text, match.start()) for match in pattern.finditer(text)):
            named |= by_text[option]
        text = pattern.sub(_TEXT, text)
    return text, named


@lru_cache(maxsize=32)
def _letter_patterns(count: int) -> tuple[re.Pattern[str], ...]:
    """The ways in which one of the first `count` letters is named, several of them ("A or B") in one match.

    A letter in front of a word is no letter of an option ("B cells", the article "a") unless brackets, a delimiter or a
    word like "option" say so.
    """
    last = chr(ord("A") + count - 1)
    rest = f"B-{last}b-{last.lower()}"
    ends = (
        r"(?=[^\S\n]*(?:\n|$|[.](?!\w)|[,;:!?)\]]|[-–—]\s)"
        r"|[^\S\n]+(?i:because|since|as|and|or|which|but|not|for|due|given|based|rather|instead)\b)"
    )
    tight = rf"(?:[aA]{ends}|[{rest}](?:{ends}|(?=\s*{_TEXT})))"
    loose = rf"(?:a{ends}|[A{rest}](?![\w-]))"
    more = (
        rf"(?:[)\]]?\s*(?:[,;/&]|\b(?i:or|and)\b)\s*[(\[]?(?:[A{rest}]|a(?=\W*$))(?![\w-])"
        rf"|[)\]]\s*[A{rest}](?=[)\]]))*"
    )
    opening = r"[\s\"'“(\[]*"
    verdict = r"(?:the\s+)?(?:most\s+)?(?:correct|right|true|best|answer|likely)\b"
    sources = (
        rf"^\W*({tight}{more})",
        rf"(?:\b(?i:answer|is|be|choose|chose|pick|select|so|thus|therefore)\b|[:=]){opening}({tight}{more})",
        rf"\b(?i:option|choice|letter)s?\b\s*:?{opening}({loose}{more})",
        rf"(?<!\w)[(\[]\s*([Aa{rest}]{more})\s*[)\]]",
        rf"(?<![\w-])([A-{last}])\s+(?i:is|seems|looks|would be)\s+(?i:{verdict})",
    )
    return tuple(re.compile(source, re.MULTILINE) for source in sources)


def _named_letters(text: str, count: int) -> set[str]:
    """The letters that `text` names, those it denies left out."""
    named: set[str] = set()
    for pattern in _letter_patterns(count):
        for match in pattern.finditer(text):
            if not is_denied(text, match.start()):
                named |= single_letters(match[1])
    return named
