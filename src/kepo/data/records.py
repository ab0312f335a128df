"""Rows of tables in files: CSV, TSV, JSON lines, JSON and Parquet. A row that cannot be read is a row all the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kepo.data.omnimedvqa import list_of_rows
from kepo.data.sources import Unusable, shortened
from kepo.errors import ConfigError, DataError

Record: TypeAlias = Mapping[str, Any]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (*_DELIMITERS, ".jsonl", ".json", ".parquet")
_PARQUET_BATCH = 64


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of rows.

    Attributes:
        path: A .csv, .tsv, .jsonl, .json (a list of records) or .parquet file.
        delimiter: Between the cells of a CSV file; None: a comma, in a .tsv file a tab.
        encoding: Of a CSV or TSV file; JSON is UTF-8.
    """

    path: Path
    delimiter: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        """Raises ConfigError or DataError for a file that is none of these."""
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no such file; check the path")
        if self.path.suffix.lower() not in _SUFFIXES:
            raise DataError(
                f"{self.path}: its name has none of the endings {', '.join(_SUFFIXES)}; rename or convert it"
            )
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigError(f"the delimiter {self.delimiter!r} is not one character")

    def columns(self) -> tuple[str, ...]:
        """The names of the columns: of the header, or all that any record has.

        Raises:
            DataError: the file is not what its name says, or has a column twice.
        """
        suffix = self.path.suffix.lower()
        if suffix in _DELIMITERS:
            with self._open_csv() as lines:
                return self._header(csv.reader(lines, delimiter=self._delimiter()))
        if suffix == ".parquet":
            with _parquet(self.path) as parquet:
                return tuple(parquet.schema_arrow.names)
        names: dict[str, None] = {}
        for _, record in self.rows():
            if not isinstance(record, Unusable):
                names.update(dict.fromkeys(record))
        return tuple(names)

    def rows(self, columns: tuple[str, ...] | None = None) -> Iterator[tuple[int, Record | Unusable]]:
        """Every row, with its number from 1: the line of JSON lines; in CSV the header is row 1, as spreadsheets count.

        Args:
            columns: Only these are read from Parquet, where others would cost time; None: all.

        Raises:
            DataError: the file as a whole is not what its name says.
        """
        suffix = self.path.suffix.lower()
        if suffix in _DELIMITERS:
            return self._csv_rows()
        if suffix == ".parquet":
            return _parquet_rows(self.path, columns)
        return jsonl_rows(self.path) if suffix == ".jsonl" else json_rows(self.path)

    def _delimiter(self) -> str:
        return self.delimiter or _DELIMITERS[self.path.suffix.lower()]

    def _open_csv(self) -> Any:
        try:
            # With "utf-8-sig" the mark that some programs put in front is no part of the first name.
            return self.path.open(encoding="utf-8-sig" if self.encoding == "utf-8" else self.encoding, newline="")
        except LookupError as error:
            raise ConfigError(f"unknown encoding {self.encoding!r}; use utf-8, latin-1, cp1252, ...") from error

    def _header(self, reader: Any) -> tuple[str, ...]:
        try:
            header = [name.strip() for name in next(reader, [])]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.path}: the header cannot be read ({error}); check delimiter and encoding"
            ) from error
        if not any(header):
            raise DataError(f"{self.path}: there is no header; the first line must name the columns")
        twice = [name for name in header if name and header.count(name) > 1]
        if twice:
            raise DataError(f"{self.path}: the header has the column {twice[0]!r} twice; rename one of them")
        return tuple(header)

    def _csv_rows(self) -> Iterator[tuple[int, Record | Unusable]]:
        with self._open_csv() as lines:
            reader = csv.reader(lines, delimiter=self._delimiter(), strict=True)
            header = self._header(reader)
            number = 1
            while True:
                number += 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield number, Unusable(self.path.name, number, "", f"not a row of CSV: {error}", "")
                    continue
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path}, row {number}: not {self.encoding} ({error}); say which encoding it is"
                    ) from error
                if cells:
                    yield number, self._record(cells, header, number)

    def _record(self, cells: list[str], header: tuple[str, ...], number: int) -> Record | Unusable:
        if len(cells) != len(header):
            reason = f"{len(cells)} cells, where the header has {len(header)} columns"
            return Unusable(self.path.name, number, "", reason, shortened(cells))
        return dict(zip(header, cells, strict=True))


def jsonl_rows(file: Path) -> Iterator[tuple[int, Record | Unusable]]:
    """The records of a file with one per line, numbered by line; empty lines are no rows."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, _record(json.loads(text), file, number)
            except (json.JSONDecodeError, RecursionError) as error:
                yield number, Unusable(file.name, number, "", f"the line is not JSON: {error}", shortened(text))
            except UnicodeDecodeError as error:
                yield number, Unusable(file.name, number, "", f"the line is not UTF-8: {error.reason}", shortened(line))


def json_rows(file: Path) -> Iterator[tuple[int, Record | Unusable]]:
    """The records of a file that holds a list of them, numbered by place.

    Raises:
        DataError: the file is not JSON, or no list.
    """
    for number, row in enumerate(list_of_rows(file), start=1):
        yield number, _record(row, file, number)


def _record(row: Any, file: Path, number: int) -> Record | Unusable:
    if isinstance(row, Mapping):
        return row
    return Unusable(file.name, number, "", "not a record with columns", shortened(row))


def _parquet(file: Path) -> Any:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except pyarrow.lib.ArrowInvalid as error:
        raise DataError(f"{file}: not a Parquet file ({error}); check the file") from error


def _parquet_rows(file: Path, columns: tuple[str, ...] | None) -> Iterator[tuple[int, Record | Unusable]]:
    number = 0
    with _parquet(file) as parquet:
        for batch in parquet.iter_batches(_PARQUET_BATCH, columns=None if columns is None else list(columns)):
            for row in batch.to_pylist():
                number += 1
                yield number, row
