"""The records of an evaluation on disk: `evaluation/NAME.parquet`, one row per completion, and `NAME.json` beside it.

The columns are described in `docs/evaluation.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kepo.errors import DataError
from kepo.runs import EVALUATIONS

if TYPE_CHECKING:
    import pyarrow as pa

Record: TypeAlias = dict[str, Any]
"""One row, by column."""


def schema() -> pa.Schema:
    """The columns of the records, in order."""
    import pyarrow as pa

    text, whole, number, flag = pa.string(), pa.int32(), pa.float64(), pa.bool_()
    columns: list[tuple[str, pa.DataType]] = [
        ("id", text),
        ("modality", text),
        ("task", text),
        ("level", whole),
        ("permutation", whole),
        ("sample", whole),
        ("prompt", text),
        ("completion", text),
        ("answer", text),
        ("options", pa.list_(text)),
        ("predicted", text),
        ("correct", flag),
        ("tokens", whole),
        ("finished", flag),
        ("formatted", flag),
        ("consistent", flag),
        ("statements", whole),
        ("true_statements", whole),
        ("teacher_logp", number),
        ("images", pa.list_(text)),
        ("metadata", text),
        ("content", text),
    ]
    return pa.schema(columns)


def to_table(records: Sequence[Record]) -> pa.Table:
    """`records` as a table with the columns of `schema`."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(records), schema=schema())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation, read.

    Attributes:
        table: Its records.
        description: The content of `NAME.json`; empty where it is missing.
    """

    table: pa.Table
    description: dict[str, Any]


def read_evaluation(path: str | Path, name: str = "test") -> Evaluation:
    """The evaluation in the file `path`, or the one called `name` in the run folder `path`.

    Raises:
        DataError: there is none, or the file is damaged or holds something else.
    """
    given = Path(path)
    file = given / EVALUATIONS / f"{name}.parquet" if given.is_dir() else given
    if not file.is_file():
        there = sorted(found.stem for found in file.parent.glob("*.parquet"))
        known = f"there are {', '.join(there)}" if there else "there is none"
        raise DataError(f"{file}: there is no such evaluation; in its folder {known}. Run `kepo eval` first.")
    described = file.with_suffix(".json")
    description = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
    return Evaluation(read_records(file, "run `kepo eval` again with --overwrite"), description)


def read_records(file: Path, advice: str) -> pa.Table:
    """The records in a Parquet file; `advice` ends the message of the error.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file} cannot be read ({error}); {advice}.") from error
    # "content" came later than the others: records without it are whole, but no checkpoint is chosen by them.
    missing = [name for name in schema().names if name not in (*table.column_names, "content")]
    if missing:
        raise DataError(f"{file} holds no evaluation: it has no column {missing[0]!r}; {advice}.")
    return table


def write_records(table: pa.Table, file: Path) -> None:
    """Write a Parquet file, whole or not at all; a failure of the disk is a DataError."""
    import pyarrow.parquet as pq

    temporary = file.with_name(f"{file.name}.tmp")
    with readable_errors(file):
        pq.write_table(table, temporary, compression="zstd")
        os.replace(temporary, file)


def write_text(text: str, file: Path) -> None:
    """Write a text file, whole or not at all; a failure of the disk is a DataError."""
    temporary = file.with_name(f"{file.name}.tmp")
    with readable_errors(file):
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, file)


@contextmanager
def readable_errors(file: Path) -> Iterator[None]:
    """Turns what the operating system says about writing `file` into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{file} could not be written: {error}. Free space or mend the permissions; the same command then goes on."
        ) from error
