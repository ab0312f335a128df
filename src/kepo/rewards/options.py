"""Which option an answer means: "B", "(b)", "Option B", "the answer is B", "B) Drusen", "drusen." and the like.

Two readings are taken, by letter and by text, and they must agree. A reading that names several different options is no
answer: a policy that hedges must not be paid for the half that is correct.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache

from kepo.errors import DataError
from kepo.rewards.languages import is_unspaced, lone_capitals, plain_marks, translated
from kepo.rewards.text import folded, is_denied, phrase_pattern, single_letters, without_accents
from kepo.types import option_letters

# Stands for an option's text that was found and taken out, so that letters inside it ("Hepatitis C") are not read.
_TEXT = "\x00"

_LETTER_ALONE = re.compile(r"(?:[Ll][ae]\s+)?[(\[{]?\s*([A-Za-z])\s*[)\]}]?[\s.:,;!)]*")
_EMPHASIS = re.compile(r"(\*{1,3}|__|`)[(\[]?\s*([A-Za-z])\s*[)\]]?[.:]?\1")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}")
_JSON = re.compile(r"""\{[^{}]*?["'](?:final[_ ])?answer["']\s*:\s*["']?([^"'{},\n]+)["']?[^{}]*\}""", re.IGNORECASE)
_HTML = re.compile(r"</?(?:b|i|u|em|strong|sub|p|span)>", re.IGNORECASE)
_HTML_RAISED = re.compile(r"<sup>([^<]{0,20})</sup>", re.IGNORECASE)
_BOX_TOKENS = re.compile(r"<\|(?:begin|end)_of_box\|>")
_PAIRED = re.compile(r"(\*{1,3}|__|`)(?=[^\s*])([^\n]{1,300}?)(?<=\S)\1(?!\*)")
_MATH = re.compile(r"\$([^$\n]+)\$|\\\((.{1,300}?)\\\)")

# One way of writing for what is written in several ways; nothing here makes two different values equal.
_WRITTEN = tuple(
    (re.compile(pattern, re.IGNORECASE), to)
    for pattern, to in (
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2"),
        (r"\\leq?(?![a-z])|<=", "≤"),
        (r"\\geq?(?![a-z])|>=", "≥"),
        (r"\\lt(?![a-z])|\b(?:less|smaller|lower|fewer) than(?=\s*[-−]?[.\d])", "<"),
        (r"\\gt(?![a-z])|\b(?:more|greater|larger|higher) than(?=\s*[-−]?[.\d])", ">"),
        (r"\bat least(?=\s*[-−]?[.\d])", "≥"),
        (r"\bat most(?=\s*[-−]?[.\d])", "≤"),
        (r"(?:→|⇒|(?<![-=<>\w])[-=]{1,8}+>)", ":"),
        (r"[−‐‑]", "-"),
        (r"(?<=\d)\s*[-–]\s*(?=\d)", "-"),
        (r"(?<=[A-Za-z\d)])\s*\^\s*\{?(\d{0,2}[-+])\}?(?![\w({.])", r"\1"),  # the charge of an ion
        (r"(?<=\d)\s*°\s*(?=[CFK](?![a-z]))", "°"),
        (r"\b(?:minus|negative)\s+(?=[.\d])", "-"),
        (r"^([-+])\s+(?=[.\d])", r"\1"),
        (r"([<>≤≥±~≈^])\s+(?=[-.\d])", r"\1"),
        (r"(?<=[\w)])\s*\^\s*\{?([-+]?\d+)\}?", r"^\1"),
        (r"(?<=\d)\s*/\s*(?=\d)", "/"),
        (r"(?<![\w.])\.(?=\d)", "0."),
        (r"(?<=\d)\s*%|(?<=\d)\s+percent\b", "%"),
        (
            r"(?<![\w^])(?<!\d[.,])(\d++(?:[.,]\d++)*+)(?=(?:[mcknµμ]?m|[mcdµμ]?l|[mkµμ]?g|[kmg]?hz|m?s|min|h)(?![\w]))",
            r"\1 ",
        ),
    )
)
_SUPERSCRIPTS = re.compile("[⁺⁻⁰¹²³⁴-⁹]+")

# What may stand beside an option's text in a sentence that gives it as the answer. Any other word makes it something
# else: "CT angiogram" is no "CT", "less than 5" no "5", "glaucoma or cataract" no "glaucoma".
_BEFORE = re.compile(
    r"(?:^|[\n.:;,?!(\[\"'“”‘’=–—]|(?<!\S)-|\x00|(?:consistent|compatible) with"
    r"|\b(?:an?|the|is|are|was|were|be|it|this|that|answer"
    r"|option|choice|so|thus|therefore|hence|but|because|maybe|perhaps|possibly|probably|likely|clearly|definitely"
    r"|actually|shows?|suggests?|indicates?|choose|chose|pick|select|say"
    r"|ist|eine?|der|die|das|es|el|la|le|un|una|une|est|um|uma|é))\s*$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\s*(?:$|[\n.:;,?!)\]\"'“”‘’([–—\x00]|-\s|(?:is|are|was|were|because|since|as|which|but|not|rather|instead|due|given"
    r"|based|seems|appears)\b)",
    re.IGNORECASE,
)
_NUMBER_BEFORE = re.compile(r"(?:[-+*×·:/.,–]|\d\s*[-+*×·:/–]|\b(?:about|over|under))\s*$")
_NUMBER_AFTER = re.compile(r"(?:\s*[-–:/]\s*\d|['\"′″]|\s*:\s*\d)")
# "Perhaps" in languages that a single word does not show ("B, vielleicht C").
_MAYBE = (
    r"tal\s+vez|quiz[aá]s?|posiblemente|acaso|vielleicht|m[oö]glicherweise|eventuell|eher|oder|peut[-\s][eê]tre"
    r"|possiblement|[eé]ventuellement|talvez|possivelmente|porventura|forse|ou|o"
)
_CALL_BEFORE = re.compile(r"\w[(\[{]\s*$")
_DENIED_AFTER = re.compile(
    r"[)\]]?\s*(?:(?:is|are|was|were|can be|seems|looks)\s+"
    r"(?:not|n't|unlikely|ruled out|excluded|absent|wrong|incorrect\w*|false|nicht|falsch|pas|faux|fausse|errad[ao]"
    r"|equivocad[ao]|incorret[ao])\b|not\s+(?:correct|corret|cert|richtig|bonne|exact|juste)\w*)",
    re.IGNORECASE,
)


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
    by_text = _letters_of_texts(letters, options, _plain)
    for form in (_written, _plain, _unpadded):
        whole = _letters_of_texts(letters, options, form).get(_folded(form(answer_text)))
        if whole:
            return _only(whole)
    english = translated(text, tuple(by_text), len(letters))
    if english is None:
        return _only(_named(text, by_text, len(letters)))
    named = _named(english, by_text, len(letters))
    return None if _others(english, by_text, letters) - named else _only(named)


def stated_in_json(text: str) -> str | None:
    """The field `answer` of the last JSON record in `text`; None where there is none."""
    found = _JSON.findall(text)
    return found[-1].strip() if found else None


def _named(text: str, by_text: dict[str, set[str]], count: int) -> set[str]:
    """The letters of what `text` gives as its answer, by letter or by text; empty where the two do not agree."""
    masked, named_by_text, mentioned = _take_out_texts(text, by_text)
    named_by_letter = _named_letters(masked, count)
    if not named_by_letter:
        return named_by_text if mentioned == named_by_text else set()
    return named_by_letter if named_by_letter <= mentioned or not mentioned else set()


def _others(english: str, by_text: dict[str, set[str]], letters: Sequence[str]) -> set[str]:
    """The letters that stand alone in a translated text and are not denied: a hedge in words that are not known."""
    masked, _, _ = _take_out_texts(english, by_text)
    alone = [match for match in lone_capitals(masked) if not is_denied(masked, match.start())]
    return {match[0] for match in alone} & set(letters)


def read_the_same(text: str) -> str:
    """A form of an option's text that two options share where no answer can tell them apart; "" where it has none."""
    return _folded(_written(text))


def last_mentioned(text: str, options: Sequence[str]) -> set[str]:
    """The letters of the option whose text is mentioned last in `text` and not denied; empty where there is none.

    Options of one letter are not looked for, and a number with another sign, comparator or unit is another value.
    """
    letters = option_letters(options)
    by_text = _letters_of_texts(letters, options, _plain)
    text = _plain(text)
    text = translated(text, tuple(by_text), len(letters)) or text
    phrases = [option for option in by_text if not _is_letter(option)]
    last: set[str] = set()
    for match in phrase_pattern(phrases).finditer(text):
        if not is_denied(text, match.start()) and not _is_other_number(text, match.start(), match.end()):
            last = by_text[folded(match[0])]
    return last


def _only(letters: set[str]) -> str | None:
    return next(iter(letters)) if len(letters) == 1 else None


def _plain(text: str) -> str:
    """Without markup; a letter that the markup made stand out is put in parentheses."""
    text = _EMPHASIS.sub(r"(\2)", _written(text))
    text = _PAIRED.sub(r"\2", text)
    return text.strip(" \n\"'“”‘’")


def _unpadded(text: str) -> str:
    """Without what tells no two options apart: accents, and zeros at the end of a decimal number."""
    return re.sub(r"(\d)[.,]0+(?![\d.,])|([.]\d*?[1-9])0+(?![\d.,])", r"\1\2", without_accents(_plain(text)))


def _written(text: str) -> str:
    """Numbers, comparators and wrappers of an answer written in one way; emphasis stays ("T2*" is not "T2")."""
    text = _HTML.sub("", _HTML_RAISED.sub(r"^\1", html.unescape(text))).replace("\\%", "%")
    if stated := stated_in_json(text):
        text = stated
    text = _SUPERSCRIPTS.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]), text)
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = plain_marks(text).replace(_TEXT, "").replace("\u2044", "/")
    text = "\n".join(line for line in (" ".join(line.split()) for line in text.splitlines()) if line)
    text = _BOX_TOKENS.sub("", _LATEX_TEXT.sub(r"\1", text))
    text = _WRITTEN[0][0].sub(_WRITTEN[0][1], text)
    text = _BOXED.sub(lambda m: f"({m[1].strip()})" if len(m[1].strip()) == 1 else m[1], text)
    text = _MATH.sub(lambda m: m[1] or m[2], text).strip()
    for pattern, replacement in _WRITTEN[1:]:
        text = pattern.sub(replacement, text)
    return re.sub(r"[^\S\n]+", " ", text).strip(" \n\"'“”‘’")


def _folded(text: str) -> str:
    return folded(text).rstrip(".,;:! ")


def _letters_of_texts(
    letters: Sequence[str], options: Sequence[str], form: Callable[[str], str]
) -> dict[str, set[str]]:
    """Option text (in `form`, folded) -> its letters; more than one where two options read the same."""
    found: dict[str, set[str]] = defaultdict(set)
    for letter, option in zip(letters, options, strict=True):
        found[_folded(form(option))].add(letter)
    found.pop("", None)
    return dict(found)


def _take_out_texts(text: str, by_text: dict[str, set[str]]) -> tuple[str, set[str], set[str]]:
    """Replaces every option text in `text`, longest first.

    Also gives the letters of the texts that are given as the answer, and of all that are mentioned and not denied.
    """
    named: set[str] = set()
    mentioned: set[str] = set()
    for option in sorted(by_text, key=len, reverse=True):
        if _is_letter(option):
            continue
        pattern = phrase_pattern([option])
        for match in pattern.finditer(text):
            if is_denied(text, match.start()) or _DENIED_AFTER.match(text, match.end()):
                continue
            mentioned |= by_text[option]
            if _stands_alone(text, match.start(), match.end()):
                named |= by_text[option]
        text = pattern.sub(_TEXT, text)
    return text, named, mentioned


def _is_letter(option: str) -> bool:
    return len(option) == 1 and option.isalpha() and not is_unspaced(option)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether nothing beside text[start:end] makes it another value: no sign, comparator, unit or further word."""
    before = text[max(0, start - 40) : start]
    if not _BEFORE.search(before) or not _AFTER.match(text, end) or _CALL_BEFORE.search(before):
        return False
    if text[start].isdigit() and _NUMBER_BEFORE.search(before) and not re.search(r"(?:^|[A-Za-z]\s*)[.,:]\s*$", before):
        return False
    return not (text[end - 1].isdigit() and _NUMBER_AFTER.match(text, end))


def _is_other_number(text: str, start: int, end: int) -> bool:
    """Whether a sign, a comparator, a superscript or a range beside the number text[start:end] makes it another one."""
    before, after = text[max(0, start - 8) : start], text[end : end + 8]
    starts = text[start].isdigit() and re.search(r"(?:[<>≤≥±~≈^]|[-+*×·/])$|\b(?:about|over|under)\s+$", before)
    return bool(starts) or (text[end - 1].isdigit() and re.match(r"\^|\s*[-–/]\s*\d|[%′″]", after) is not None)


@lru_cache(maxsize=32)
def _letter_patterns(count: int) -> tuple[tuple[re.Pattern[str], ...], re.Pattern[str]]:
    """The ways in which one of the first `count` letters is named, several of them ("A or B") in one match.

    The last pattern finds a second letter beside a named one ("B, maybe C"). It makes a hedge and names nothing.

    A letter in front of a word is no letter of an option ("B cells", the article "a") unless brackets, a delimiter or a
    word like "option" say so.
    """
    last = chr(ord("A") + count - 1)
    rest = f"B-{last}b-{last.lower()}"
    ends = (
        r"(?=[\"'”’]?[^\S\n]*(?:\n|$|[.](?!\w)|[,;:!?)\]]|[-–—]\s)"
        r"|[^\S\n]+(?i:because|since|as|and|or|which|but|not|for|due|given|based|rather|instead)\b"
        r"|[^\S\n]+\((?i:not|because|since)\b)"
    )
    tight = rf"(?:[aA]{ends}|A(?=\s*[(\[]\s*{_TEXT})|[{rest}](?:{ends}|(?=\s*[(\[]?\s*{_TEXT})))"
    loose = rf"(?:a{ends}|[A{rest}](?![\w-]))"
    more = (
        rf"(?:[)\]]?\s*(?:[,;/&]|\b(?i:or|and)\b)\s*[(\[]?(?:[A{rest}]|a(?=\W*$))(?![\w-])"
        rf"|[)\]]\s*[A{rest}](?=[)\]]))*"
    )
    opening = r"[\s\"'“(\[]{0,8}"
    verdict = r"(?:the\s+)?(?:most\s+)?(?:correct|right|true|best|answer|likely)\b"
    sources = (
        rf"^[^\w~≠¬!\n]{{0,40}}+(?:(?i:most\s+likely|probably|likely|definitely|clearly)\s+)?({tight}{more})",
        rf"(?:\b(?i:answer|is|it['’]s|that['’]s|be|choose|chose|pick|select|so|thus|therefore)\b|[:=]){opening}({tight}{more})",
        rf"\b(?i:option|choice|letter)s?\b\s*:?{opening}({loose}{more})",
        rf"(?<!\w)[(\[]\s*([Aa{rest}]{more})\s*[)\]]",
        rf"\b(?i:not)\s+[(\[]?[A-{last}a-{last.lower()}][)\]]?\s*[,;.]?\s*(?:(?i:but|rather)\s+)?[(\[]?({tight}{more})",
        rf"(?<![\w-])([A-{last}])\s+(?i:is|seems|looks|would be)\s+(?i:{verdict})",
    )
    beside = (
        r"(?:^|[.,;:?!/&]|(?<!\w)[-–—]"
        r"|\b(?i:or|and|maybe|perhaps|possibly|probably|likely|also|as|else|even|versus|vs|with|plus|then|actually|alternatively|alternative|otherwise|conceivably|(?:could|may|might|can)\s+be"
        rf"|{_MAYBE}))"
        rf"{opening}({tight})"
    )
    return tuple(re.compile(source, re.MULTILINE) for source in sources), re.compile(beside, re.MULTILINE)


def _named_letters(text: str, count: int) -> set[str]:
    """The letters that `text` names, those it denies left out."""
    named: set[str] = set()
    naming, beside = _letter_patterns(count)
    for pattern in naming:
        for match in pattern.finditer(text):
            denied = is_denied(text, match.start()) or is_denied(text, match.start(1))
            if not denied and not _DENIED_AFTER.match(text, match.end()):
                named |= single_letters(match[1])
    if named:
        for match in beside.finditer(text):
            if not is_denied(text, match.start(1)):
                named |= single_letters(match[1])
    return named
