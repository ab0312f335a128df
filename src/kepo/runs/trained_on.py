"""`trained_on.parquet`: what the questions show that a run was trained on, as hashes, a row per question.

With it any evaluation can tell how many of its questions the model has seen, also after the data have moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kepo.files import write_table
from kepo.runs.renamed import read_columns
from kepo.types import Content

if TYPE_CHECKING:
    import pyarrow as pa

TRAINED_ON = "trained_on.parquet"


def write_trained_on(folder: Path, contents: Iterable[Content], *, resumed: bool) -> None:
    """Keep what a run is trained on.

    Args:
        folder: The run folder.
        contents: Of the training questions.
        resumed: Whether the run goes on, maybe on other data: what it was trained on before stays.

    Raises:
        DataError: The file that is there is damaged, or the disk refuses.
    """
    import pyarrow as pa

    before = (read_trained_on(folder) or ()) if resumed else ()
    rows = [
        {name: getattr(one, name) for name in ("text", "images", "thumbnails")}
        for one in dict.fromkeys([*before, *contents])
    ]
    write_table(pa.Table.from_pylist(rows, schema=_schema()), folder / TRAINED_ON)


def read_trained_on(folder: str | Path) -> Sequence[Content] | None:
    """What the questions show that the run in `folder` was trained on; None where the run did not keep it.

    Raises:
        DataError: The file is damaged or holds something else.
    """
    file = Path(folder) / TRAINED_ON
    if not file.is_file():
        return None
    table = read_columns(file, _schema(), _schema().names, "delete it; evaluations then read the run's data again")
    return [Content(one["text"], tuple(one["images"]), tuple(one["thumbnails"])) for one in table.to_pylist()]


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("text", pa.string()), ("images", pa.list_(pa.string())), ("thumbnails", pa.list_(pa.binary()))])
