"""Any table as questions, by a map from the fields of a question to its columns (or to one value for all rows).

`read_rows` is the only reader of rows there is. It is tolerant: what no question can be made of is yielded as
`Unusable`. Strict reading is `kepo.data.sources.strict` around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, TypeAlias, get_args

from kepo.data.images import ImageRoot
from kepo.data.omnimedvqa import MODALITIES, canonical_modality
from kepo.data.readers.rows import DatasetFolder, Record, TableFile
from kepo.data.readers.texts import SPLIT_NAMES, options_in, split_of_name
from kepo.data.schema import Place, RowError, claim_id, options_of, question_from_row, resolve_answer, text_of
from kepo.data.sources import Source, Unusable, shortened
from kepo.errors import ConfigError, DataError
from kepo.types import Question, option_letters

AnswerForm: TypeAlias = Literal["auto", "letter", "text", "index", "letter_or_text"]
ColumnPath: TypeAlias = str | Sequence[str]
Table: TypeAlias = TableFile | DatasetFolder

_OPTION_FIELDS = tuple(f"option_{letter}" for letter in ascii_uppercase)
_OTHER_FIELDS = ("question", "answer", "options", "image", "id", "modality", "task", "dataset", "split", "answer_type")
FIELDS = (*_OTHER_FIELDS, *_OPTION_FIELDS)
"""What a column or a constant can be mapped to."""

_YES_NO = ("Yes", "No")


@dataclass(frozen=True, slots=True)
class TableMap:
    """Where the fields of a question stand in a table.

    A field that is neither in `columns` nor in `constants` is read from the column of its own name, if there is one. A
    column is a name or a dotted path into records and lists, such as `reward_model.ground_truth`; in a list a number
    is a place (`messages.-1.content`), a name the last message of that role (`messages.user.content`).

    Attributes:
        columns: Field (see `FIELDS`) -> column, or several of which the first that the table has is read.
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
            if name not in FIELDS:
                raise ConfigError(
                    f"a question has no field {name!r}; there are {', '.join(_OTHER_FIELDS)}, option_A to option_Z"
                )
        both = [name for name in self.columns if name in self.constants]
        if both:
            raise ConfigError(f"{both[0]!r} is given as a column and as a constant; keep one of them")
        if self.option_separator == "":
            raise ConfigError("the option separator is empty; give the text that stands between two options")

    def over(self, preset: TableMap) -> TableMap:
        """`preset`, with what this map says about columns, constants and answers in its place."""
        said = {*self.columns, *self.constants}
        if any(name in ("options", *_OPTION_FIELDS) for name in said):
            said.update(("options", *_OPTION_FIELDS))
        kept = {name: column for name, column in preset.columns.items() if name not in said}
        constants = {name: value for name, value in preset.constants.items() if name not in said}
        return replace(
            preset,
            columns={**kept, **self.columns},
            constants={**constants, **self.constants},
            answer=preset.answer if self.answer == "auto" else self.answer,
            option_separator=self.option_separator or preset.option_separator,
        )

    def resolved(self, table: Table, needed: Sequence[str] = ("question", "answer")) -> TableMap:
        """The map with one column, which this table has, for every field of it.

        Args:
            table: What is to be read.
            needed: Fields that must stand somewhere.

        Raises:
            ConfigError: a column that the table lacks, a field that must be there and is not, or options twice.
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
        said = {*self.columns, *self.constants}
        own = {name: name for name in FIELDS if name in present and name not in said and name != "answer_type"}
        if self.options_in_question or any(name in ("options", *_OPTION_FIELDS) for name in said):
            # A map that says where the options are says it for all of them.
            own = {name: column for name, column in own.items() if name not in ("options", *_OPTION_FIELDS)}
        columns = {**own, **columns}
        known = {*columns, *self.constants}
        for name in needed:
            if name not in known:
                raise ConfigError(
                    f"{table.path}: it is not said where {name} stands; name the column ({name}=COLUMN) or one value "
                    f"for all rows; its columns are {listed}"
                )
        if "options" in known and known & set(_OPTION_FIELDS):
            raise ConfigError("options stand in 'options' and in lettered columns as well; map one of the two")
        return replace(self, columns=columns).with_split_of(table.path)

    def with_split_of(self, path: Path) -> TableMap:
        """The map with the split that the name of a file says, where that is how it is said."""
        split = split_of_name(path) if self.split_by_name else None
        if split is None:
            return self
        columns = {name: column for name, column in self.columns.items() if name != "split"}
        return replace(self, columns=columns, constants={**self.constants, "split": split})

    def column(self, name: str) -> str:
        """The column of a field, for messages; the field itself where it has none."""
        column = self.columns.get(name, name)
        return column if isinstance(column, str) else column[0]

    def reads(self) -> tuple[str, ...]:
        """The columns, or dotted paths, that this map needs; it is resolved."""
        return tuple(dict.fromkeys((*map(self.column, self.columns), *self.where, *self.metadata)))

    def row(self, record: Record, place: Place) -> dict[str, Any]:
        """The row in the columns of `kepo.data.schema`.

        Raises:
            RowError: a field of the row cannot be used.
        """
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
        return _YES_NO if answered and kind != "OPEN" else ()

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
        return f"({resolve_answer(text, options, place, 'answer', letters=self.answer == 'auto')})"

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


def read_rows(
    table: Table,
    table_map: TableMap | None,
    images: ImageRoot | None,
    *,
    seen: dict[str, Place] | None = None,
    keep_images_in: Path | None = None,
    origin: bool = False,
    shown: str | None = None,
) -> Iterator[Question | Unusable]:
    """A question, or the record of what is wrong, for every row.

    Args:
        table: Where the rows are.
        table_map: Resolved for this table; None: the rows have the columns of `kepo.data.schema`.
        images: The folder that image paths are relative to and may not leave; None: images of a map are left out.
        seen: The ids of the tables read before, which these must not repeat; those of this one are added.
        keep_images_in: Folder for images that stand in the rows themselves; None: they are decoded.
        origin: Keep `file`, `row`, the name of the `image` and, where there is none, a `dataset` in the metadata.
        shown: Names the table in ids, metadata and records of problems; None: the name of its file.
    """
    seen = {} if seen is None else seen
    shown = shown or table.path.name
    for number, record in table.rows(None if table_map is None else table_map.reads()):
        if isinstance(record, Unusable):
            yield replace(record, source=shown)
            continue
        place = Place(shown, number)
        try:
            row = record if table_map is None else table_map.row(record, place)
            if table_map is not None and images is None:
                row = {**row, "image": None}
            question = question_from_row(
                row, source=shown, index=number, image_root=images, keep_images_in=keep_images_in
            )
            claim_id(question.id, seen, place, "id")
        except RowError as error:
            column = error.field if table_map is None else table_map.column(error.field)
            constant = "" if table_map is None else table_map.constants.get(error.field, "")
            value = record[column] if column in record else value_at(record, column) or constant
            yield Unusable(shown, number, column, error.reason, shortened(value), error.problem)
            continue
        if origin:
            origins: dict[str, Any] = {"dataset": table.path.stem, **question.metadata, "file": shown, "row": number}
            name = None
            if table_map is not None:
                name = table_map.constants.get("image") or value_at(record, table_map.column("image"))
            question = replace(question, metadata={**origins, "image": name} if isinstance(name, str) else origins)
        yield question


def table_source(
    tables: Sequence[TableFile],
    table_map: TableMap,
    image_root: Path | None,
    keep_images_in: Path,
    *,
    license: str = "unknown",
    name: str | None = None,
    notes: tuple[str, ...] = (),
) -> Source:
    """The questions of tables, for `kepo prepare`.

    Args:
        tables: The files, at least one.
        table_map: Where the fields of a question stand in them.
        image_root: The folder that image paths are relative to and may not leave; None: the folder of the first file.
        keep_images_in: A folder for images that stand in the table itself (Parquet), which must stay until the images
            have been read; each is written once, under a name made of its content.
        license: Of the images, for the data card.
        name: Of the data set; None: that of the first file.
        notes: Sentences for the data card.

    Raises:
        ConfigError: a map that does not fit a table; the message lists the columns that exist.
        DataError: a file that is not what its name says. A row that cannot be used is `Unusable`.
    """
    maps = [table_map.resolved(table, ("question", "answer", "modality")) for table in tables]
    root = image_root or tables[0].path.parent
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; check the image root")
    unset = asdict(TableMap())
    said = {key: value for key, value in asdict(maps[0]).items() if key in _ALWAYS_SAID or value != unset[key]}
    return Source(
        name=name or tables[0].path.stem,
        rows=read_tables(tables, maps, ImageRoot(root), keep_images_in),
        files=tuple(table.path for table in tables),
        license_of=lambda dataset: license,
        notes=notes,
        # The names of these options are compared with those of folders that were prepared before.
        options={**said, "encoding": tables[0].encoding, "delimiter": tables[0].delimiter, "licence": license},
        split_given=all("split" in one.columns or "split" in one.constants for one in maps),
    )


_ALWAYS_SAID = ("columns", "constants", "answer", "option_separator")


def read_tables(
    tables: Sequence[TableFile], maps: Sequence[TableMap], images: ImageRoot, keep_images_in: Path | None
) -> Iterator[Question | Unusable]:
    """The rows of several tables with a resolved map each, as `kepo prepare` needs them."""
    seen: dict[str, Place] = {}
    for table, table_map in zip(tables, maps, strict=True):
        mapped = (name for name in ("modality", "dataset", "split", "image") if name in table_map.columns)
        strict_map = replace(table_map, required=tuple(dict.fromkeys((*table_map.required, *mapped))))
        yield from read_rows(table, strict_map, images, seen=seen, keep_images_in=keep_images_in, origin=True)


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
    if isinstance(value, str):
        try:
            value = json.loads(value)
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
        place.refuse(
            "answer", f"{value!r:.80} is no whole number from 0 to {count - 1}", "is not the index of an option"
        )
    return int(number)
