"""One row of a user's data becomes one `kepo.types.Question`, or an error that names file, row and field.

Columns: `question` (or `text`); `options` (a list) or `option_A`, `option_B`, ...; `answer`, a letter or the text of an
option, free text where there are no options; `image` or `images`; `id`, `modality`, `task`, `metadata`. Other columns
are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NoReturn

from kepo.data.images import ImageRoot, read_images
from kepo.data.sources import shortened
from kepo.errors import DataError
from kepo.types import Question, option_letters

_EXPLICIT_LETTER = (("(", ")"), ("", ")"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands, for error messages.

    Attributes:
        source: The file or folder.
        row: Row number, from 1 (the line number in a JSONL file).
    """

    source: str
    row: int

    def refuse(self, field: str, problem: str, reason: str | None = None) -> NoReturn:
        """Raises the RowError of this row: `source, row N, field 'x': problem`.

        Args:
            field: The column; empty where it is the whole row.
            problem: What is wrong with which value, and what to do.
            reason: What is wrong, without the value; None: as `problem`, up to what to do.
        """
        raise RowError(self, field, problem, reason or problem.partition(";")[0])


class RowError(DataError):
    """A row that cannot be used.

    Attributes:
        place: The file or folder, and the row.
        field: The column that is wrong; empty where it is the whole row.
        problem: What is wrong with which value, and what to do.
        reason: What is wrong, without the value, so that rows can be counted by it.
    """

    def __init__(self, place: Place, field: str, problem: str, reason: str) -> None:
        where = f", field {field!r}" if field else ""
        super().__init__(f"{place.source}, row {place.row}{where}: {problem}")
        self.place, self.field, self.problem, self.reason = place, field, problem, reason


def claim_id(question_id: str, seen: dict[str, Place], place: Place, field: str) -> None:
    """Notes in `seen` that this row has the id `question_id`.

    Raises:
        DataError: another row has it already.
    """
    first = seen.setdefault(question_id, place)
    if first is place:
        return
    if first.source == place.source:
        problem, reason = f"is already the id of row {first.row}", "is already the id of another row"
    else:
        problem, reason = f"is also in {first.source}", "is already the id of a row in another file"
    place.refuse(field, f"{question_id!r} {problem}; ids must be unique", reason)


def question_from_row(
    row: Mapping[str, Any],
    *,
    source: str,
    index: int,
    image_root: Path | ImageRoot | None,
    keep_images_in: Path | None = None,
) -> Question:
    """The question that `row` holds; see the top of this module for its columns.

    Args:
        row: Column -> value.
        source: The file, for errors; its stem begins the id of a row without one: `<stem>-<index>`.
        index: Row number, from 1.
        image_root: The folder that image paths are relative to and may not leave; None where there are no paths.
        keep_images_in: Folder that images which stand in the row itself are written to; None: they are decoded.

    Raises:
        DataError: naming source, row, field and value, and what to do.
    """
    place = Place(source, index)
    if not isinstance(row, Mapping):
        place.refuse("", f"it is {shortened(repr(row))}, not a record with columns", "is not a record with columns")
    text_field = "question" if row.get("question") is not None else "text"
    question = text_of(row.get(text_field), text_field if text_field in row else "question", place)
    options = options_of(row, place)
    answer = text_of(row.get("answer"), "answer", place)
    if options:
        answer = resolve_answer(answer, options, place, "answer")
    return Question(
        id=_optional_text(row, "id", place) or f"{Path(source).stem}-{index}",
        text=question,
        answer=answer,
        options=options,
        images=read_images(row, image_root, place.refuse, keep_images_in),
        modality=_optional_text(row, "modality", place),
        task=_optional_text(row, "task", place),
        metadata=_metadata(row.get("metadata"), place),
    )


def options_of(row: Mapping[str, Any], place: Place) -> tuple[str, ...]:
    """The option texts of a row, from `options` or from `option_A`, `option_B`, ...; empty for an open question.

    Raises:
        DataError: a single option, more than 26, an empty one, or a gap between the lettered columns.
    """
    listed = row.get("options")
    if listed is None:
        field, texts = _lettered_options(row, place)
    elif isinstance(listed, str | Mapping) or not isinstance(listed, Iterable):
        place.refuse("options", f"{shortened(repr(listed))} is not a list of texts", "is not a list of texts")
    else:
        field, texts = "options", tuple(text_of(text, "options", place) for text in listed)
    if len(texts) == 1:
        problem = f"only one option ({texts[0]!r}); give at least 2, or none for an open question"
        place.refuse(field, problem, "only one option")
    if len(texts) > len(ascii_uppercase):
        place.refuse(field, f"{len(texts)} options; there are letters for 26", "more options than letters")
    return texts


def _lettered_options(row: Mapping[str, Any], place: Place) -> tuple[str, tuple[str, ...]]:
    given = [letter for letter in ascii_uppercase if row.get(f"option_{letter}") not in (None, "")]
    for expected, letter in zip(ascii_uppercase, given, strict=False):
        if letter != expected:
            problem = f"is missing, but there is an option_{letter}; fill the letters in order"
            place.refuse(f"option_{expected}", problem, "is missing, but there is one of a later letter")
    texts = tuple(text_of(row[f"option_{letter}"], f"option_{letter}", place) for letter in given)
    return f"option_{given[-1]}" if given else "options", texts


def resolve_answer(answer: str, options: tuple[str, ...], place: Place, field: str, letters: bool = True) -> str:
    """The letter of the option that a row's answer means.

    Args:
        answer: A letter ("B", "b", "B.", "(B)", "B)") or the text of an option (case and final stop are not looked at
            unless that would fit two options).
        options: Option texts, 2..26.
        place: For errors.
        field: The column that the answer comes from.
        letters: False where answers are known to be texts, so that "B" is read as a text only.

    Raises:
        DataError: the answer fits no option, or two.
    """
    names = option_letters(options)
    stripped = answer.strip()
    upper = stripped.upper().rstrip(".")
    if letters and any(stripped.upper() == f"{start}{name}{end}" for name in names for start, end in _EXPLICIT_LETTER):
        return stripped.strip("()").upper()
    by_text = _same_text(stripped, names, options)
    if letters and upper in names:
        if by_text and by_text != [upper]:
            letter = f"the letter of option {upper} ({options[names.index(upper)]!r})"
            advice = f"write ({upper}) for the letter or ({by_text[0]}) for the text"
            problem = f"{answer!r} is {letter} and the text of option {by_text[0]}; {advice}"
            place.refuse(field, problem, "is the letter of one option and the text of another")
        return upper
    if len(by_text) > 1:
        problem = f"{answer!r} fits the options {' and '.join(by_text)}; give the letter instead"
        place.refuse(field, problem, "fits more than one option")
    if not by_text:
        listed = ", ".join(f"{name}) {text!r}" for name, text in zip(names, options, strict=True))
        problem = f"{answer!r} is not among the options {listed}; give a letter or the text of an option"
        place.refuse(field, problem, "is not among the options")
    return by_text[0]


def _same_text(answer: str, names: tuple[str, ...], options: tuple[str, ...]) -> list[str]:
    """Letters of the options that read like `answer`: exactly if there are any, else up to case and final stop."""
    for form in (str.strip, _loose):
        found = [name for name, option in zip(names, options, strict=True) if form(option) == form(answer)]
        if found:
            return found
    return []


def _loose(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(". ")


def text_of(value: Any, field: str, place: Place) -> str:
    """`value` as trimmed text that is not empty; numbers count as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        place.refuse(field, "is missing or empty")
    if not isinstance(value, str):
        place.refuse(field, f"{shortened(repr(value))} is not text", "is not text")
    return value.strip()


def _optional_text(row: Mapping[str, Any], field: str, place: Place) -> str | None:
    value = row.get(field)
    return None if value is None or value == "" else text_of(value, field, place)


def _metadata(value: Any, place: Place) -> dict[str, Any]:
    """A record, given as such or as JSON text, that survives JSON."""
    if value is None or value == "":
        return {}
    try:
        record = json.loads(value) if isinstance(value, str) else json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        place.refuse("metadata", f"{shortened(repr(value))} cannot be kept as JSON: {error}", "cannot be kept as JSON")
    if not isinstance(record, dict):
        problem = f"{shortened(repr(value))} is not a record; write it as {{name: value}}"
        place.refuse("metadata", problem, "is not a record")
    return record
