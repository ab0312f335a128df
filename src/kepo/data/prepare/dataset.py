"""The questions of every split as a Hugging Face `DatasetDict` on disk, images by their paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kepo.data.dataset import text_columns
from kepo.data.prepare.folder import IMAGES
from kepo.data.prepare.splitting import Item


def save_splits(drawn: Mapping[str, Sequence[Item]], folder: Path) -> None:
    """Writes a folder per split that has questions, and `dataset_dict.json`, into `folder`.

    Columns are those of `kepo.data.schema`. Images are paths relative to `folder`, so that a data set of any size is
    opened without reading them.
    """
    from datasets import Dataset, DatasetDict, Features, List, Value

    text = Value("string")
    names = ("id", "question", "options", "answer", "images", "modality", "task", "metadata")
    features = Features({name: List(text) if name in ("options", "images") else text for name in names})
    with _quiet():
        splits = {
            split: Dataset.from_dict(_columns(items, names), features=features, split=split)
            for split, items in drawn.items()
            if items
        }
        DatasetDict(splits).save_to_disk(folder)


def _columns(items: Sequence[Item], names: Sequence[str]) -> dict[str, list[object]]:
    columns = text_columns([item.question for item in items], sort_keys=True)
    columns["images"] = [
        [f"{IMAGES}/{content}.png" for content in item.contents] if item.question.images else [] for item in items
    ]
    return {name: columns[name] for name in names}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a bar for every split, which has one file of text."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
