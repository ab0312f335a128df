"""Rows of data sets of the `datasets` library: folders of `save_to_disk`, and data sets of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kepo.errors import DataError

_BATCH = 64
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`; `split` names one of the latter's."""

    path: Path
    split: str | None = None

    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._dataset().column_names)

    def rows(self, columns: tuple[str, ...] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Every row, with its images as bytes and path, so that a broken one is a problem of its row."""
        dataset, images = self._dataset(), self.home() / "images"
        # What kepo prepare writes beside the data set need not be decoded out of it.
        beside = {entry.name for entry in images.iterdir()} if images.is_dir() else set()
        return enumerate((_by_path(row, beside) for row in _encoded(dataset)), start=1)

    def home(self) -> Path:
        """The folder itself, or that of the `DatasetDict`; image paths are relative to it."""
        parent = self.path.absolute().parent
        return parent if (parent / "dataset_dict.json").is_file() else self.path

    def _dataset(self) -> Any:
        from datasets import load_from_disk

        if not any((self.path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
            advice = "give one, or another data_format"
            raise DataError(f"{self.path}: not a folder written by datasets' save_to_disk; {advice}")
        return _split_of(load_from_disk(str(self.path)), self.split, str(self.path))


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A data set of the Hugging Face hub, from there or from its cache."""

    name: str  # OWNER/NAME
    split: str | None = None
    config: str | None = None
    _loaded: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """Its name as a path, for ids and messages."""
        return Path(self.name)

    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._dataset().column_names)

    def rows(self, columns: tuple[str, ...] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Every row, with its images as bytes and path."""
        return enumerate(_encoded(self._dataset()), start=1)

    def _dataset(self) -> Any:
        if not self._loaded:
            self._loaded.append(self._load())
        return self._loaded[0]

    def _load(self) -> Any:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            dataset = load_dataset(self.name, self.config, split=self.split)
        except (DatasetsError, OSError, ValueError, RuntimeError) as error:
            named = f"{self.name} (data_config: {self.config})" if self.config else self.name
            first = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            advice = "check the name, data_config, data_split and the connection, or give a file or folder"
            problem = "there is no such file or folder, and no data set of that name could be loaded from the hub"
            raise DataError(f"{named}: {problem} or its cache ({first}); {advice}") from error
        return _split_of(dataset, self.split, self.name)


def is_hub_name(path: str) -> bool:
    """Whether `path`, which is neither file nor folder, can be the name OWNER/NAME of a data set of the hub."""
    file = Path(path).suffix.lower() in (".csv", ".tsv", ".jsonl", ".json", ".parquet")
    return _HUB_NAME.fullmatch(path) is not None and not file and not Path(path).parent.exists()


def _split_of(dataset: Any, split: str | None, source: str) -> Any:
    from datasets import DatasetDict

    if not isinstance(dataset, DatasetDict):
        return dataset
    names: Sequence[str] = list(dataset)
    split = names[0] if split is None and len(names) == 1 else split
    if split in names:
        return dataset[split]
    problem = "no split was chosen" if split is None else f"there is no split {split!r}"
    raise DataError(f"{source}, field 'data_split': {problem}; there are {', '.join(names)}")


def _encoded(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """The rows as they are stored: images are not decoded, nothing is cast or cached."""
    for table in dataset.with_format("arrow").iter(batch_size=_BATCH):
        yield from table.to_pylist()


def _by_path(row: Mapping[str, Any], beside: set[str]) -> Mapping[str, Any]:
    images = row.get("images")
    if not beside or not isinstance(images, list):
        return row
    paths = [one["path"] if isinstance(one, Mapping) else None for one in images]
    return {**row, "images": [f"images/{path}" for path in paths]} if all(path in beside for path in paths) else row
