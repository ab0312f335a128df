"""Does a hint give the answer away, and what is left of it without the sentences that do."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from kepo.exploration.letters import names_letter
from kepo.types import option_letters

_LETTER = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+")
_SENTENCE = re.compile(r"(?:\d{1,2}[.)]\s+)?.+?(?:[.!?。！？]+[\"'”’»)\]}*_`]*(?=\s)|(?=\n)|\Z)\s*", re.DOTALL)

# Answers that any hint may contain as an ordinary word: they leak only where an answer is stated.
_EVERYDAY = frozenset({"yes", "no", "true", "false"})
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
      "142" nor in "42.5", but it is "42.0"). "yes", "no", "true" and "false" count only where an answer is stated.

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
    return letter, _without_letter(options[letters.index(letter)], letter)


def _without_letter(option: str, letter: str) -> str:
    """The option's text without the letter that some data sets write in front of it: "B) Drusen", "(B) Drusen"."""
    return re.sub(rf"^\s*\(?{letter}[).:]\s+", "", option)


def _contains(hint_text: str, text: str) -> bool:
    words = _words(text)
    if not words:
        return bool(text.strip()) and text.strip() in hint_text
    hint = _folded(hint_text)
    if len(words) == 1 and len(words[0]) == 1 and words[0].isascii() and words[0].isalpha():
        return names_letter(hint_text, words[0].upper(), ())
    if len(words) == 1 and words[0] in _EVERYDAY:
        return re.search(_STATED % words[0], hint, re.MULTILINE) is not None
    return re.search(_pattern(words), hint) is not None


def _pattern(words: Sequence[str]) -> str:
    """Matches the words in order with any punctuation, or none, between them ("X-ray", "x ray", "xray")."""
    pattern = re.escape(words[0])
    for before, word in pairwise(words):
        between = r"[\W_]+" if before[-1].isdigit() and word[0].isdigit() else r"[\W_]*"
        pattern += between + re.escape(word)
    plural = r"(?:e?s)?" if words[-1].isalpha() and len(words[-1]) > 2 else ""
    return rf"(?<!\w)(?<!\d[.,]){pattern}{plural}(?!\w)(?![.,]\d)"


def _words(text: str) -> list[str]:
    return _WORD.findall(_folded(text))


def _folded(text: str) -> str:
    """One case, no accents, no apostrophes, numbers written one way (1,200 and 1200.0 are 1200)."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in decomposed if not unicodedata.combining(c) and c not in "'’")
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    return re.sub(r"(\d)\.0+(?!\d)", r"\1", plain)
