"""Rows of table files: CSV, TSV, JSON lines, JSON, Parquet. A row that cannot be read is a row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kepo.data.readers.delimited import delimited_rows, header_of
from kepo.data.readers.saved import DatasetFolder, HubDataset
from kepo.data.sources import Unusable, shortened
from kepo.errors import ConfigError, DataError

Record: TypeAlias = Mapping[str, Any]
Numbered: TypeAlias = Iterator[tuple[int, Record | Unusable]]
"""Rows with their numbers from 1: of JSON lines, CSV and TSV the line that a row begins in, the header being line 1."""

_DELIMITERS = {"csv": ",", "tsv": "\t"}
KINDS: tuple[str, ...] = (*_DELIMITERS, "jsonl", "json", "parquet")
"""What a table file can be: the endings of their names, without the dot."""

_PARQUET_BATCH = 64


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
        found = None if self.delimiter is not None else _other_kind(self.path, self._kind())
        if found is not None:
            advice = "save it as CSV, JSON or Parquet" if found == "xlsx" else f"rename it, or set data_format: {found}"
            raise DataError(f"{self.path}: it is to be read as {self._kind()}, but looks like {found}; {advice}")

    def _kind(self) -> str:
        return self.kind or self.path.suffix.lower().removeprefix(".")

    def _between(self) -> str:
        return self.delimiter or _DELIMITERS[self._kind()]

    @property
    def is_text(self) -> bool:
        """Whether all cells are texts, as in CSV."""
        return self._kind() in _DELIMITERS

    def columns(self) -> tuple[str, ...]:
        """The names of the columns: of the header, or all that any record has."""
        if self.is_text:
            return header_of(self.path, self._between(), self.encoding)
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
            return delimited_rows(self.path, self._between(), self.encoding)
        if self._kind() == "parquet":
            return _parquet_rows(self.path, columns)
        if self._kind() == "jsonl":
            return _jsonl_rows(self.path)
        return ((number, _record(row, self.path, number)) for number, row in enumerate(list_of_rows(self.path), 1))


Table: TypeAlias = TableFile | DatasetFolder | HubDataset


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
    if isinstance(rows, list):
        return rows
    named = [name for name, value in rows.items() if isinstance(value, list)] if isinstance(rows, dict) else []
    advice = f"save the list {named[0]!r} alone" if len(named) == 1 else "fetch the file again"
    raise DataError(f"{file}: a list of rows was expected, not {type(rows).__name__}; {advice}")


def _other_kind(file: Path, kind: str) -> str | None:
    """What a file looks like that is not of this `kind`; None where it may be."""
    with file.open("rb") as content:
        start = content.read(4096)
    for mark, packed in ((b"PAR1", "parquet"), (b"PK\x03\x04", "xlsx")):
        if start.startswith(mark):
            return None if packed == kind else packed
    found: str | None = None
    text = start.decode("utf-8-sig", "replace").lstrip()
    lines = text.splitlines() or [""]
    if kind in _DELIMITERS:
        found = "jsonl" if text.startswith('{"') else "json" if re.match(r"\[\s*\{", text) else None
    elif kind == "jsonl":
        found = "json" if re.match(r"\[\s*\{", text) else None
    else:
        found = "jsonl" if kind == "json" and len(lines) > 1 and _is_record(lines[0]) else None
    if kind not in _DELIMITERS and found is None and not any(line.lstrip().startswith(("{", "[")) for line in lines):
        found = next((name for name, mark in (("tsv", "\t"), ("csv", ",")) if mark in lines[0]), None)
    return found


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


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
