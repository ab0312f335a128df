"""Any table as questions, by a map from the fields of a question to its columns (or to one value for all rows)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, TypeAlias, get_args

from kepo.data.images import ImageRoot
from kepo.data.omnimedvqa import canonical_modality, image_at
from kepo.data.records import Record, TableFile
from kepo.data.schema import Place, RowError, claim_id, options_of, question_from_row, resolve_answer
from kepo.data.sources import Source, Unusable, shortened
from kepo.data.stored_images import keep_image
from kepo.errors import ConfigError, DataError
from kepo.types import Question, option_letters

AnswerForm: TypeAlias = Literal["auto", "letter", "text", "index"]

_OPTION_FIELDS = tuple(f"option_{letter}" for letter in ascii_uppercase)
FIELDS = ("question", "answer", "options", *_OPTION_FIELDS, "image", "id", "modality", "task", "dataset", "split")
"""What a column or a constant can be mapped to."""

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, slots=True)
class TableMap:
    """Where the fields of a question stand in a table.

    A field that is neither in `columns` nor in `constants` is read from the column of its own name, if there is one.

    Attributes:
        columns: Field (see `FIELDS`) -> column.
        constants: Field -> the value of all rows.
        answer: How answers are written: "letter" ("B", "(b)"), "text" (that of an option), "index" (from 0), or "auto"
            (a letter or a text). Without options an answer is free text.
        option_separator: Between the options where they stand in one text; None: they are a list, or JSON.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    answer: AnswerForm = "auto"
    option_separator: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a map that cannot work."""
        if self.answer not in get_args(AnswerForm):
            raise ConfigError(f"answer {self.answer!r} is unknown; use one of {', '.join(get_args(AnswerForm))}")
        for name in (*self.columns, *self.constants):
            if name not in FIELDS:
                raise ConfigError(
                    f"a question has no field {name!r}; there are question, answer, options, option_A to option_Z, "
                    f"{', '.join(FIELDS[-6:])}"
                )
        both = [name for name in self.columns if name in self.constants]
        if both:
            raise ConfigError(f"{both[0]!r} is given as a column and as a constant; keep one of them")
        if self.option_separator == "":
            raise ConfigError("the option separator is empty; give the text that stands between two options")

    def resolved(self, table: TableFile) -> TableMap:
        """The map with every field of this table in it.

        Raises:
            ConfigError: a column that the table lacks, a field that must be there and is not, or options twice.
        """
        present = table.columns()
        listed = ", ".join(present) or "none"
        for name, column in self.columns.items():
            if column not in present:
                raise ConfigError(f"{table.path} has no column {column!r} (for {name}); its columns are {listed}")
        own = {name: name for name in FIELDS if name in present and name not in self.constants}
        if any(name == "options" or name in _OPTION_FIELDS for name in (*self.columns, *self.constants)):
            # A map that says where the options are says it for all of them.
            own = {name: column for name, column in own.items() if name != "options" and name not in _OPTION_FIELDS}
        columns = {**own, **self.columns}
        known = {*columns, *self.constants}
        for name in ("question", "answer", "modality"):
            if name not in known:
                raise ConfigError(
                    f"{table.path}: it is not said where {name} stands; name the column ({name}=COLUMN) or one value "
                    f"for all rows; its columns are {listed}"
                )
        if "options" in known and known & set(_OPTION_FIELDS):
            raise ConfigError("options stand in 'options' and in lettered columns as well; map one of the two")
        return replace(self, columns=columns)


def table_source(
    table: TableFile, table_map: TableMap, image_root: Path | None, keep_images_in: Path, licence: str = "unknown"
) -> Source:
    """The questions of a table.

    Args:
        table: The file.
        table_map: Where the fields of a question stand in it.
        image_root: The folder that image paths are relative to and may not leave; None: the folder of the file.
        keep_images_in: A folder for images that stand in the table itself (Parquet), which must stay until the images
            have been read; each is written once, under a name made of its content.
        licence: Of the images, for the data card.

    Raises:
        ConfigError: a map that does not fit the table; the message lists the columns that exist.
        DataError: a file that is not what its name says. A row that cannot be used is `Unusable`.
    """
    resolved = table_map.resolved(table)
    root = image_root or table.path.parent
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; check the image root")
    reader = _Reader(table, resolved, ImageRoot(root), keep_images_in)
    return Source(
        name=table.path.stem,
        rows=reader.rows(),
        files=(table.path,),
        licences=dict.fromkeys(reader.datasets(), licence),
        options={**asdict(resolved), "encoding": table.encoding, "delimiter": table.delimiter, "licence": licence},
        split_given="split" in resolved.columns or "split" in resolved.constants,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    table: TableFile
    map: TableMap
    root: ImageRoot
    keep_images_in: Path

    def rows(self) -> Iterator[Question | Unusable]:
        seen: dict[str, int] = {}
        for number, record in self.table.rows(tuple(dict.fromkeys(self.map.columns.values()))):
            yield record if isinstance(record, Unusable) else self._row(record, number, seen)

    def datasets(self) -> list[str]:
        """The names of all data sets in the table."""
        column = self.map.columns.get("dataset")
        if column is None:
            return [self.map.constants.get("dataset", self.table.path.stem)]
        values = (record.get(column) for _, record in self.table.rows((column,)) if not isinstance(record, Unusable))
        return list(dict.fromkeys(str(value).strip() for value in values if not _empty(value)))

    def _row(self, record: Record, number: int, seen: dict[str, int]) -> Question | Unusable:
        place = Place(self.table.path.name, number)
        try:
            question = self._question(record, place)
            claim_id(question.id, seen, place, "id")
            return question
        except RowError as error:
            column = self.map.columns.get(error.field, error.field)
            value = record.get(column, self.map.constants.get(error.field))
            return Unusable(error.source, error.row, column, error.reason, shortened(value))

    def _question(self, record: Record, place: Place) -> Question:
        cells: dict[str, Any] = dict(self.map.constants)
        for name, column in self.map.columns.items():
            cells[name] = None if _empty(record.get(column)) else record[column]
        cells["options"] = _listed(cells.get("options"), self.map.option_separator, "options", place)
        options = options_of(cells, place)
        modality = _given(cells, "modality", place)
        question = question_from_row(
            {
                **{name: cells.get(name) for name in ("id", "question", "task")},
                "options": options or None,
                "answer": _answer(cells.get("answer"), options, self.map.answer, place),
                "modality": canonical_modality(modality) or modality,
                "metadata": self._metadata(cells, place),
            },
            source=place.source,
            index=place.row,
            image_root=None,
        )
        if "image" not in cells:
            return question
        return replace(question, images=self._images(cells["image"], place))

    def _metadata(self, cells: Mapping[str, Any], place: Place) -> dict[str, Any]:
        known = "dataset" in self.map.columns
        dataset = _given(cells, "dataset", place) if known else cells.get("dataset", self.table.path.stem)
        metadata = {"dataset": dataset, "file": place.source, "row": place.row}
        if isinstance(cells.get("image"), str):
            metadata["image"] = cells["image"]
        if "split" in cells:
            given = _given(cells, "split", place)
            if given.lower() not in _SPLIT_NAMES:
                place.refuse("split", "is none of train, validation (val, dev), test")
            metadata["split"] = _SPLIT_NAMES[given.lower()]
        return metadata

    def _images(self, value: Any, place: Place) -> tuple[Path, ...]:
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _listed(value, None, "image", place)
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            place.refuse("image", "is an empty list")
        return tuple(self._image(each, place) for each in values)

    def _image(self, value: Any, place: Place) -> Path:
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(data, bytes) and data:
            return keep_image(data, self.keep_images_in)
        name = value.get("path") if isinstance(value, Mapping) else value
        if not isinstance(name, str) or not name.strip():
            place.refuse("image", "is missing, empty or neither a path nor an image")
        (image,) = image_at(name.strip(), self.root, place, "image")
        return image


def _empty(value: Any) -> bool:
    """Whether a cell has nothing in it; tables made with pandas write NaN where a text is missing."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def _given(cells: Mapping[str, Any], name: str, place: Place) -> str:
    value = cells.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        place.refuse(name, "is missing, empty or not a text")
    return str(value).strip()


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


def _answer(value: Any, options: tuple[str, ...], form: AnswerForm, place: Place) -> Any:
    """The answer in the form that `question_from_row` reads: the letter in brackets, or free text without options."""
    if not options or value is None:
        return value
    letters = option_letters(options)
    if form == "index":
        return f"({letters[_index(value, len(options), place)]})"
    text = _given({"answer": value}, "answer", place)
    if form == "letter":
        letter = text.strip("(). ").upper()
        if letter not in letters:
            place.refuse("answer", f"is no letter from A to {letters[-1]}")
        return f"({letter})"
    return f"({resolve_answer(text, options, place, 'answer', letters=form == 'auto')})"


def _index(value: Any, count: int, place: Place) -> int:
    try:
        # Tables made with pandas write whole numbers as "2.0" where a column has gaps.
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not number.is_integer() or not 0 <= number < count:
        place.refuse("answer", f"is no whole number from 0 to {count - 1}", reason="is not the index of an option")
    return int(number)
