"""The records of an evaluation: `evaluation/NAME.parquet`, one row per completion, and `NAME.json` beside it.

The columns are described in `docs/evaluation.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kepo.errors import DataError
from kepo.runs.renamed import read_columns

if TYPE_CHECKING:
    import pyarrow as pa

EVALUATIONS = "evaluation"
TEXTS = ("prompt", "completion", "images", "metadata", "content")  # the large columns
Record: TypeAlias = dict[str, Any]  # one row, by column

_AGAIN = "run `kepo eval` again with --overwrite"


def evaluation_schema() -> pa.Schema:
    """The columns of the records, in order."""
    import pyarrow as pa

    text, whole, number, flag = pa.string(), pa.int32(), pa.float64(), pa.bool_()
    columns = [
        (text, "id modality task"),
        (whole, "level permutation sample"),
        (text, "prompt completion answer"),
        (pa.list_(text), "options"),
        (text, "predicted"),
        (flag, "correct"),
        (whole, "tokens"),
        (flag, "finished formatted consistent"),
        (whole, "statements true_statements"),
        (number, "teacher_logp"),
        (pa.list_(text), "images"),
        (text, "metadata content"),
    ]
    return pa.schema([(name, kind) for kind, names in columns for name in names.split()])


def to_table(records: Sequence[Record]) -> pa.Table:
    """`records` as a table with the columns of `evaluation_schema`."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(records), schema=evaluation_schema())


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, read."""

    file: Path  # its Parquet file
    table: pa.Table  # its records
    description: dict[str, Any]  # the content of `NAME.json`; empty where it is missing

    @property
    def in_domain(self) -> tuple[str, ...]:
        """Modalities trained on; empty: not known."""
        return tuple(self.description.get("in_domain") or ())

    @cached_property
    def questions(self) -> str:
        """Fingerprint of the questions asked: ids, true answers and options."""
        import pyarrow.compute as pc

        table = self.table
        own = table.filter(pc.and_(pc.equal(table["permutation"], 0), pc.equal(table["sample"], 0)))
        rows = sorted(map(repr, own.select(["id", "answer", "options"]).to_pylist()))
        return hashlib.sha256("\n".join(rows).encode(errors="surrogatepass")).hexdigest()


def evaluation_file(folder: str | Path, name: str) -> Path:
    """Where the records of the evaluation called `name` lie in a run or checkpoint folder.

    Args:
        folder: A run or checkpoint folder.
        name: Of the evaluation.
    """
    return Path(folder) / EVALUATIONS / f"{name}.parquet"


def read_evaluation(path: str | Path, name: str = "test", *, texts: bool = True) -> Evaluation:
    """The evaluation in the file `path`, or the one called `name` in the run or checkpoint folder `path`.

    Args:
        path: A Parquet file of records, or a run or checkpoint folder.
        name: Of the evaluation, where `path` is a folder.
        texts: Whether the large columns (`TEXTS`) are read too.

    Raises:
        DataError: there is none, or one of its files is damaged or holds something else.
    """
    given = Path(path)
    file = evaluation_file(given, name) if given.is_dir() else given
    if not file.is_file():
        there = sorted(found.stem for found in file.parent.glob("*.parquet"))
        known = f"there are {', '.join(there)}" if there else "there is none"
        raise DataError(f"{file}: there is no such evaluation; in its folder {known}. Run `kepo eval` first.")
    return Evaluation(file, read_records(file, _AGAIN, texts=texts), read_description(file))


def read_description(file: Path) -> dict[str, Any]:
    """The content of the JSON file beside the records in `file`; empty where there is none.

    Raises:
        DataError: it is no JSON record.
    """
    described = file.with_suffix(".json")
    try:
        description = json.loads(described.read_text(encoding="utf-8")) if described.exists() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"{described} cannot be read ({error}); {_AGAIN}.") from error
    if not isinstance(description, dict):
        raise DataError(f"{described} describes no evaluation: a record was expected; {_AGAIN}.")
    return description


def read_records(file: Path, advice: str, *, texts: bool = True) -> pa.Table:
    """The records in a Parquet file; the DataError of a damaged or other file ends in `advice`."""
    schema = evaluation_schema()
    # "content" came later than the others: records without it are whole, but no checkpoint is chosen by them.
    required = [name for name in schema.names if name != "content"]
    return read_columns(file, schema, required, advice, without=() if texts else TEXTS)
