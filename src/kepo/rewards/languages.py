"""Answers and hints in other languages: their cue words become English, so that one matcher reads all of them.

`translated` puts English words in the place of those of `kepo.rewards.cue_words` ("答案是B" -> "answer is B") and
blanks around the texts of options, where a language writes none. Everything else stays as it is, so that a sentence
with words that are not in the table still names nothing.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache

from kepo.rewards.cue_words import CUES, ENGLISH, LETTERS, OPTION_MARK, OPTION_NOUNS, SPACED, UNREAD_SCRIPTS

logger = logging.getLogger(__name__)

_KANA = r"\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HAN = r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
_ARABIC = r"\u0620-\u064a\u066e-\u06d3"
_OTHER_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
UNSPACED = _KANA + _HAN + _OTHER_UNSPACED
"""Characters of the scripts that write no blanks between words, for a character class."""

# A place where no word of a script with blanks goes on; Hangul particles are written right behind a word.
_WORD = rf"[^\W{UNSPACED}{_HANGUL}]"
_MASKS = "\ue000-\uf8ff"
_UNIT = rf"(?<=[A-Z{_MASKS})\]\"'*])"
_ENDS = r"(?=\s*(?:$|[\n,.;:!?)\]]))"
_CLAUSE = r"[^\s,.;:!?]"
_ARTICLE = re.compile(r"(?<!\w)(?:la|el|le|lo|l['’]|a|o|die|der|das)\s*(?=[(\[]?[A-Z](?!\w))")
_CAPITAL = re.compile(rf"(?<![\w-])[A-Z](?![\w-])|(?:(?<=, )|(?<=or ))[A-Z](?=[{UNSPACED}{_HANGUL}])")
_NAMED_OPTION = re.compile(rf"(?:{OPTION_NOUNS})\s*([A-Z])(?![A-Za-z0-9])")
_ARTICLE_LETTERS = "AEOY"

_MARKS = str.maketrans(
    {
        **dict.fromkeys("。｡۔।", ". "),
        **dict.fromkeys("、،､", ", "),
        "؛": "; ",
        "؟": "? ",
        "¿": "",
        "¡": "",
        **dict.fromkeys("【〔〖", "["),
        **dict.fromkeys("】〕〗", "]"),
        **dict.fromkeys("「『《〈«", '"'),
        **dict.fromkeys("」』》〉»", '"'),
        **dict.fromkeys("ٱأإآ", "ا"),
        "ى": "ي",
        "ة": "ه",
        "ـ": "",
        **{chr(code): "" for code in (*range(0x64B, 0x660), 0x670, *range(0xE000, 0xF900))},
        **{chr(start + digit): str(digit) for start in (0x660, 0x6F0) for digit in range(10)},
    }
)


def plain_marks(text: str) -> str:
    """`text` in NFKC, with ASCII punctuation and digits, without tashkeel, and one form of alef, teh and yeh."""
    return unicodedata.normalize("NFKC", text).translate(_MARKS)


def is_unspaced(text: str) -> bool:
    """Whether all letters of `text` are of scripts that write no blanks between words."""
    return re.search(r"\w", text) is not None and re.fullmatch(rf"(?:[{UNSPACED}]|\W)+", text) is not None


def text_pattern(text: str) -> str:
    """A pattern that finds `text` in a sentence: as whole words, or anywhere in a script without blanks.

    A single character of such a script is a part of many words, and counts only at the end of a clause. "不正常" is not
    "正常", as "abnormal" is not "normal". Behind Hangul, particles may follow.
    """
    body = r"\s+".join(map(re.escape, text.split()))
    end = _ENDS if is_one_sign(text) else word_end(text)
    return rf"{word_start(text)}(?<!-){body}{end}(?!-)"


def is_one_sign(text: str) -> bool:
    """Whether `text` is a single character of a script in which that is a word, or a part of many words."""
    return len(text) == 1 and re.match(rf"[{UNSPACED}{_HANGUL}]", text) is not None


def word_start(text: str) -> str:
    """A pattern for a place in a sentence where the word `text` may begin."""
    if re.match(rf"[{_HANGUL}]", text):
        return rf"(?<![{_HANGUL}])"
    if re.match(r"[\u30a0-\u30ff]", text):
        return r"(?<![\u30a0-\u30ff])"
    if re.match(rf"[{UNSPACED}]", text):
        return "(?<![不非])"
    return rf"(?<!{_WORD})(?<!\d[.,])"


def word_end(text: str) -> str:
    """A pattern for a place in a sentence where the word `text` may end."""
    if re.search(r"[\u30a0-\u30ff]\Z", text):
        return r"(?![\u30a0-\u30ff])"
    if re.search(rf"[{UNSPACED}{_HANGUL}]\Z", text):
        return ""
    return rf"(?!{_WORD})(?![.,]\d)"


def arabic_word(word: str) -> str:
    """A pattern for an Arabic `word` with or without its article and the particles that are written in front of it."""
    stem = word.removeprefix("ال") if len(word) > 3 else word
    return rf"(?:[وف]?[بلك]?(?:ال)?|[وف]?لل)?(?:{re.escape(word)}|{re.escape(stem)})"


def is_arabic(text: str) -> bool:
    """Whether `text` begins with an Arabic letter."""
    return re.match(f"[{_ARABIC}]", text) is not None


@lru_cache(maxsize=4096)
def _texts_pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(filter(str.strip, texts), key=len, reverse=True)
    return re.compile("|".join(map(text_pattern, longest_first)) or "(?!)", re.IGNORECASE)


def languages_of(text: str) -> tuple[str, ...]:
    """The languages of `CUES` that `text` (see `plain_marks`) may be in; those in Latin letters by their cue words."""
    found = []
    if re.search(f"[{_KANA}]", text):
        found.append("Japanese")
    elif re.search(f"[{_HAN}]", text):
        found.append("Chinese")
    if re.search(f"[{_HANGUL}]", text):
        found.append("Korean")
    if re.search(f"[{_ARABIC}]", text):
        found.append("Arabic")
    return (*found, *(name for name in SPACED if name != "Arabic" and _evidence(name).search(text)))


@cache
def _evidence(language: str) -> re.Pattern[str]:
    roles = ("answer", "choose", "is", "correct", "but")
    return re.compile(_words(language, *roles), re.IGNORECASE)


def _words(language: str, *roles: str) -> str:
    """The cue words of `roles` as one pattern."""
    words = "|".join(word for role in roles for word in CUES[language][role]) or "(?!)"
    words = words.replace("_", r"\s+")
    return rf"(?<!\w)(?:{words})(?:(?<=['’])|(?!\w))" if language in SPACED else rf"(?:{words})"


@lru_cache(maxsize=64)
def _cues(languages: tuple[str, ...]) -> re.Pattern[str]:
    """Finds every cue word, in groups by role."""
    roles: dict[str, list[str]] = {role: [] for role in ("because", "but", "or", "correct", "end", "option", *ENGLISH)}
    for name in languages:
        spaced = name in SPACED
        blank, between = (r"\s+", r"(?:\s+[^\W\d]+){0,2}?\s+") if spaced else (r"\s*", rf"{_CLAUSE}{{0,4}}?")
        roles["because"].append(_words(name, "because"))
        roles["but"].append(_words(name, "but"))
        roles["or"].append(rf"{_UNIT}\s*{_words(name, 'or')}\s*(?=(?:{OPTION_NOUNS})?[(\[]?[A-Z{_MASKS}])")
        roles["correct"].append(rf"{_UNIT}{blank}{_words(name, 'correct')}{'' if spaced else _ENDS}")
        roles["end"].append(rf"{_UNIT}\s*{_words(name, 'end')}{_ENDS}")
        roles["option"].append(rf"(?<=[A-Z)\]]){_words(name, 'option')}")
        roles["deny"].append(_words(name, "deny"))
        roles["deny"].append(rf"{_words(name, 'negation')}{between}{_words(name, 'choose', 'is')}")
        for role in ("answer", "choose", "is"):
            roles[role].append(_words(name, role))
    return re.compile("|".join(rf"(?P<{role}>{'|'.join(found)})" for role, found in roles.items()), re.IGNORECASE)


def translated(text: str, texts: Sequence[str] = (), letters: int = 26, *, audit: bool = False) -> str | None:
    """`text` (see `plain_marks`) with its cue words in English; None where it is in none of the languages.

    Args:
        text: An answer or a hint.
        texts: Texts of the options, of which no part is a cue word; blanks are put around them.
        letters: How many letters options have.
        audit: A letter that is called an option becomes "option B", which names it whatever follows; else "B".
    """
    units: list[str] = []

    def masked(match: re.Match[str]) -> str:
        units.append(match[0])
        return chr(0xE000 + (len(units) - 1) % 0x1900)

    if audit:
        text = _NAMED_OPTION.sub(r" option \1 ", text)
    text = _texts_pattern(tuple(texts)).sub(masked, text)
    languages = languages_of(text)
    if not languages:
        return None
    text = _cues(languages).sub(lambda match: ENGLISH[match.lastgroup or "end"], text)
    if "Arabic" in languages:
        text = _arabic_letters(text, letters)
    text = re.sub(rf"([A-Z][)\]]?)\s*{OPTION_MARK}", r" option \1 " if audit else r" \1 ", text).replace(
        OPTION_MARK, " "
    )
    text = _ARTICLE.sub("", text)
    text = re.sub(rf"(?<=[{UNSPACED}{_HANGUL}])(?=[A-Z](?:\s|$|[.,;:!?]))", " ", text)
    restored = iter(units)
    text = re.sub(f"[{_MASKS}]", lambda _: f" {next(restored)} ", text)
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))


def _arabic_letters(text: str, count: int) -> str:
    known = "".join(list(LETTERS)[:count])
    return re.sub(rf"(?<![{_ARABIC}])[{known}](?![{_ARABIC}])", lambda match: LETTERS[match[0]], text)


def lone_capitals(text: str) -> list[re.Match[str]]:
    """The capitals that stand alone in a translated text, but for an article that begins a sentence ("A lesão ...")."""
    found = []
    for match in _CAPITAL.finditer(text):
        begins = text[max(0, match.start() - 4) : match.start()].rstrip(" ")[-1:] in ("", ".", "!", "?", "\n")
        article = match[0] in _ARTICLE_LETTERS and begins and re.match(r"\s[^\W\d_]{2}", text[match.end() :][:4])
        if not article:
            found.append(match)
    return found


def unread_script(texts: Iterable[str]) -> str | None:
    """The script of `texts` whose languages have no cue words here, such as "Cyrillic"; None: there is none."""
    for text in texts:
        for character in text:
            if not character.isascii() and character.isalpha():
                script = unicodedata.name(character, "").partition(" ")[0]
                # A single Greek letter is a sign in any language.
                if script in UNREAD_SCRIPTS and (script != "GREEK" or text.isalpha()) and len(text) > 1:
                    return script.capitalize()
    return None


def note_unread_languages(options: Iterable[Sequence[str] | None]) -> None:
    """Warn once where options are in a script whose languages have no cue words here.

    Args:
        options: The option texts of each question.
    """
    scripts = [script for texts in options if (script := unread_script(texts or ()))]
    if scripts:
        logger.warning(
            "The options of %d questions are in %s script, for whose languages there are no cue words (there are for "
            "English, %s). Their answers are read as a letter or as the exact text of an option, not in sentences "
            "around it, and the leak audit finds the text of the answer but no sentence that names its letter.",
            len(scripts),
            " and ".join(sorted(set(scripts))),
            ", ".join(CUES),
        )
