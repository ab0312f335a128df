"""From rows to questions: for `kepo prepare`, which lists the rows that cannot be used, and for training, which raises.

`read_rows` is the only reader of rows. It yields an `Unusable` where no question can be made of a row; strict reading
is `kepo.data.sources.strict` around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kepo.data.images import ImageRoot
from kepo.data.readers.cells import asks_for_images, listed, spoken, value_at
from kepo.data.readers.layouts import check_own_columns, fitting_presets
from kepo.data.readers.marks import (
    answer_in_tags,
    chosen,
    option_text,
    placeholders_in,
    without_letters,
    without_placeholders,
)
from kepo.data.readers.presets import load_preset
from kepo.data.readers.rows import Record, Table, TableFile
from kepo.data.readers.saved import DatasetFolder, HubDataset
from kepo.data.readers.table import TableMap
from kepo.data.schema import Place, RowError, claim_id, options_of, question_from_row
from kepo.data.sources import Source, Unusable, is_empty, shortened, strict
from kepo.errors import DataError
from kepo.types import Question

_ALWAYS_NAMED = ("columns", "constants", "answer", "option_separator")
_OWN = TableMap({"question": ("question", "text"), "image": ("image", "images")})


def load_table(
    path: str | Path,
    image_root: Path | None = None,
    *,
    kind: str | None = None,
    preset: str | None = None,
    columns: TableMap | None = None,
) -> list[Question]:
    """Questions of a CSV, TSV, JSON lines, JSON or Parquet file.

    Args:
        path: The file; text is UTF-8.
        image_root: The folder that image paths are relative to; None: the folder of the file.
        kind: "csv", "tsv", "jsonl", "json" or "parquet"; None: as the name of the file ends.
        preset: The layout of the rows, see `presets.yaml`; None: the columns of `kepo.data.schema`, or those of TRL.
        columns: What is said about columns and answers, over the preset's.

    Raises:
        ConfigError, DataError: a preset that does not fit, or a row that cannot be used (file, row, field and value).
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; check data_path")
    return _load(TableFile(file, kind=kind), preset, columns, image_root or file.parent)


def load_dataset_folder(
    path: str | Path,
    split: str | None = None,
    image_root: Path | None = None,
    *,
    preset: str | None = None,
    columns: TableMap | None = None,
) -> list[Question]:
    """Questions of a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Args:
        path: The folder; also the folder of one data set inside that of a `DatasetDict`.
        split: Which data set of a `DatasetDict`; may be left out if it has only one.
        image_root: The folder that image paths are relative to; None: the folder itself, or that of the `DatasetDict`.
        preset: As in `load_table`.
        columns: As in `load_table`.
    """
    folder = DatasetFolder(Path(path), split)
    return _load(folder, preset, columns, image_root or folder.home())


def load_hub_dataset(
    name: str,
    split: str | None = None,
    config: str | None = None,
    image_root: Path | None = None,
    *,
    preset: str | None = None,
    columns: TableMap | None = None,
) -> list[Question]:
    """Questions of a data set OWNER/NAME of the Hugging Face hub, or of its cache.

    Args:
        name: The data set.
        split: Which split; may be left out if there is only one.
        config: Which of its configurations; may be left out if there is only one.
        image_root: The folder that image paths are relative to; None: rows with paths are refused.
        preset: As in `load_table`.
        columns: As in `load_table`.
    """
    return _load(HubDataset(name, split, config), preset, columns, image_root)


def _load(table: Table, preset: str | None, said: TableMap | None, image_root: Path | None) -> list[Question]:
    present = table.columns()
    unsaid = preset is None and said is None and not {"question", "text"} & set(present)
    if unsaid and "trl" in fitting_presets(present)[:1]:
        preset = "trl"
    table_map = load_preset(preset).map if preset is not None else None
    if said is not None:
        table_map = said.over(table_map or _OWN)
    elif table_map is None:
        if present:
            check_own_columns(table.path, present)
        # Cells of text hold lists as text.
        table_map = _OWN if isinstance(table, TableFile) and table.is_text else None
    if table_map is not None and present:
        table_map = table_map.resolved(table)
    images = None if image_root is None else ImageRoot(image_root)
    return strict(read_rows(table, table_map, images), [table.path])


def _own_row(record: Record, place: Place) -> dict[str, Any]:
    """A row in the columns of `kepo.data.schema`, without the marks that other tools leave in texts."""
    row = dict(record)
    if isinstance(row.get("options"), str | Mapping | list):
        row["options"] = listed(row["options"], None, "options", place) if not is_empty(row["options"]) else None
    options = options_of(row, place)
    if options:
        options = without_letters([option_text(option) for option in options])
        row["options"] = options
    for field in ("question", "text"):
        if isinstance(row.get(field), str):
            row[field] = without_placeholders(row[field])
    if isinstance(row.get("answer"), str):
        answer = answer_in_tags(row["answer"])
        row["answer"] = chosen(answer, options) if options else answer
    return row


def read_rows(
    table: Table,
    table_map: TableMap | None,
    images: ImageRoot | None,
    *,
    seen: dict[str, Place] | None = None,
    keep_images_in: Path | None = None,
    origin: bool = False,
    shown: str | None = None,
    with_images: bool = True,
) -> Iterator[Question | Unusable]:
    """A question, or the record of what is wrong, for every row.

    Args:
        table: The file or folder.
        table_map: Resolved for this table; None: the rows have the columns of `kepo.data.schema`.
        images: The folder that image paths are relative to and may not leave; None: paths are refused.
        with_images: False: images are left out.
        seen: The ids of the tables read before, which these must not repeat; those of this one are added.
        keep_images_in: Folder for images that stand in the rows themselves; None: they are decoded.
        origin: Keep `file`, `row`, the name of the `image` and, where there is none, a `dataset` in the metadata.
        shown: Names the table in ids, metadata and records of problems; None: the name of its file.
    """
    seen = {} if seen is None else seen
    shown = shown or table.path.name
    by_id: dict[str, tuple[Any, ...]] = {}
    for number, record in table.rows(None if table_map is None else table_map.reads()):
        if isinstance(record, Unusable):
            yield replace(record, source=shown)
            continue
        place = Place(shown, number)
        try:
            row = _own_row(record, place) if table_map is None else table_map.row(record, place)
            if not with_images:
                row = {**row, "image": None, "images": None}
            if table_map is not None and table_map.images_as_text:
                question = _with_image_of_another(row, place, by_id, keep_images_in, images)
            else:
                question = question_from_row(row, place, images, keep_images_in)
            if with_images and not question.images and _shows_images(record, table_map):
                place.refuse(
                    "image", "is missing, but the question has a place for it; correct the column of the image"
                )
            claim_id(question.id, seen, place)
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


def _shows_images(record: Record, table_map: TableMap | None) -> bool:
    """Whether the question, as it stands in the table, has a place for an image."""
    columns = ("question", "text") if table_map is None else (table_map.column("question"),)
    texts = [spoken(value_at(record, column)) for column in columns]
    in_text = any(isinstance(text, str) and placeholders_in(text) for text in texts)
    return in_text or any(asks_for_images(record, column) for column in columns)


def _with_image_of_another(
    row: Record, place: Place, by_id: dict[str, tuple[Any, ...]], keep_in: Path | None, images: ImageRoot | None
) -> Question:
    """The question of a row whose image may be the id of an earlier row that has the image."""
    other = row.get("image")
    found = by_id.get(other) if isinstance(other, str) else None
    if found is None and isinstance(other, str) and other.isdigit():
        problem = "the index of another row, which does not come before it or is unusable"
        place.refuse("image", f"{other} is {problem}; move that row up", f"is {problem}")
    question = question_from_row(row if found is None else {**row, "image": None}, place, images, keep_in)
    question = question if found is None else replace(question, images=found)
    by_id[question.id] = question.images
    return question


def read_tables(
    tables: Sequence[TableFile], maps: Sequence[TableMap], images: ImageRoot, keep_images_in: Path | None
) -> Iterator[Question | Unusable]:
    """The rows of several tables with a resolved map each, as `kepo prepare` needs them."""
    seen: dict[str, Place] = {}
    for table, table_map in zip(tables, maps, strict=True):
        mapped = (name for name in ("modality", "dataset", "split", "image") if name in table_map.columns)
        strict_map = replace(table_map, required=tuple(dict.fromkeys((*table_map.required, *mapped))))
        yield from read_rows(table, strict_map, images, seen=seen, keep_images_in=keep_images_in, origin=True)


def table_source(
    tables: Sequence[TableFile],
    table_map: TableMap,
    image_root: Path | None,
    keep_images_in: Path,
    *,
    license: str = "unknown",
    name: str | None = None,
    notes: Sequence[str] = (),
) -> Source:
    """The questions of one or more tables, for `kepo prepare`; a ConfigError where the map does not fit a table.

    Args:
        tables: The files, at least one.
        table_map: Where the fields of a question stand in them.
        image_root: The folder that image paths are relative to and may not leave; None: the folder of the first file.
        keep_images_in: A folder for images in the table itself (Parquet), which must stay until the images are read.
        license: Of the images, for the data card.
        name: Of the data set; None: that of the first file.
        notes: Sentences for the data card.
    """
    maps = [table_map.resolved(table, ("question", "answer", "modality")) for table in tables]
    root = image_root or tables[0].path.parent
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; check the image root")
    unset = asdict(TableMap())
    said = {key: value for key, value in asdict(maps[0]).items() if key in _ALWAYS_NAMED or value != unset[key]}
    return Source(
        name=name or tables[0].path.stem,
        rows=read_tables(tables, maps, ImageRoot(root), keep_images_in),
        files=tuple(table.path for table in tables),
        license_of=lambda dataset: license,
        notes=tuple(notes),
        # The names of these options are compared with those of folders that were prepared before.
        options={**said, "encoding": tables[0].encoding, "delimiter": tables[0].delimiter, "licence": license},
        split_given=all("split" in one.columns or "split" in one.constants for one in maps),
    )
