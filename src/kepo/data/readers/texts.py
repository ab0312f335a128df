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


def split_of_name(path: Path) -> str | None:
    """The split that the name of a file begins or ends with: `train-00000-of-00002.parquet`, `MR_test.json`."""
    words = re.split(r"[-_. ]+", path.stem.lower())
    return SPLIT_NAMES.get(words[0]) or SPLIT_NAMES.get(words[-1])


def options_in(text: str, place: Place) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a text such as `What is it? A)CT, B)MRI, C)X-ray`.

    Args:
        text: The text.
        place: For errors.

    Returns:
        The text as it is, and nothing, where there are not at least two options.

    Raises:
        RowError: letters are not in order, or there is no question.
    """
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
        found = next((one for one in marks if not _inside_brackets(rest[: one.start()])), marks[0])
        parts.append(rest[: found.start()])
        rest = rest[found.end() :]
    return [*parts, rest]


def _inside_brackets(before: str) -> bool:
    return before.count("(") > before.count(")")
