"""Rows of tables: CSV, TSV, JSON lines, JSON, Parquet, `save_to_disk` folders. A row that cannot be read is a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kepo.data.readers.mistaken import check_kind
from kepo.data.sources import Unusable, shortened
from kepo.errors import ConfigError, DataError

Record: TypeAlias = Mapping[str, Any]
Numbered: TypeAlias = Iterator[tuple[int, Record | Unusable]]
"""Rows with their numbers from 1: the line of JSON lines; in CSV the header is row 1, as spreadsheets count."""

_DELIMITERS = {"csv": ",", "tsv": "\t"}
KINDS: tuple[str, ...] = (*_DELIMITERS, "jsonl", "json", "parquet")
"""What a table file can be: the endings of their names, without the dot."""

_PARQUET_BATCH = 64
# No row of CSV is longer than a block.
_CSV_BLOCK = 2**24


@dataclass(frozen=True, slots=True)
class TableFile:
    """A .csv, .tsv, .jsonl, .json (a list of records) or .parquet file."""

    path: Path
    delimiter: str | None = None  # between the cells of a CSV file; None: a comma, in a .tsv file a tab
    encoding: str = "utf-8"  # of a CSV or TSV file; JSON is UTF-8
    kind: str | None = None  # one of `KINDS`; None: as the name of the file ends

    def __post_init__(self) -> None:
        """Raises ConfigError or DataError for a file that is none of these."""
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no such file; check the path")
        if self._kind() not in KINDS:
            endings = ", ".join(f".{kind}" for kind in KINDS)
            raise DataError(f"{self.path}: its name has none of the endings {endings}; rename or convert it")
        if self.delimiter is not None and not (len(self.delimiter) == 1 and self.delimiter.isascii()):
            raise ConfigError(f"the delimiter {self.delimiter!r} is not one ASCII character")
        if self.delimiter is None:
            check_kind(self.path, self._kind())

    def _kind(self) -> str:
        return self.kind or self.path.suffix.lower().removeprefix(".")

    @property
    def is_text(self) -> bool:
        """Whether all cells are texts, as in CSV."""
        return self._kind() in _DELIMITERS

    def columns(self) -> tuple[str, ...]:
        """The names of the columns: of the header, or all that any record has."""
        if self.is_text:
            return self._header()
        if self._kind() == "parquet":
            with _parquet(self.path) as parquet:
                return tuple(parquet.schema_arrow.names)
        records = (record for _, record in self.rows() if not isinstance(record, Unusable))
        return tuple(dict.fromkeys(name for record in records for name in record))

    def rows(self, columns: tuple[str, ...] | None = None) -> Numbered:
        """Every row that is not empty; a DataError where the file as a whole is not what its name says.

        Args:
            columns: Names or dotted paths. Only these are read from Parquet, where others would cost time; None: all.
        """
        if self.is_text:
            return self._csv_rows()
        if self._kind() == "parquet":
            return _parquet_rows(self.path, columns)
        if self._kind() == "jsonl":
            return _jsonl_rows(self.path)
        return ((number, _record(row, self.path, number)) for number, row in enumerate(list_of_rows(self.path), 1))

    def _header(self) -> tuple[str, ...]:
        import pyarrow.lib

        try:
            with self._open_csv(None) as reader:
                header = tuple(name.strip() for name in reader.schema.names)
        except (pyarrow.lib.ArrowInvalid, UnicodeError) as error:
            if "Empty CSV" not in str(error):
                problem = f"the header cannot be read ({error}); check delimiter and encoding"
                raise DataError(f"{self.path}: {problem}") from error
            header = ()
        if not any(header):
            raise DataError(f"{self.path}: there is no header; the first line must name the columns")
        twice = [name for name in header if name and header.count(name) > 1]
        if twice:
            raise DataError(f"{self.path}: the header has the column {twice[0]!r} twice; rename one of them")
        return header

    def _open_csv(self, header: tuple[str, ...] | None, malformed: Any = None) -> Any:
        """A reader in blocks; cells are bytes, so that no text is taken for a number, a date or nothing."""
        import pyarrow
        from pyarrow import csv

        try:
            read = csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK, encoding=self.encoding)
            if header is not None:
                read.column_names, read.skip_rows_after_names = header, 1
            parse = csv.ParseOptions(delimiter=self.delimiter or _DELIMITERS[self._kind()], newlines_in_values=True)
            parse.ignore_empty_lines, parse.invalid_row_handler = False, malformed or (lambda row: "skip")
            convert = csv.ConvertOptions(column_types=dict.fromkeys(header or (), pyarrow.binary()))
            return csv.open_csv(self.path, read, parse, convert)
        except LookupError as error:
            raise ConfigError(f"unknown encoding {self.encoding!r}; use utf-8, latin-1, cp1252, ...") from error

    def _csv_rows(self) -> Numbered:
        import pyarrow.lib

        header = self._header()
        malformed: dict[int, Unusable] = {}

        def note(row: Any) -> str:
            reason = f"{row.actual_columns} cells, where the header has {row.expected_columns} columns"
            malformed[row.number] = Unusable(self.path.name, row.number, "", reason, shortened(row.text))
            return "skip"

        number, last = 1, None
        try:
            with self._open_csv(header, note) as reader:
                for batch in reader:
                    for cells in batch.to_pylist():
                        if last is not None:
                            yield last
                        number += 1
                        while number in malformed:
                            yield number, malformed.pop(number)
                            number += 1
                        last = (number, self._decoded(cells, number)) if any(cells.values()) else None
        except (pyarrow.lib.ArrowInvalid, UnicodeError) as error:
            problem = f"not {self.encoding}, or no table ({error}); say which encoding it is"
            raise DataError(f"{self.path}, after row {number}: {problem}") from error
        if last is not None:
            yield last[0], self._closed(*last)
        yield from malformed.items()

    def _decoded(self, cells: Mapping[str, bytes], number: int) -> Record:
        try:
            return {name: value.decode() for name, value in cells.items()}
        except UnicodeDecodeError as error:
            problem = f"not {self.encoding} ({error}); say which encoding it is"
            raise DataError(f"{self.path}, row {number}: {problem}") from error

    def _closed(self, number: int, last: Record) -> Record | Unusable:
        """The last row, unless it holds the rest of the file because its quote is never closed."""
        cell = list(last.values())[-1]
        with self.path.open("rb") as content:
            content.seek(max(0, self.path.stat().st_size - 64))
            tail = content.read().rstrip(b"\r\n\t \0")
        if "\n" not in cell or tail.endswith(b'"'):
            return last
        return Unusable(self.path.name, number, "", "a quote is never closed, so the rest is one cell", shortened(cell))


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`; `split` names one of the latter's."""

    path: Path
    split: str | None = None

    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._dataset().column_names)

    def rows(self, columns: tuple[str, ...] | None = None) -> Numbered:
        """Every row, with its images as bytes and path, so that a broken one is a problem of its row."""
        return enumerate(self._dataset(), start=1)

    def _dataset(self) -> Any:
        from datasets import DatasetDict, Image, List, load_from_disk

        if not any((self.path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
            advice = "give one, or another data_format"
            raise DataError(f"{self.path}: not a folder written by datasets' save_to_disk; {advice}")
        dataset = load_from_disk(str(self.path))
        if isinstance(dataset, DatasetDict):
            dataset = dataset[self._split_name(list(dataset))]
        for name, feature in dataset.features.items():
            if isinstance(feature, Image):
                dataset = dataset.cast_column(name, Image(decode=False))
            elif isinstance(feature, List) and isinstance(feature.feature, Image):
                dataset = dataset.cast_column(name, List(Image(decode=False)))
        return dataset.with_format(None)

    def _split_name(self, names: list[str]) -> str:
        split = names[0] if self.split is None and len(names) == 1 else self.split
        if split in names:
            return split
        problem = "no split was chosen" if split is None else f"there is no split {split!r}"
        raise DataError(f"{self.path}, field 'data_split': {problem}; the folder has {', '.join(names)}")


def _jsonl_rows(file: Path) -> Numbered:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                # The mark that some editors put in front of UTF-8 is no part of the first record.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, _record(json.loads(text), file, number)
            except (json.JSONDecodeError, RecursionError) as error:
                yield number, Unusable(file.name, number, "", f"the line is not JSON: {error}", shortened(text))
            except UnicodeDecodeError as error:
                yield number, Unusable(file.name, number, "", f"the line is not UTF-8: {error.reason}", shortened(line))


def list_of_rows(file: Path) -> list[Any]:
    """The rows of a JSON file that holds a list; a DataError where it does not, which would hide the lost rows."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{file}: a list of rows was expected, not {type(rows).__name__}; fetch the file again")
    return rows


def _record(row: Any, file: Path, number: int) -> Record | Unusable:
    if isinstance(row, Mapping):
        return row
    problem = f"it is {shortened(repr(row))}, not a record with columns"
    return Unusable(file.name, number, "", "is not a record with columns", shortened(row), problem)


def _parquet(file: Path) -> Any:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except pyarrow.lib.ArrowInvalid as error:
        raise DataError(f"{file}: not a Parquet file ({error}); check the file") from error


def _parquet_rows(file: Path, columns: tuple[str, ...] | None) -> Numbered:
    with _parquet(file) as parquet:
        present = parquet.schema_arrow.names
        tops = [path if path in present else path.partition(".")[0] for path in columns or present]
        read = [name for name in dict.fromkeys(tops) if name in present]
        batches = parquet.iter_batches(_PARQUET_BATCH, columns=read)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
