"""Questions from files, each of whose rows must be usable."""

from __future__ import annotations

from pathlib import Path

from kepo.data.images import ImageRoot
from kepo.data.readers.presets import preset as preset_of
from kepo.data.readers.rows import DatasetFolder, TableFile
from kepo.data.readers.table import TableMap, read_rows
from kepo.data.sources import strict
from kepo.errors import DataError
from kepo.types import Question


def load_table(
    path: str | Path, image_root: Path | None = None, *, kind: str | None = None, preset: str | None = None
) -> list[Question]:
    """Questions of a CSV, TSV, JSON lines, JSON or Parquet file.

    Args:
        path: The file; text is UTF-8.
        image_root: The folder that image paths are relative to; None: the folder of the file.
        kind: "csv", "tsv", "jsonl", "json" or "parquet"; None: as the name of the file ends.
        preset: The layout of the rows, see `presets.yaml`; None: the columns of `kepo.data.schema`.

    Raises:
        ConfigError: an unknown preset, or one that does not fit the file.
        DataError: the file is not what its name says, or a row cannot be used; names file, row, field and value.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; check data_path")
    table = TableFile(file, kind=kind)
    table_map = None if preset is None else preset_of(preset).map.resolved(table)
    if table_map is None and table.is_text:
        # Cells of text hold lists as JSON.
        columns = {"question": ("question", "text"), "image": ("image", "images")}
        table_map = TableMap(columns).resolved(table)
    return strict(read_rows(table, table_map, ImageRoot(image_root or file.parent)), [file])


def load_jsonl(path: str | Path, image_root: Path | None = None) -> list[Question]:
    """Questions of a file with one JSON record per line; see `load_table`. Row numbers are line numbers."""
    return load_table(path, image_root, kind="jsonl")


def load_dataset_folder(
    path: str | Path, split: str | None = None, image_root: Path | None = None, *, preset: str | None = None
) -> list[Question]:
    """Questions of a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Args:
        path: The folder; also the folder of one data set inside that of a `DatasetDict`.
        split: Which data set of a `DatasetDict`; may be left out if it has only one.
        image_root: The folder that image paths are relative to; None: the folder itself, or that of the `DatasetDict`.
        preset: As in `load_table`.

    Raises:
        DataError: not such a folder, no such split, or a row cannot be used.
    """
    folder = Path(path)
    table = DatasetFolder(folder, split)
    parent = folder.absolute().parent
    home = parent if (parent / "dataset_dict.json").is_file() else folder
    table_map = None if preset is None else preset_of(preset).map.resolved(table)
    return strict(read_rows(table, table_map, ImageRoot(image_root or home)), [folder])
