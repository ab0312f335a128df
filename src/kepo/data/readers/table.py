"""Where the fields of a question stand in a table: a map given by the user, or a preset of `presets.yaml`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, TypeAlias, get_args

import yaml

from kepo.data.omnimedvqa import MODALITIES, canonical_modality
from kepo.data.readers.rows import DatasetFolder, Record, TableFile
from kepo.data.readers.texts import SPLIT_NAMES, options_in, split_of_name
from kepo.data.schema import Place, options_of, resolve_answer, text_of
from kepo.errors import ConfigError
from kepo.types import option_letters

AnswerForm: TypeAlias = Literal["auto", "letter", "text", "index", "letter_or_text"]
ColumnPath: TypeAlias = str | Sequence[str]
Table: TypeAlias = TableFile | DatasetFolder

_OTHER_FIELDS = ("question", "answer", "options", "image", "id", "modality", "task", "dataset", "split", "answer_type")
_OPTION_FIELDS = tuple(f"option_{letter}" for letter in ascii_uppercase)
_FIELDS = (*_OTHER_FIELDS, *_OPTION_FIELDS)
_ALL_OPTIONS = {"options", *_OPTION_FIELDS}


@dataclass(frozen=True, slots=True)
class TableMap:
    """Where the fields of a question stand in a table.

    A field that is neither in `columns` nor in `constants` is read from the column of its own name, if there is one. A
    column is a name or a dotted path into records and lists, such as `reward_model.ground_truth`; in a list a number
    is a place (`messages.-1.content`), a name the last message of that role (`messages.user.content`).

    Attributes:
        columns: Field -> column, or several of which the first that the table has is read.
        constants: Field -> the value of all rows.
        answer: How answers are written: "letter" ("B", "(b)"), "text" (that of an option), "index" (from 0), "auto" (a
            letter or a text; what could be both is refused) or "letter_or_text" (what could be both is a letter).
            Without options an answer is free text.
        option_separator: Between the options where they stand in one text; None: they are a list, or JSON.
        options_in_question: Options may stand at the end of the question's text: `What is it? A)CT, B)MRI`.
        patterns: Field -> regular expression; of a text that it matches, its first group is the value. For `options`
            and the fields of single options, of each option.
        values: Field -> pattern as in file names -> value, the first that fits, case not looked at; the value None
            keeps what is there. A text that no pattern fits is refused.
        yes_no: A question answered by yes or no has the options Yes and No; where `answer_type` is mapped, which must
            be OPEN or CLOSED, only if it is closed.
        closed_only: Refuse questions that have no options.
        where: Column -> the value that the rows to read have there; others are refused.
        known_modalities: Refuse modalities that are none of `kepo.data.omnimedvqa.MODALITIES`.
        split_by_name: The split is what the name of the file says, if it says one.
        id_prefix: Stands before the ids of the table.
        required: Fields that every row must have, besides question and answer.
        metadata: Columns that are kept in the question's metadata, where they are not empty.
    """

    columns: Mapping[str, ColumnPath] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    answer: AnswerForm = "auto"
    option_separator: str | None = None
    options_in_question: bool = False
    patterns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    yes_no: bool = False
    closed_only: bool = False
    where: Mapping[str, str] = field(default_factory=dict)
    known_modalities: bool = False
    split_by_name: bool = False
    id_prefix: str = ""
    required: Sequence[str] = ()
    metadata: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError for a map that cannot work."""
        if self.answer not in get_args(AnswerForm):
            raise ConfigError(f"answer {self.answer!r} is unknown; use one of {', '.join(get_args(AnswerForm))}")
        for name in (*self.columns, *self.constants):
            if name not in _FIELDS:
                listed = ", ".join(_OTHER_FIELDS)
                raise ConfigError(f"a question has no field {name!r}; there are {listed}, option_A to option_Z")
            if name in self.columns and name in self.constants:
                raise ConfigError(f"{name!r} is given as a column and as a constant; keep one of them")
        if self.option_separator == "":
            raise ConfigError("the option separator is empty; give the text that stands between two options")

    def over(self, preset: TableMap) -> TableMap:
        """`preset`, with what this map says about columns, constants and answers in its place."""
        said = {*self.columns, *self.constants}
        if said & _ALL_OPTIONS:
            said |= _ALL_OPTIONS
        return replace(
            preset,
            columns={**_without(preset.columns, said), **self.columns},
            constants={**_without(preset.constants, said), **self.constants},
            answer=preset.answer if self.answer == "auto" else self.answer,
            option_separator=self.option_separator or preset.option_separator,
        )

    def resolved(self, table: Table, needed: Sequence[str] = ("question", "answer")) -> TableMap:
        """The map with one column, which `table` has, for every field of it.

        Raises:
            ConfigError: a column that the table lacks, a field of `needed` that stands nowhere, or options twice.
        """
        present = table.columns()
        listed = ", ".join(present) or "none"
        columns: dict[str, str] = {}
        for name, given in self.columns.items():
            paths = [given] if isinstance(given, str) else list(given)
            found = next((path for path in paths if path in present or path.partition(".")[0] in present), None)
            if found is not None:
                columns[name] = found
            elif isinstance(given, str):
                raise ConfigError(f"{table.path} has no column {given!r} (for {name}); its columns are {listed}")
        said = {*self.columns, *self.constants, "answer_type"}
        if self.options_in_question or said & _ALL_OPTIONS:
            # A map that says where the options are says it for all of them.
            said |= _ALL_OPTIONS
        columns = {**{name: name for name in _FIELDS if name in present and name not in said}, **columns}
        known = {*columns, *self.constants}
        for name in needed:
            if name not in known:
                advice = f"name the column ({name}=COLUMN) or one value for all rows; its columns are {listed}"
                raise ConfigError(f"{table.path}: it is not said where {name} stands; {advice}")
        if "options" in known and known & set(_OPTION_FIELDS):
            raise ConfigError("options stand in 'options' and in lettered columns as well; map one of the two")
        return replace(self, columns=columns).with_split_of(table.path)

    def with_split_of(self, path: Path) -> TableMap:
        """The map with the split that the name of a file says, where that is how it is said."""
        split = split_of_name(path) if self.split_by_name else None
        if split is None:
            return self
        return replace(self, columns=_without(self.columns, {"split"}), constants={**self.constants, "split": split})

    def column(self, name: str) -> str:
        """The column of a field, for messages; the field itself where it has none."""
        column = self.columns.get(name, name)
        return column if isinstance(column, str) else column[0]

    def reads(self) -> tuple[str, ...]:
        """The columns, or dotted paths, that this map needs; it is resolved."""
        return tuple(dict.fromkeys((*map(self.column, self.columns), *self.where, *self.metadata)))

    def row(self, record: Record, place: Place) -> dict[str, Any]:
        """The row in the columns of `kepo.data.schema`; a RowError where a field cannot be used."""
        for column, wanted in self.where.items():
            if record.get(column) != wanted:
                place.refuse(column, f"not {wanted!r}, and only that was asked for")
        cells = {name: self._value(name, record, place) for name in (*self.columns, *self.constants)}
        for name in dict.fromkeys((*self.required, "modality", "dataset", "split")):
            if name not in ("options", "image") and (name in self.required or cells.get(name) is not None):
                cells[name] = text_of(cells.get(name), name, place)
        options = self._options(cells, place)
        if not options and (self.closed_only or "options" in self.required):
            if self.options_in_question:
                place.refuse("question", "has no options of the form 'A)..., B)...'")
            name = "options" if "options" in cells else "option_A"
            place.refuse(name, "is missing; every question must have options")
        row = {
            "id": None if cells.get("id") is None else self.id_prefix + text_of(cells["id"], "id", place),
            "question": cells.get("question"),
            "options": options or None,
            "answer": self._answer(cells.get("answer"), options, place),
            "modality": self._modality(cells.get("modality"), place),
            "task": cells.get("task"),
            "metadata": self._metadata(cells, record, place),
        }
        image = _images(cells.get("image"), "image" in self.required, place)
        return row if image is None else {**row, "image": image}

    def _value(self, name: str, record: Record, place: Place) -> Any:
        value = self.constants.get(name) if name in self.constants else value_at(record, self.column(name))
        if _empty(value):
            return None
        if isinstance(value, str) and name in self.patterns:
            value = _first_group(self.patterns[name], value)
        table = self.values.get(name)
        if table is None or name in self.constants:
            return value
        text = text_of(value, name, place)
        fitting = [meant for pattern, meant in table.items() if fnmatchcase(text.upper(), pattern.upper())]
        if not fitting:
            place.refuse(name, f"{text!r} is none of {', '.join(table)}", f"is none of {', '.join(table)}")
        return text if fitting[0] is None else fitting[0]

    def _options(self, cells: dict[str, Any], place: Place) -> tuple[str, ...]:
        listed = _listed(cells.get("options"), self.option_separator, "options", place)
        options = options_of({**cells, "options": listed}, place)
        if "options" in self.patterns:
            options = tuple(_first_group(self.patterns["options"], option) for option in options)
        if self.options_in_question and not options and isinstance(cells.get("question"), str):
            cells["question"], options = options_in(cells["question"], place)
        return options or self._yes_no(cells, place)

    def _yes_no(self, cells: Mapping[str, Any], place: Place) -> tuple[str, ...]:
        if not self.yes_no:
            return ()
        answered = str(cells.get("answer")).strip().rstrip(".").casefold() in ("yes", "no")
        kind = text_of(cells.get("answer_type"), "answer_type", place).upper() if "answer_type" in cells else None
        if kind not in ("OPEN", "CLOSED", None):
            place.refuse("answer_type", f"{kind!r} is neither OPEN nor CLOSED", "is neither OPEN nor CLOSED")
        if self.closed_only and kind == "OPEN":
            place.refuse("answer_type", "an open question, and only closed ones were asked for")
        if self.closed_only and not answered:
            place.refuse("answer", "a closed question answered by neither yes nor no, so its options are not known")
        return ("Yes", "No") if answered and kind != "OPEN" else ()

    def _answer(self, value: Any, options: tuple[str, ...], place: Place) -> Any:
        """The answer as `question_from_row` reads it: the letter in brackets, or free text without options."""
        if not options or value is None:
            return value
        letters = option_letters(options)
        if self.answer == "index":
            return f"({letters[_index(value, len(options), place)]})"
        text = text_of(value, "answer", place)
        bare = text.strip("(). ").upper()
        if self.answer == "letter" and bare not in letters:
            problem = f"is no letter from A to {letters[-1]}"
            place.refuse("answer", f"{text!r} {problem}", problem)
        if self.answer == "letter" or (self.answer == "letter_or_text" and bare in letters):
            return f"({bare})"
        return f"({resolve_answer(text, options, place, letters=self.answer == 'auto')})"

    def _modality(self, given: str | None, place: Place) -> str | None:
        if given is None:
            return None
        known = canonical_modality(given)
        if known is None and self.known_modalities:
            problem = f"is none of {', '.join(MODALITIES)}"
            place.refuse("modality", f"{given!r} {problem}; remove the row", problem)
        return known or given

    def _metadata(self, cells: Mapping[str, Any], record: Record, place: Place) -> dict[str, Any]:
        kept = {column: record[column] for column in self.metadata if record.get(column) not in (None, "", "NULL")}
        if cells.get("dataset") is not None:
            kept["dataset"] = cells["dataset"]
        if cells.get("split") is not None:
            if cells["split"].lower() not in SPLIT_NAMES:
                place.refuse("split", "is none of train, validation (val, dev), test")
            kept["split"] = SPLIT_NAMES[cells["split"].lower()]
        return kept


@dataclass(frozen=True, slots=True)
class Preset:
    """The layout of a published data set, or of the rows of another trainer."""

    map: TableMap
    title: str | None = None  # names the data set in its card; None for a layout of many data sets
    license: str = "unknown"  # of its images
    question_files: Sequence[Sequence[str]] = ()  # names of files to look for, in order of preference
    image_folders: Sequence[str] = ()  # names of folders to look for, in order of preference
    notes: Sequence[str] = ()  # sentences for the data card


def load_preset(name: str) -> Preset:
    """The preset `name`; a ConfigError lists the names where there is none of this one."""
    entries: Mapping[str, Any] = yaml.safe_load((files(__package__) / "presets.yaml").read_text(encoding="utf-8"))
    if name not in entries:
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(entries)}")
    return Preset(**{**entries[name], "map": TableMap(**entries[name]["map"])})


def _without(fields: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def value_at(record: Any, path: str) -> Any:
    """What `record` has at a column or a dotted path, see `TableMap`; None where there is nothing."""
    if isinstance(record, Mapping) and path in record:
        return record[path]
    value = record
    for name in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list | tuple) and re.fullmatch(r"-?\d+", name):
            value = value[int(name)] if -len(value) <= int(name) < len(value) else None
        elif isinstance(value, list | tuple):
            value = next((one for one in reversed(value) if isinstance(one, Mapping) and one.get("role") == name), None)
        else:
            return None
    return value


def _empty(value: Any) -> bool:
    """Whether a cell has nothing in it; tables made with pandas write NaN where a text is missing."""
    return not value.strip() if isinstance(value, str) else value is None or value != value


def _first_group(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.DOTALL | re.IGNORECASE)
    return found.group(1).strip() if found else text


def _listed(value: Any, separator: str | None, name: str, place: Place) -> Sequence[Any] | None:
    """The list that a cell holds: as such, as a record of letters, as JSON text, or as text with separators."""
    if isinstance(value, str) and separator is not None:
        return [part.strip() for part in value.split(separator)]
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (json.JSONDecodeError, RecursionError):
        place.refuse(name, "one text that is no JSON list; say which separator stands between the options")
    if isinstance(value, Mapping):
        # A record read from Parquet has the letters of all rows, those without an option as None.
        value = {letter: text for letter, text in value.items() if text is not None}
        if tuple(value) != option_letters(tuple(value)):
            place.refuse(name, "a record whose names are not A, B, C, ... in order")
        return list(value.values())
    if value is not None and not isinstance(value, list | tuple):
        place.refuse(name, "is not a list")
    return value


def _images(value: Any, required: bool, place: Place) -> Any:
    """What stands for the image or images of a row; a list may come as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _listed(value, None, "image", place)
    if required and value is None:
        place.refuse("image", "is missing or empty")
    if required and isinstance(value, list | tuple) and not value:
        place.refuse("image", "is an empty list")
    return value


def _index(value: Any, count: int, place: Place) -> int:
    try:
        # Tables made with pandas write whole numbers as "2.0" where a column has gaps.
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not number.is_integer() or not 0 <= number < count:
        problem = f"{value!r:.80} is no whole number from 0 to {count - 1}"
        place.refuse("answer", problem, "is not the index of an option")
    return int(number)
