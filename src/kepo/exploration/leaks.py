"""Does a hint give the answer away, and what is left of it without the sentences that do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from kepo.exploration.letters import names_letter
from kepo.rewards.cue_words import CUES
from kepo.rewards.languages import (
    UNSPACED,
    arabic_word,
    is_arabic,
    is_one_sign,
    plain_marks,
    translated,
    word_end,
    word_start,
)
from kepo.rewards.text import without_accents
from kepo.types import option_letters

_LETTER = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_WORD = re.compile(rf"\d+(?:[.,]\d+)+|[{UNSPACED}]+|[^\W_{UNSPACED}]+")
_SENTENCE = re.compile(
    r"(?:\d{1,2}[.)]\s+)?.+?(?:[.!?]+[\"'”’»)\]}*_`]*(?=\s)|[。！？｡؟]+[\"'”’»」』）)\]}*_`]*|(?=\n)|\Z)\s*", re.DOTALL
)

# Answers that any hint may contain as an ordinary word: they leak only where an answer is stated.
_EVERYDAY = frozenset({"yes", "no", "true", "false"}).union(
    without_accents(plain_marks(word)).casefold() for cues in CUES.values() for word in cues["yes_no"]
)
_STATED = (
    r"(?:^|[.!?:;=]\s*|\b(?:answer|solution|result|verdict)\b[^.\n]{0,30}?\b(?:is|be)\b"
    r"|\b(?:choose|pick|select|say|so|thus|therefore|hence)\b)"
    r"[\s\"'“‘(*_`]*%s(?=[\"'”’)*_`]*\s*(?:$|[.,;:!?)]|\b(?:because|since|as)\b))"
)


def audit(hint_text: str, answer: str, options: Sequence[str] = ()) -> tuple[str, ...]:
    """How `hint_text` gives the answer away.

    - "letter": it names the correct option's letter where an answer stands ("the answer is B", "**B**", "B)"), names
      the option by position ("the second option"), or rules out the letters of all others.
    - "option": it contains the correct option's text, or the answer itself where there are no options, as whole words;
      case, accents, punctuation and a plural do not matter. A number is found as a whole number ("42" is neither in
      "142" nor in "42.5", but it is "42.0"). "yes", "no", "true", "false" and their like in the languages of
      `kepo.rewards.cue_words` count only where an answer is stated, and so does a single Chinese character.

    A mention counts also where it is denied: a hint that says what the answer is not still puts it into the prompt.

    Args:
        hint_text: The hint as the student would see it.
        answer: Ground truth: the option's letter, or free text.
        options: Option texts in order; empty for an open question.

    Returns:
        The leaks found, out of "letter" and "option", in this order; empty when there are none.
    """
    letter, text = _truth(answer, options)
    found = []
    if letter and names_letter(hint_text, letter, option_letters(options)):
        found.append("letter")
    if text and _contains(hint_text, text):
        found.append("option")
    return tuple(found)


def strip_leaks(hint_text: str, answer: str, options: Sequence[str] = ()) -> str:
    """The hint without the sentences (or lines) that `audit` finds a leak in; "" when nothing safe is left.

    A leak that only several sentences make together cannot be cut out, so that nothing of such a hint is left.
    """
    kept = [part for part in _SENTENCE.findall(hint_text) if not audit(part, answer, options)]
    rest = "".join(kept).strip()
    usable = any(character.isalpha() for character in rest) and not audit(rest, answer, options)
    return rest if usable else ""


def _truth(answer: str, options: Sequence[str]) -> tuple[str, str]:
    """The correct letter ("" where there is none) and the correct text ("" where it is not known)."""
    letters = option_letters(options)
    single = _LETTER.fullmatch(answer)
    if not options:
        # A lone letter without options: the options stand in the question, and only the letter can be looked for.
        return (single[1].upper(), "") if single else ("", answer)
    if single and single[1].upper() in letters:
        letter = single[1].upper()
    else:
        same = [le for le, option in zip(letters, options, strict=False) if _words(option) == _words(answer)]
        if not same:
            return "", answer
        letter = same[0]
    # Some data sets write the letter in front of the text: "B) Drusen", "(B) Drusen".
    return letter, re.sub(rf"^\s*\(?{letter}[).:]\s+", "", options[letters.index(letter)])


def _contains(hint_text: str, text: str) -> bool:
    words = _words(text)
    if not words:
        return bool(text.strip()) and text.strip() in hint_text
    hint = _folded(hint_text)
    if len(words) == 1 and len(words[0]) == 1 and words[0].isascii() and words[0].isalpha():
        return names_letter(hint_text, words[0].upper(), ())
    if len(words) == 1 and (words[0] in _EVERYDAY or is_one_sign(words[0])):
        return _states(hint_text, text, words[0])
    return re.search(_pattern(words), hint) is not None


def _states(hint_text: str, text: str, word: str) -> bool:
    """Whether the hint gives `word` (`text`, folded) as the answer."""
    plain = plain_marks(hint_text)
    english = translated(plain, (plain_marks(text).strip(),), audit=True)
    hint = _folded(plain if english is None else english)
    copula = english is not None and re.search(rf"\bis\s+{re.escape(word)}(?=\s*(?:$|[.,;:!?)]))", hint, re.MULTILINE)
    return bool(copula) or re.search(_STATED % re.escape(word), hint, re.MULTILINE) is not None


def _pattern(words: Sequence[str]) -> str:
    """Matches the words in order with any punctuation, or none, between them ("X-ray", "x ray", "xray")."""
    pattern = _one(words[0])
    for before, word in pairwise(words):
        between = r"[\W_]+" if before[-1].isdigit() and word[0].isdigit() else r"[\W_]*"
        pattern += between + _one(word)
    plural = r"(?:e?s|(?<=e)n)?" if words[-1].isalpha() and len(words[-1]) > 2 and word_end(words[-1]) else ""
    return rf"{word_start(words[0])}(?<!\d[.,]){pattern}{plural}{word_end(words[-1])}"


def _one(word: str) -> str:
    return arabic_word(word) if is_arabic(word) else re.escape(word)


def _words(text: str) -> list[str]:
    return _WORD.findall(_folded(text))


def _folded(text: str) -> str:
    """One case, no accents, no apostrophes, numbers written one way (1,200 and 1200.0 are 1200)."""
    plain = re.sub("['’]", "", without_accents(plain_marks(text)).casefold())
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    return re.sub(r"(\d)\.0+(?!\d)", r"\1", plain)
