"""Marks that other tools leave in texts: places for images, answer tags, letters of options, boxes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from kepo.data.schema import Place, same_text
from kepo.types import option_letters

_PLACEHOLDER = re.compile(
    r"<\|vision_start\|>\s*<\|(?:image|video)_pad\|>\s*<\|vision_end\|>"
    r"|<(?:\|?image(?:_pad|_token|_placeholder|_soft_token)?\|?|img|/?start_of_image|end_of_image|ImageHere|IMG_CONTEXT)>"
    r"|<\|?(?:image|img)[ _-]?(?P<number>\d{1,2})\|?>",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_REASONING = re.compile(r"\A.*</think>", re.DOTALL | re.IGNORECASE)
_CHOSEN = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])\s*[.:)．：、])\s*(\S.*)", re.DOTALL | re.IGNORECASE)


def placeholders_in(text: str) -> int:
    """How many places for images a text has."""
    return len(_PLACEHOLDER.findall(text))


def without_placeholders(text: str) -> str:
    """`text` without its places for images, which are put in front of a question anyway.

    A numbered place, or one of several, that is a word of a sentence becomes `image 2`.
    """
    several = placeholders_in(text) > 1
    lines, count = [], 0
    for line in text.split("\n"):
        kept, end = "", 0
        for mark in _PLACEHOLDER.finditer(line):
            count += 1
            number = mark["number"] or (str(count) if several else None)
            before = _PLACEHOLDER.sub("", line[: mark.start()]).strip()
            after = _PLACEHOLDER.sub("", line[mark.end() :]).strip()
            named = number and _is_word(before, after, numbered=mark["number"] is not None)
            kept += line[end : mark.start()] + (f" image {number} " if named else " ")
            end = mark.end()
        lines.append(re.sub(r"[ \t]{2,}", " ", kept + line[end:]).strip() if end else line)
    whole = "\n".join(lines)
    return text if whole == text else re.sub(r"\n{3,}", "\n\n", re.sub(r" ([.,;:?!)\]])", r"\1", whole)).strip()


def _is_word(before: str, after: str, *, numbered: bool) -> bool:
    """Whether a place for an image between two parts of a line belongs to the sentence that it stands in."""
    if not numbered:
        return bool(before and after)
    ended = not before or before.endswith((".", "?", "!", ":", "。", "？", "："))
    begins = not after or after[0].isupper()
    return not (ended and begins)


def option_text(text: str) -> str:
    """The text of an option without places for images; one that is nothing else is named, as `image 2`."""
    shown = without_placeholders(text)
    if shown:
        return shown
    numbers = [mark["number"] for mark in _PLACEHOLDER.finditer(text)]
    return " ".join(f"image {number}" for number in numbers) if all(numbers) else text


def answer_in_tags(text: str) -> str:
    """What stands in the last `<answer>` of a text, or after its `</think>`; `text` where there are no such tags."""
    inside = _ANSWER.findall(text)
    return inside[-1].strip() if inside else _REASONING.sub("", text).strip()


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Option texts without their letters (`A. x`, `(B) y`, `c: z`), if all have them, and in order."""
    found = [_CHOSEN.fullmatch(option) for option in options]
    letters = [(mark[1] or mark[2]).upper() for mark in found if mark]
    if not options or letters != list(ascii_uppercase[: len(options)]):
        return tuple(options)
    return tuple(mark[3].strip() for mark in found if mark)


def chosen(answer: str, options: tuple[str, ...]) -> str:
    """`(B)` for an answer that is letter and text of one option (`B. Heart`, `(b) heart`); else `answer`."""
    mark = _CHOSEN.fullmatch(answer)
    letters = option_letters(options)
    if mark is None or answer.strip() in options:
        return answer
    letter = (mark[1] or mark[2]).upper()
    return f"({letter})" if letter in letters and letter in same_text(mark[3], letters, options) else answer


def last_boxed(text: str, field: str, place: Place) -> str:
    r"""What stands in the last `\boxed{}` (or `\fbox{}`) of a solution, braces balanced."""
    start = max(text.rfind(command) for command in (r"\boxed", r"\fbox"))
    if start < 0:
        place.refuse(field, r"has no \boxed{} with the answer")
    after = re.sub(r"\A\\(?:boxed|fbox)\s*", "", text[start:])
    if not after.startswith("{"):
        return after.split("$")[0].split()[0]
    depth = 0
    for index, character in enumerate(after):
        escaped = index and after[index - 1] == "\\"
        depth += 0 if escaped else (character == "{") - (character == "}")
        if depth == 0:
            break
    else:
        place.refuse(field, r"has a \boxed{ that is never closed")
    return after[1:index].strip()


def after_hashes(text: str, field: str, place: Place) -> str:
    """The number after the last `####`, without commas between its digits, as graders of GSM8K compare it."""
    _, mark, result = text.rpartition("####")
    if not mark or not result.strip():
        place.refuse(field, "has no #### with the answer after it")
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", result.strip().splitlines()[0].strip())
