"""One row of a user's data becomes one `kepo.types.Question`, or an error that names file, row and field.

Columns: `question` (or `text`); `options` (a list) or `option_A`, `option_B`, ...; `answer`, a letter or the text of an
option, free text where there are no options; `image` or `images`; `id`, `modality`, `task`, `metadata`. Other columns
are left alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NoReturn

from kepo.data.images import ImageRoot, read_images
from kepo.data.sources import is_empty, shortened
from kepo.errors import DataError
from kepo.rewards.options import read_the_same
from kepo.types import Question, option_letters


@dataclass(frozen=True, slots=True)
class Place:
    """File or folder, and row number from 1 (in JSON lines the line), for error messages."""

    source: str
    row: int

    def refuse(self, field: str, problem: str, reason: str | None = None) -> NoReturn:
        """Raises the RowError of this row; without a `reason` it is `problem` up to the semicolon."""
        raise RowError(self, field, problem, reason or problem.partition(";")[0])


class RowError(DataError):
    """A row that cannot be used; `field`, `problem` and `reason` as in `kepo.data.sources.Unusable`."""

    def __init__(self, place: Place, field: str, problem: str, reason: str) -> None:
        where = f", field {field!r}" if field else ""
        super().__init__(f"{place.source}, row {place.row}{where}: {problem}")
        self.field, self.problem, self.reason = field, problem, reason


def claim_id(question_id: str, seen: dict[str, Place], place: Place) -> None:
    """Notes in `seen` that this row has the id `question_id`; a RowError where another row has it already."""
    first = seen.setdefault(question_id, place)
    if first is place:
        return
    problem, other = f"is already the id of row {first.row}", "another row"
    if first.source != place.source:
        problem, other = f"is also in {first.source}", "a row in another file"
    place.refuse("id", f"{question_id!r} {problem}; ids must be unique", f"is already the id of {other}")


def question_from_row(
    row: Mapping[str, Any], place: Place, images: ImageRoot | None, keep_images_in: Path | None = None
) -> Question:
    """The question that `row` holds; see the top of this module for its columns.

    Args:
        row: Column -> value.
        place: For errors; the stem of the file begins the id of a row without one: `<stem>-<row>`.
        images: The folder that image paths are relative to and may not leave; None where there are no paths.
        keep_images_in: Folder that images in the row itself are written to; None: they are decoded.

    Raises:
        RowError: naming file, row, field and value, and what to do.
    """
    if not isinstance(row, Mapping):
        place.refuse("", f"it is {shortened(repr(row))}, not a record with columns", "is not a record with columns")
    text_field = "text" if is_empty(row.get("question")) and "text" in row else "question"
    question = text_of(row.get(text_field), text_field, place)
    options = options_of(row, place)
    answer = text_of(row.get("answer"), "answer", place)
    if options and isinstance(row["answer"], Real):
        refuse_index(answer, options, place)
    if options:
        answer = resolve_answer(answer, options, place)
    return Question(
        id=_optional_text(row, "id", place) or f"{Path(place.source).stem}-{place.row}",
        text=question,
        answer=answer,
        options=options,
        images=read_images(row, images, place.refuse, keep_images_in),
        modality=_optional_text(row, "modality", place),
        task=_optional_text(row, "task", place),
        metadata=metadata_of(row.get("metadata"), place),
    )


def options_of(row: Mapping[str, Any], place: Place) -> tuple[str, ...]:
    """The option texts of a row, from `options` or from `option_A`, `option_B`, ...; empty for an open question."""
    listed = row.get("options")
    if is_empty(listed):
        field, texts = _lettered_options(row, place)
    elif isinstance(listed, str | Mapping) or not isinstance(listed, Iterable):
        place.refuse("options", f"{shortened(repr(listed))} is not a list of texts", "is not a list of texts")
    else:
        field, texts = "options", tuple(text_of(text, "options", place) for text in listed)
    if len(texts) == 1:
        advice = "give at least 2, or none for an open question"
        place.refuse(field, f"only one option ({texts[0]!r}); {advice}", "only one option")
    if len(texts) > len(ascii_uppercase):
        place.refuse(field, f"{len(texts)} options; there are letters for 26", "more options than letters")
    _refuse_equal(texts, field, place)
    return texts


def _refuse_equal(texts: Sequence[str], field: str, place: Place) -> None:
    """Options that rewards cannot tell apart make every answer ambiguous."""
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        same = first.setdefault(read_the_same(text) or _loose(text), index)
        if same != index:
            pair = f"options {ascii_uppercase[same]} and {ascii_uppercase[index]} read the same"
            given = f"({texts[same]!r}, {text!r})"
            place.refuse(
                field, f"{pair} {given}; remove one, or say what tells them apart", "two options read the same"
            )


def _lettered_options(row: Mapping[str, Any], place: Place) -> tuple[str, tuple[str, ...]]:
    given = [letter for letter in ascii_uppercase if not is_empty(row.get(f"option_{letter}"))]
    for expected, letter in zip(ascii_uppercase, given, strict=False):
        if letter != expected:
            problem = f"is missing, but there is an option_{letter}; fill the letters in order"
            place.refuse(f"option_{expected}", problem, "is missing, but there is one of a later letter")
    texts = tuple(text_of(row[f"option_{letter}"], f"option_{letter}", place) for letter in given)
    return f"option_{given[-1]}" if given else "options", texts


def refuse_index(answer: str, options: tuple[str, ...], place: Place) -> None:
    """A RowError for a number that is the text of one option and may be the index of another, from 0 or from 1."""
    by_text = same_text(answer, option_letters(options), options)
    index = int(answer) if answer.isascii() and answer.isdigit() else -1
    places = {letter: at for at, letter in enumerate(option_letters(options))}
    if by_text and 0 <= index <= len(options) and places[by_text[0]] != index:
        read = f"the number {answer} is the text of option {by_text[0]}, and may be the index of another one"
        said = "or say how answers are written (data_answer, or --answer of kepo prepare: text, index)"
        advice = f"write ({by_text[0]}) for that option, {said}"
        place.refuse("answer", f"{read}; {advice}", "is the text of one option and may be the index of another")


def resolve_answer(answer: str, options: tuple[str, ...], place: Place, letters: bool = True) -> str:
    """The letter of the option that a row's answer means; a RowError where it fits no option, or two.

    Args:
        answer: A letter ("B", "b", "B.", "(B)", "B)") or the text of an option. Case and final stop are ignored unless
            that would fit two options.
        options: Option texts, 2..26.
        place: For errors.
        letters: False where answers are known to be texts, so that "B" is read as a text only.
    """
    names = option_letters(options)
    stripped = answer.strip()
    upper = stripped.upper().rstrip(".")
    if letters and any(stripped.upper() in (f"({name})", f"{name})") for name in names):
        return stripped.strip("()").upper()
    by_text = same_text(stripped, names, options)
    if letters and upper in names:
        if by_text and by_text != [upper]:
            letter = f"the letter of option {upper} ({options[names.index(upper)]!r})"
            advice = f"write ({upper}) for the letter or ({by_text[0]}) for the text"
            problem = f"{answer!r} is {letter} and the text of option {by_text[0]}; {advice}"
            place.refuse("answer", problem, "is the letter of one option and the text of another")
        return upper
    if len(by_text) > 1:
        problem = f"{answer!r} fits the options {' and '.join(by_text)}; give the letter instead"
        place.refuse("answer", problem, "fits more than one option")
    if not by_text:
        listed = ", ".join(f"{name}) {text!r}" for name, text in zip(names, options, strict=True))
        advice = "give a letter or the text of an option"
        if stripped.isascii() and stripped.isdigit() and int(stripped) <= len(options):
            advice += ", or say that it is an index (data_answer, or --answer of kepo prepare)"
        problem = f"{answer!r} is not among the options {listed}; {advice}"
        place.refuse("answer", problem, "is not among the options")
    return by_text[0]


def same_text(answer: str, names: tuple[str, ...], options: tuple[str, ...]) -> list[str]:
    """Letters of the options that read like `answer`: exactly if there are any, else up to case and final stop."""
    pairs = list(zip(names, options, strict=True))
    exact = [name for name, option in pairs if option.strip() == answer.strip()]
    return exact or [name for name, option in pairs if _loose(option) == _loose(answer)]


def _loose(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(". ")


def text_of(value: Any, field: str, place: Place) -> str:
    """`value` as trimmed text that is not empty; numbers count as text, whole ones without ".0"."""
    if is_empty(value):
        place.refuse(field, "is missing or empty")
    if isinstance(value, Real | Decimal) and not isinstance(value, bool):
        # A column of whole numbers with a gap holds floating-point numbers.
        whole = not isinstance(value, Integral) and math.isfinite(value) and float(value).is_integer()
        value = str(int(float(value)) if whole else value)
    if not isinstance(value, str):
        place.refuse(field, f"{shortened(repr(value))} is not text", "is not text")
    return value.strip()


def _optional_text(row: Mapping[str, Any], field: str, place: Place) -> str | None:
    value = row.get(field)
    return None if is_empty(value) else text_of(value, field, place)


def metadata_of(value: Any, place: Place) -> dict[str, Any]:
    """A record, given as such or as JSON text, that survives JSON."""
    if is_empty(value):
        return {}
    try:
        record = json.loads(value) if isinstance(value, str) else json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        place.refuse("metadata", f"{shortened(repr(value))} cannot be kept as JSON: {error}", "cannot be kept as JSON")
    if not isinstance(record, dict):
        problem = f"{shortened(repr(value))} is not a record; write it as {{name: value}}"
        place.refuse("metadata", problem, "is not a record")
    return record
