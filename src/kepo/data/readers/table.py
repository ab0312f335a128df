"""Where the fields of a question stand in a table, and how they are written: a map of the user, or of a preset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeAlias

from kepo.data.omnimedvqa import MODALITIES, canonical_modality
from kepo.data.readers.answers import ANSWER_FORMS, AnswerForm, AnswerPlace, answer_among, bare_answer, counted_from
from kepo.data.readers.cells import decoded_images, images_in_parts, images_of, listed, spoken, turns_of, value_at
from kepo.data.readers.layouts import columns_there
from kepo.data.readers.marks import option_text, without_letters, without_placeholders
from kepo.data.readers.rows import Record, Table
from kepo.data.readers.texts import SPLIT_NAMES, options_in, split_of_name
from kepo.data.schema import Place, metadata_of, options_of, text_of
from kepo.data.sources import is_empty
from kepo.errors import ConfigError

ColumnPath: TypeAlias = str | Sequence[str]

_OTHER_FIELDS = (
    "question", "answer", "options", "image", "id", "modality", "task", "dataset", "split", "answer_type", "context"
)  # fmt: skip
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
            letter or a text; what could be both is refused), "letter_or_text" (what could be both is a letter),
            "index_from_1" or "index_found" (from 0 or from 1, as the answers of the whole table tell). Without options
            an answer is free text.
        answer_in: Where the answer stands in its text: "boxed" (the last `\\boxed{}`) or "hashes" (after `####`).
        option_separator: Between the options where they stand in one text that is no list; None: they are a list, as
            such or as text (JSON, or as Python prints it).
        options_in_question: Options may stand at the end of the question's text: `What is it? A)CT, B)MRI`, or each on
            a line of its own.
        one_turn: Refuse conversations with more than one message of the role that asks.
        image_columns: Columns of one image each, empty where a row has fewer, instead of the field `image`.
        images_as_text: Images are base64 texts; a short text is the id of an earlier row with the same image.
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
    answer_in: AnswerPlace | None = None
    one_turn: bool = False
    image_columns: Sequence[str] = ()
    images_as_text: bool = False
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
        if self.answer not in ANSWER_FORMS:
            raise ConfigError(f"answer {self.answer!r} is unknown; use one of {', '.join(ANSWER_FORMS)}")
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
            image_columns=() if "image" in said else preset.image_columns,
        )

    def resolved(self, table: Table, needed: Sequence[str] = ("question", "answer")) -> TableMap:
        """The map with one column, which `table` has, for every field of it.

        Raises:
            ConfigError: a column that the table lacks, a field of `needed` that stands nowhere, or options twice.
        """
        present = table.columns()
        columns: dict[str, str] = {}
        for name, given in self.columns.items():
            paths = [given] if isinstance(given, str) else list(given)
            found = next((path for path in paths if path in present or path.partition(".")[0] in present), None)
            if found is not None:
                columns[name] = found
            elif isinstance(given, str):
                raise ConfigError(f"{table.path} has no column {given!r} (for {name}); {columns_there(present)}")
        said = {*self.columns, *self.constants, "answer_type", "context"}
        if self.options_in_question or said & _ALL_OPTIONS:
            # A map that says where the options are says it for all of them.
            said |= _ALL_OPTIONS
        if self.image_columns:
            said.add("image")
        columns = {**{name: name for name in _FIELDS if name in present and name not in said}, **columns}
        known = {*columns, *self.constants}
        for name in needed:
            if name not in known:
                tried = self.columns.get(name, ())
                if tried:
                    raise ConfigError(
                        f"{table.path} has no column {' or '.join(tried)} (for {name}); {columns_there(present)}"
                    )
                advice = f"name the column ({name}=COLUMN) or one value for all rows; {columns_there(present)}"
                raise ConfigError(f"{table.path}: it is not said where {name} stands; {advice}")
        if "options" in known and known & set(_OPTION_FIELDS):
            raise ConfigError("options stand in 'options' and in lettered columns as well; map one of the two")
        # What a preset requires "where there is such a column" is not missing in a table without it.
        optional = {name for name, given in self.columns.items() if not isinstance(given, str)} - known
        answer = self.answer
        if answer == "index_found":
            answer = counted_from(table, columns["answer"], sum(name in columns for name in _OPTION_FIELDS))
        made = replace(
            self,
            columns=columns,
            answer=answer,
            required=[name for name in self.required if name not in optional],
            image_columns=[column for column in self.image_columns if column in present],
        )
        return made.with_split_of(table.path)

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
        columns = map(self.column, self.columns)
        return tuple(dict.fromkeys((*columns, *self.image_columns, *self.where, *self.metadata, "metadata")))

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
        question = spoken(cells.get("question"))
        if isinstance(question, str):
            context = "" if is_empty(cells.get("context")) else text_of(spoken(cells["context"]), "context", place)
            question = without_placeholders(f"{context}\n{question}" if context else question)
        row = {
            "id": None if cells.get("id") is None else self.id_prefix + text_of(cells["id"], "id", place),
            "question": question,
            "options": options or None,
            "answer": answer_among(
                bare_answer(cells.get("answer"), self.answer_in, place), options, self.answer, place
            ),
            "modality": self._modality(cells.get("modality"), place),
            "task": cells.get("task"),
            "metadata": self._metadata(cells, record, place),
        }
        image = self._images(cells, record, place)
        return row if image is None else {**row, "image": image}

    def _images(self, cells: Mapping[str, Any], record: Record, place: Place) -> Any:
        given = [record.get(column) for column in self.image_columns] if self.image_columns else cells.get("image")
        if is_empty(given) and "question" in self.columns:
            given = images_in_parts(record, self.column("question"))
        image = images_of(given, "image" in self.required, place)
        return decoded_images(image, place) if self.images_as_text else image

    def _value(self, name: str, record: Record, place: Place) -> Any:
        value = self.constants.get(name) if name in self.constants else value_at(record, self.column(name))
        if self.one_turn and name == "question" and turns_of(record, self.column(name)) > 1:
            problem = f"{turns_of(record, self.column(name))} questions in one conversation; give each a row of its own"
            place.refuse(name, problem, "several questions in one conversation")
        if is_empty(value):
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
        options = options_of(
            {**cells, "options": listed(cells.get("options"), self.option_separator, "options", place)}, place
        )
        if "options" in self.patterns:
            options = tuple(_first_group(self.patterns["options"], option) for option in options)
        if self.options_in_question and not options and isinstance(spoken(cells.get("question")), str):
            cells["question"], options = options_in(spoken(cells["question"]), place)
        return without_letters([option_text(option) for option in options]) or self._yes_no(cells, place)

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

    def _modality(self, given: str | None, place: Place) -> str | None:
        if given is None:
            return None
        known = canonical_modality(given)
        if known is None and self.known_modalities:
            problem = f"is none of {', '.join(MODALITIES)}"
            place.refuse("modality", f"{given!r} {problem}; remove the row", problem)
        return known or given

    def _metadata(self, cells: Mapping[str, Any], record: Record, place: Place) -> dict[str, Any]:
        given = record.get("metadata")
        is_record = isinstance(given, Mapping) or (isinstance(given, str) and given.lstrip().startswith("{"))
        kept = {column: record[column] for column in self.metadata if record.get(column) not in (None, "", "NULL")}
        kept = {**(metadata_of(given, place) if is_record else {}), **kept}
        if cells.get("dataset") is not None:
            kept["dataset"] = cells["dataset"]
        if cells.get("split") is not None:
            if cells["split"].lower() not in SPLIT_NAMES:
                place.refuse("split", "is none of train, validation (val, dev), test")
            kept["split"] = SPLIT_NAMES[cells["split"].lower()]
        return kept


def _without(fields: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _first_group(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.DOTALL | re.IGNORECASE)
    return found.group(1).strip() if found else text
