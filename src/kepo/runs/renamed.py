"""Names of today for columns and metrics that older versions wrote, and the reader of Parquet files that uses them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kepo.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

RENAMED = {
    "output": "completion",
    "agreement": "consistent",
    "group_dead": "group_all_failed",
    "exploration/dead_groups": "exploration/all_failed_groups",
}
"""Old name -> name of today."""


def read_columns(
    file: Path,
    schema: pa.Schema,
    required: Collection[str],
    advice: str,
    columns: Sequence[str] | None = None,
    without: Collection[str] = (),
) -> pa.Table:
    """A Parquet file with the names of today; columns of `schema` that an older version did not write are null.

    Read are `columns`, or all of the file and of `schema`, but those in `without`. A file without the columns
    `required` is of another kind; `advice` ends the message of the error.

    Raises:
        DataError: The file is damaged, or of another kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            stored = {RENAMED.get(name, name): name for name in opened.schema_arrow.names}
            missing = [name for name in required if name not in stored]
            if missing:
                raise DataError(f"{file} has no column {missing[0]!r}; {advice}.")
            wanted = [name for name in columns or {**stored, **dict.fromkeys(schema.names)} if name not in without]
            table = opened.read([stored[name] for name in wanted if name in stored])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read ({error}); {advice}.") from error
    table = table.rename_columns([RENAMED.get(name, name) for name in table.column_names])
    for field in schema:
        if field.name in wanted and field.name not in stored:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table
