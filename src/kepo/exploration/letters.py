"""Which option letters a hint names as an answer: "the answer is B", "option (b)", "**B**", "B)", "choose B".

A capital alone proves nothing in medical text (vitamin B, hepatitis C, Kerley B lines, E. coli, "A lesion"), so a
letter counts only in a place where an answer stands. Where both readings are possible the letter counts: a good hint
lost is cheaper than an answer shown. Hints in other languages are read with their cue words in English, see
`kepo.rewards.languages`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kepo.rewards.cue_words import ORDINALS
from kepo.rewards.languages import plain_marks, translated
from kepo.rewards.text import single_letters

# A letter is a word of its own: not "B-scan", not the first half of "e.g.".
_EDGE = r"(?![\w-]|\.\w)"
# Every repetition is bounded, so that a long text that went astray costs milliseconds and not minutes.
_OPEN = r"[\s\"'“‘«(\[{*_`$]{0,6}"
_CLOSE = r"[\"'”’»)\]}*_`$]{0,5}"
# What follows a letter that ends its phrase. None of it can follow the article "a" or the pronoun "I".
_END = (
    rf"{_EDGE}(?={_CLOSE}(?:\s*(?:\Z|\n|[,;:!?=→]|\.(?!\w)(?!\s+[a-z])|[-–—]\s)"
    r"|\s+(?:because|since|as|and|or|nor|which|but|is|than|vs|versus)\b))"
)
# After "option" a capital A is the letter; "a", "i" and "I" need the end of the phrase.
_LOOSE = rf"(?<![\w-])(?:[AB-HJ-Zb-hj-z]{_EDGE}|[aIi]{_END})"
_STRICT = rf"(?<![\w-])(?:[B-HJ-Zb-hj-z]{_EDGE}|[AaIi]{_END})"
_CHOSEN = rf"(?<![\w-])(?:[B-HJ-Z]{_EDGE}|[AIa-z]{_END})"
_PHRASE_END = rf"(?<![\w-])[A-Z]{_END}"
_PHRASE_END_ANY_CASE = rf"(?<![\w-])[A-Za-z]{_END}"
_SEPARATOR = (
    r"(?:[,;/&]|\b(?:or|and|nor|not|vs|versus|over|against|than|rather|from|instead|of|y|e|o|und|oder|et|ou)\b\.?)"
)
_MORE = (
    rf"(?:{_CLOSE}\s?{_SEPARATOR}(?:\s?{_SEPARATOR}){{0,2}}(?i:\s?options?)?"
    rf"{_OPEN}(?<![\w-])[A-Zb-z]{_EDGE}){{0,9}}"
)

_CHOOSE = r"choos\w+|chose|pick\w*|select\w*|mark|tick|circle|go(?:es|ing)? (?:for|with)|opt(?:s|ed|ing)? for|settle on"
_RULE_OUT = r"descart\w+|[eé]limin\w+|exclu\w+|[eé]cart\w+|reject|discard|dismiss|cross out|(?:rules?|ruled|ruling) out"
_AND = r"(?:[,、&/とや와과]|\b(?:and|or|und|oder|sowie)\b)"
_RULED_OUT = r"(?:除外|排除|제외|auszuschlie|ausschlie|ausgeschlossen|scheiden aus|entfallen|können ausgeschlossen)"
_STATE = (
    r"points? (?:to|at|towards?)|pointing (?:to|at|towards?)|indicat\w+|suggest\w*|support\w*|favou?r\w*|match\w*"
    r"|leav\w+|leads? to|conclude\w*|either|neither|between|both|not|is|be|are|it's|that's|so|thus|hence|therefore"
    r"|namely|consistent with|corresponds? to|compar\w+|contrast|distinguish|weigh"
)
_ANSWER_IS = (
    r"(?:answer|solution|ground truth|response)\b"
    r"(?:\s+(?:here|then|therefore|clearly|probably|must|should|would|will|can|could|only|thus|choice|key)){0,4}\s*"
)
_ADVERBS = r"(?:\s*\b(?:clearly|therefore|definitely|most|likely|probably|indeed|thus|simply|not|the)\b){0,4}"
_OPTION = r"\b(?:options?|choices?|letters?|alternatives?)\b"
_VERDICT = (
    r"(?:is|are|was|would|must|should|can|could|cannot|isn't|doesn't|seems?|looks?|fits?|match(?:es)?|remains?|stands?"
    r"|wins|describes?|shows?|has)\b"
)
_CLAUSE = r"(?:\A|[.!?;:,\n(—–]\s*|\b(?i:that|so|hence|thus|therefore|only|because|why|but|then|makes?|making)\s+)"

_PATTERNS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(source)
    for source in (
        # The letter is all there is.
        r"\A[\W_]*([A-Za-z])[\W_]*\Z",
        # "option B", "choices are B and C", "the letter (b)".
        rf"(?i:{_OPTION}(?:\s+(?:is|are|was|be|of|labell?ed|marked|called|named)\b)?)\s*[:=]?{_OPEN}({_LOOSE}{_MORE})",
        # "the answer should be B", "answer: b", "answer B.".
        rf"(?i:\b{_ANSWER_IS}\b(?:is|be|was|are|being)\b{_ADVERBS}\s*[:=]?){_OPEN}({_LOOSE}{_MORE})",
        rf"(?i:\b{_ANSWER_IS}(?:[:=→⇒]|->|=>)){_OPEN}({_STRICT}{_MORE})",
        rf"(?i:\banswer\s+){_OPEN}({_PHRASE_END}{_MORE})",
        # "choose b", "rule out A, C and D"; "this points to B.", "it's B because ...", "between B and C".
        rf"(?i:\b(?:{_CHOOSE})\b[:,]?\s*){_OPEN}({_CHOSEN}{_MORE})",
        rf"(?i:\b(?:{_RULE_OUT})\b[:,]?\s*){_OPEN}({_PHRASE_END_ANY_CASE}{_MORE})",
        rf"(?i:\b(?:{_STATE})\b[:,]?\s*(?:that\s+)?){_OPEN}({_PHRASE_END}{_MORE})",
        # "B fits best", "so A and C are wrong".
        rf"{_CLAUSE}{_OPEN}([A-HJ-Z]{_EDGE}{_MORE}){_CLOSE}\s+(?i:{_VERDICT})",
        rf"{_CLAUSE}{_OPEN}([a-hj-z]{_EDGE}){_CLOSE}\s+(?i:(?:is|seems|looks|must be|would be)\s+(?:the\s+)?"
        r"(?:most\s+)?(?:correct|right|best|true|answer|likely)\b)",
        # "B is correct" anywhere; "A, C and D are ruled out", with the verb behind.
        rf"(?<![\w-])([A-HJ-Z]){_EDGE}{_CLOSE}\s+is\s+(?i:(?:the\s+)?(?:most\s+)?(?:correct|right)\b)",
        rf"(?<![A-Za-z-])([A-Z](?:(?:\s*{_AND}){{1,2}}\s*[A-Z](?![A-Za-z])){{0,9}})\s*[はを는은를을]?\s*{_RULED_OUT}",
        # "B", "B.", "B: drusen", "B, because ..." at the start of a clause; ", B." at the end of a sentence.
        rf"(?:\A|\n|[.!?:;]\s+|[—–→]\s*|->\s*|=>\s*|\s-\s+){_OPEN}((?<![\w-])[A-HJ-Z]{_END}{_MORE})",
        rf"(?<!\W[A-Z]),\s+{_OPEN}([A-HJ-Z]){_EDGE}{_CLOSE}\s*(?:\Z|\n|[.!](?!\w)(?!\s+[a-z]))",
        # "**B**", "`b`", '"B"', "\boxed{B}", "<answer>B".
        r"(?<!\w)(\*{1,3}|_{1,2}|`+)[(\[]?(?P<letters>[A-Zb-hj-z])[)\]]?[.:,]?\1(?!\w)",
        r"(?<!\w)[\"'“‘«]([A-Z])[.,]?[\"'”’»](?!\w)",
        r"\\boxed\s*\{\s*(?:\\\w+\s*\{\s*)?\(?([A-Za-z])(?!\w)",
        r"(?i:<answer\s*>)\s*[(\[]?([A-Za-z])(?!\w)",
        # "(b)", "[B]", "B)"; not "(vitamin B)", see `_loosened`, and not "nodule(s)".
        r"(?<![\w\\])[(\[]\s*([A-Za-z])\s*[)\]]",
        r"(?<![\w(\[-])([A-Za-z])\)",
    )
)

_ORDINALS = (
    ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"],
    ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th"],
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
)
_POSITION = re.compile(
    rf"\b({'|'.join(_ORDINALS[0] + _ORDINALS[1])}|last)\s+(?:listed\s+|given\s+)?(?:option|choice|alternative)\b"
    rf"|\b(?:option|choice|alternative)s?\s*(?:number\s*|no\.?\s*|#\s*)?({'|'.join(_ORDINALS[2])}|\d{{1,2}})\b",
    re.IGNORECASE,
)
_FOREIGN_POSITION = re.compile(
    "|".join(rf"{before}(?:{'|'.join(f'({word})' for word in words)}){after}" for before, words, after in ORDINALS),
    re.IGNORECASE,
)


def names_letter(text: str, letter: str, letters: Sequence[str]) -> bool:
    """Whether `text` names the option `letter` (upper case) as an answer, or leaves it over by naming all others.

    `letters` are those of all options; empty when they are not known.
    """
    plain = plain_marks(text)
    english = translated(plain, letters=len(letters) or 26, audit=True)
    loosened = _loosened(plain if english is None else english)
    named = _named_by_position(loosened, letters) | _named_by_foreign_position(plain, letters)
    for pattern in _PATTERNS:
        for match in pattern.finditer(loosened):
            named |= single_letters(match["letters"] if "letters" in pattern.groupindex else match[1])
    others = set(letters) - {letter}
    return letter in named or (bool(others) and others <= named)


def _loosened(text: str) -> str:
    """The text as the patterns expect it.

    Blanks stand inside parentheses around more than a letter, so that "(vitamin B)" does not end in the mark "B)". Runs
    of blanks or of one sign are shortened, which keeps matching fast on degenerate text.
    """
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text))
    text = re.sub(r"([^\w\s])\1{3,}", r"\1\1\1", text)
    return re.sub(r"\(([^()]{2,})\)", r"( \1 )", text)


def _named_by_position(text: str, letters: Sequence[str]) -> set[str]:
    named: set[str] = set()
    for match in _POSITION.finditer(text):
        word = (match[1] or match[2]).lower()
        if word == "last":
            place = len(letters) - 1
        elif word.isdigit():
            place = int(word) - 1
        else:
            place = next(row.index(word) for row in _ORDINALS if word in row)
        if 0 <= place < len(letters):
            named.add(letters[place])
    return named


def _named_by_foreign_position(text: str, letters: Sequence[str]) -> set[str]:
    places = {(match.lastindex or 1) - 1 for match in _FOREIGN_POSITION.finditer(text)}
    return {letters[place % 5] for place in places if place % 5 < len(letters)}
