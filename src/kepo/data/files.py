"""Questions from files: JSON lines, Parquet, and folders written by `datasets.Dataset.save_to_disk`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kepo.data.schema import questions_from_rows
from kepo.errors import DataError
from kepo.types import Question


def load_jsonl(path: str | Path, image_root: Path | None = None) -> list[Question]:
    """Questions of a file with one JSON record per line; empty lines are skipped.

    Args:
        path: The file, in UTF-8.
        image_root: The folder that image paths are relative to; None: the folder of the file.

    Raises:
        DataError: a line is not JSON, or a row cannot be used; row numbers are line numbers.
    """
    file = _existing(path)
    return questions_from_rows(_jsonl_rows(file), source=str(file), image_root=image_root or file.parent)


def _jsonl_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                # The mark that some editors put in front of UTF-8 is no part of the first record.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{file}, row {number}: the line is not JSON ({error})") from error
            except UnicodeDecodeError as error:
                raise DataError(f"{file}, row {number}: the line is not UTF-8 ({error})") from error


def load_parquet(path: str | Path, image_root: Path | None = None) -> list[Question]:
    """Questions of a Parquet file; images may be paths, or records of bytes and path.

    Args:
        path: The file.
        image_root: The folder that image paths are relative to; None: the folder of the file.

    Raises:
        DataError: the file is not Parquet, or a row cannot be used.
    """
    import pyarrow.lib
    import pyarrow.parquet

    file = _existing(path)
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
    except pyarrow.lib.ArrowInvalid as error:
        raise DataError(f"{file}: not a Parquet file ({error})") from error
    with parquet:
        rows = (row for batch in parquet.iter_batches(batch_size=256) for row in batch.to_pylist())
        return questions_from_rows(enumerate(rows, start=1), source=str(file), image_root=image_root or file.parent)


def load_dataset_folder(path: str | Path, split: str | None = None, image_root: Path | None = None) -> list[Question]:
    """Questions of a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Args:
        path: The folder; also the folder of one data set inside that of a `DatasetDict`.
        split: Which data set of a `DatasetDict`; may be left out if it has only one.
        image_root: The folder that image paths are relative to; None: the folder itself, or that of the `DatasetDict`.

    Raises:
        DataError: not such a folder, no such split, or a row cannot be used.
    """
    from datasets import DatasetDict, load_from_disk

    folder = Path(path)
    if not (folder / "dataset_info.json").is_file() and not (folder / "dataset_dict.json").is_file():
        raise DataError(f"{folder}: not a folder written by datasets' save_to_disk; give one, or another data_format")
    loaded = load_from_disk(str(folder))
    if isinstance(loaded, DatasetDict):
        loaded = loaded[_split_name(list(loaded), split, folder)]
    rows = enumerate(_undecoded(loaded), start=1)
    return questions_from_rows(rows, source=str(folder), image_root=image_root or _home(folder))


def _home(folder: Path) -> Path:
    """The folder of the `DatasetDict`, where `folder` is one of its data sets."""
    parent = folder.absolute().parent
    return parent if (parent / "dataset_dict.json").is_file() else folder


def _split_name(names: list[str], split: str | None, folder: Path) -> str:
    if split is None and len(names) == 1:
        return names[0]
    if split not in names:
        asked = "no split was chosen" if split is None else f"there is no split {split!r}"
        raise DataError(f"{folder}, field 'data_split': {asked}; the folder has {', '.join(names)}")
    return split


def _undecoded(dataset: Any) -> Any:
    """The data set with its images as bytes and path, so that a broken one is our error with its row."""
    from datasets import Image, List

    for name in ("image", "images"):
        feature = dataset.features.get(name)
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            dataset = dataset.cast_column(name, List(Image(decode=False)))
    return dataset.with_format(None)


def _existing(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; check data_path")
    return file
