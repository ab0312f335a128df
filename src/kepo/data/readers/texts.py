"""What texts and names of files tell: options at the end of a question, and the split that a file holds."""

from __future__ import annotations

import re
from pathlib import Path
from string import ascii_uppercase

from kepo.data.schema import Place

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
"""Names of a split, in lower case, and the split."""

# An option that still holds the mark of another one was not lettered in order.
_LATER_MARK = re.compile(r"[,\n]\s*[A-Z]\)\S")
_LETTERED_LINE = re.compile(r"(?:\(([A-Z])\)|([A-Z])\s*[.:)：．、])\s*(\S.*)")
_HEADING = re.compile(r"\n\s*(?:answer )?(?:choices|options)\s*:?\s*\Z", re.IGNORECASE)
_ASKS_FOR_LETTER = re.compile(
    r"(?:please )?(?:answer|select|choose|respond|provide|give)\b.*\b(?:letter|option|choice)s?\b.*", re.IGNORECASE
)


def split_of_name(path: Path) -> str | None:
    """The split that the name of a file begins or ends with: `train-00000-of-00002.parquet`, `MR_test.json`."""
    words = re.split(r"[-_. ]+", path.stem.lower())
    return SPLIT_NAMES.get(words[0]) or SPLIT_NAMES.get(words[-1])


def options_in(text: str, place: Place) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a text such as `What is it? A)CT, B)MRI`; no options where there are not at least two.

    Options may also stand on a line each (`A. CT`); a line after them that asks for a letter is left out.
    """
    if lines := _on_lines(text):
        return lines
    # Commas first: "vitamin B)" inside an option is no mark, but some files set options apart by spaces only.
    for before in (r"[,\n]\s*", r"\s+"):
        parts = _split_at_letters(text, before)
        if len(parts) > 2:
            break
    question, *options = (part.strip() for part in parts)
    if len(options) < 2:
        return text, ()
    if any(not option or _LATER_MARK.search(option) for option in options):
        place.refuse("question", "its options are not lettered in order, or one is empty")
    if not question:
        place.refuse("question", "has options but no question")
    return question, tuple(options)


def _on_lines(text: str) -> tuple[str, tuple[str, ...]] | None:
    lines = [line.strip() for line in text.strip().splitlines()]
    starts = [index for index, line in enumerate(lines) if index and _LETTERED_LINE.fullmatch(line)]
    if len(starts) < 2 or starts != list(range(starts[0], starts[-1] + 1)):
        return None
    marks = [_LETTERED_LINE.fullmatch(lines[index]) for index in starts]
    letters = [(mark[1] or mark[2]) for mark in marks if mark]
    after = " ".join(lines[starts[-1] + 1 :]).strip()
    if letters != list(ascii_uppercase[: len(letters)]) or not (after == "" or _ASKS_FOR_LETTER.fullmatch(after)):
        return None
    question = _HEADING.sub("", "\n".join(lines[: starts[0]])).strip()
    return (question, tuple(mark[3].strip() for mark in marks if mark)) if question else None


def _split_at_letters(problem: str, before: str) -> list[str]:
    """The text before `A)`, and what follows each letter."""
    parts: list[str] = []
    rest = problem
    for letter in ascii_uppercase:
        mark = before if parts else r"(?:^|\s)"
        marks = list(re.finditer(rf"{mark}{letter}\)", rest))
        if not marks:
            break
        # "(type A)" is no mark; a bracket that is never closed is a slip, and hides none.
        before_marks = ((one, rest[: one.start()]) for one in marks)
        found = next((one for one, left in before_marks if left.count("(") <= left.count(")")), marks[0])
        parts.append(rest[: found.start()])
        rest = rest[found.end() :]
    return [*parts, rest]
