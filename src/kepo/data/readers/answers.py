"""How answers are written in a table: as letters, texts or indices, in tags, in boxes or after marks."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal, TypeAlias, get_args

from kepo.data.readers.cells import index_of, spoken, value_at
from kepo.data.readers.marks import after_hashes, answer_in_tags, chosen, last_boxed
from kepo.data.readers.rows import Table
from kepo.data.schema import Place, refuse_index, resolve_answer, text_of
from kepo.errors import ConfigError
from kepo.types import option_letters

AnswerForm: TypeAlias = Literal["auto", "letter", "text", "index", "index_from_1", "index_found", "letter_or_text"]
"""See `kepo.data.readers.table.TableMap.answer`."""
ANSWER_FORMS: tuple[str, ...] = get_args(AnswerForm)

AnswerPlace: TypeAlias = Literal["boxed", "hashes"]
_FOUND_IN = {"boxed": last_boxed, "hashes": after_hashes}


def bare_answer(value: Any, answer_in: AnswerPlace | None, place: Place) -> Any:
    """The answer of a cell without what stands around it; a value that is no text as it is."""
    value = spoken(value)
    if not isinstance(value, str):
        return value
    return answer_in_tags(value) if answer_in is None else _FOUND_IN[answer_in](value, "answer", place)


def answer_among(value: Any, options: tuple[str, ...], form: AnswerForm, place: Place) -> Any:
    """The answer as `question_from_row` reads it: the letter in brackets, or free text without options."""
    if not options or value is None:
        return value
    letters = option_letters(options)
    if form in ("index", "index_from_1"):
        return f"({letters[index_of(value, len(options), place, int(form == 'index_from_1'))]})"
    text = chosen(text_of(value, "answer", place), options)
    if form == "auto" and isinstance(value, Real):
        refuse_index(text, options, place)
    bare = text.strip("(). ").upper()
    if form == "letter" and bare not in letters:
        problem = f"is no letter from A to {letters[-1]}"
        place.refuse("answer", f"{text!r} {problem}", problem)
    if form == "letter" or (form == "letter_or_text" and bare in letters):
        return f"({bare})"
    return f"({resolve_answer(text, options, place, letters=form == 'auto')})"


def counted_from(table: Table, column: str, options: int) -> AnswerForm:
    """Whether the indices in a column count from 0 or from 1: one row alone does not tell.

    Args:
        table: Read once for it.
        column: The column, or a dotted path.
        options: How many options every question has.
    """
    cells = (value_at(row, column) for _, row in table.rows((column,)) if isinstance(row, Mapping))
    values = {str(cell).removesuffix(".0") for cell in cells}
    if "0" in values:
        return "index"
    if str(options) in values:
        return "index_from_1"
    problem = f"holds neither a 0 nor a {options}, so it may count from 0 or from 1"
    raise ConfigError(f"{table.path}, column {column!r}: {problem}; say which (answer: index, or index_from_1)")
