"""Which options of a question may change places: those that refer to others must not."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from kepo.types import Question, option_letters

# "All of the above" and the like, in the languages whose answers are read (docs/evaluation.md).
_ABOVE = re.compile(
    r".*\b(?:of (?:the )?|the |mentioned |listed |given |stated |named )above\b"
    r"|.*\babove[- ](?:mentioned|options?|answers?|choices)\b.*"
    r"|.*\b(?:preceding|previous|aforementioned) (?:options?|answers?|choices|ones)\b.*"
    r"|.*\b(?:anteriore?s|arriba|oben|obigen|obengenannten|vorigen|ci-dessus|précédente?s|acima)\b.*"
    r"|.*(?:以上|上述|前述|上記|위의|위 (?:모두|모든|어느)|ما سبق|مما سبق|المذكور).*",
    re.IGNORECASE,
)
# "Both", "None of these": they mean the others wherever these stand, but are read last.
_OTHERS = re.compile(
    r"(?:all|none|any|both|either|neither)(?: (?:of|are|is|apply)\b.*)?"
    r"|(?:todas|todos|ninguna|ninguno|nenhuma|nenhum|ambas|ambos)(?: .*)?|(?:alle|keine[rs]?|beide)(?: .*)?"
    r"|(?:toutes|tous|aucune?|les deux)(?: .*)?"
    r"|(?:都|均|皆|全部|全都)(?:是|不是|非|对|對|不对|正确|正確|错误).*"
    r"|すべて.*|全て.*|いずれ.*|どれも.*|どれでもない|該当なし|모두.*|해당 ?없음|(?:جميع|كل|لا شيء|كلاهما).*",
    re.IGNORECASE,
)
_AND = r"(?:[,&+/;、，和与及或とや와과و]|\bals auch\b|\b(?:and|or|nor|und|oder|et|ou|y|o|e)\b)"
_LETTER = r"\(?(?<![A-Za-z])([A-Z])(?![A-Za-z])\)?"
_KIND = (
    r"(?:(?:both|either|neither|only|all of|none of|options?|answers?|choices?|statements?|same as|sowohl"
    r"|beide|les deux|ambas"
    r"|ambos|solo|só|nur|seulement)\b[\s:]*|(?:选项|答案|只有|仅|選択肢)\s*)"
)
_RIGHT = r"\W*(?:(?:is|are)\b\s*)?(?:correct|right|true|only|都对|都是|正确)?\W*"
_SEVERAL_LETTERS = re.compile(rf"{_KIND}*{_LETTER}(?:(?:\s*{_AND}){{1,3}}\s*{_KIND}*{_LETTER})+{_RIGHT}", re.IGNORECASE)
_ONE_LETTER = re.compile(rf"{_KIND}+{_LETTER}{_RIGHT}", re.IGNORECASE)
# The options by their places.
_PLACE = r"(?:first|second|third|fourth|last|1st|2nd|3rd|4th)"
_PLACES = re.compile(
    rf"(?:both |only |neither )?(?:the )?{_PLACE}"
    rf"(?: (?:and|or|nor) (?:the )?{_PLACE}| (?:two|three))(?: (?:options?|ones?))?"
    r"|(?:both |only |neither )?(?:options?|choices?|answers?) \d{1,2}(?:(?:,|,? (?:and|or|nor)) \d{1,2})*",
    re.IGNORECASE,
)
# "أ and ب": letters of Arabic lists.
_ARABIC_LETTERS = re.compile(r"(?:كلا |كل من )?[أابجد](?:\s*(?:،|و|أو)\s*[أابجد])+")


def movable_options(options: Sequence[str]) -> list[int] | None:
    """Indices of the options that may change places with each other; None where none may.

    An option that names others by their letters ("Both A and B") would mean something else after any change. One that
    means those above it ("None of the above") stays where it is: last, or nothing may move. "Both" and "None of these"
    stay if they are last.
    """
    texts = [text.strip().rstrip(".。!").strip() for text in options]
    letters = set(option_letters(texts))
    if any(_names_letters(text, letters) for text in texts):
        return None
    free = len(texts)
    while free and (_ABOVE.fullmatch(texts[free - 1]) or _OTHERS.fullmatch(texts[free - 1])):
        free -= 1
    if free < 2 or any(_ABOVE.fullmatch(text) for text in texts[:free]):
        return None
    return list(range(free))


def _names_letters(text: str, letters: set[str]) -> bool:
    if text.upper() in letters:
        return False
    if _PLACES.fullmatch(text) or _ARABIC_LETTERS.fullmatch(text):
        return True
    found = _SEVERAL_LETTERS.fullmatch(text) or _ONE_LETTER.fullmatch(text)
    return found is not None and {letter.upper() for letter in found.groups() if letter} <= letters


def shuffled(question: Question, order: random.Random) -> Question | None:
    """`question` with its movable options in an order that is drawn; None where none may move."""
    movable = movable_options(question.options)
    if movable is None:
        return None
    places = movable.copy()
    order.shuffle(places)
    return reordered(question, places)


def reordered(question: Question, places: Sequence[int]) -> Question:
    """`question` with its options in the order `places`; those that it leaves out, which are the last, stay."""
    order = [*places, *range(len(places), len(question.options))]
    letters = option_letters(question.options)
    return replace(
        question,
        options=tuple(question.options[place] for place in order),
        answer=letters[order.index(letters.index(question.answer))],
    )
