"""The questions of every split as a Hugging Face `DatasetDict` on disk, images by their paths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kepo.data.prepare.folder import IMAGES
from kepo.data.prepare.splitting import Item


def save_splits(drawn: Mapping[str, Sequence[Item]], folder: Path) -> None:
    """Writes a folder per split that has questions, and `dataset_dict.json`, into `folder`.

    Columns are those of `kepo.data.schema`. Images are paths relative to `folder`, so that a data set of any size is
    opened without reading them.
    """
    from datasets import Dataset, DatasetDict, Features, List, Value

    text = Value("string")
    features = Features(
        {
            "id": text,
            "question": text,
            "options": List(text),
            "answer": text,
            "images": List(text),
            "modality": text,
            "task": text,
            "metadata": text,
        }
    )
    splits = {
        split: Dataset.from_dict(_columns(items), features=features, split=split)
        for split, items in drawn.items()
        if items
    }
    with _quiet():
        DatasetDict(splits).save_to_disk(folder)


def _columns(items: Sequence[Item]) -> dict[str, list[object]]:
    questions = [item.question for item in items]
    return {
        "id": [question.id for question in questions],
        "question": [question.text for question in questions],
        "options": [list(question.options) for question in questions],
        "answer": [question.answer for question in questions],
        "images": [
            [f"{IMAGES}/{content}.png" for content in item.contents] if item.question.images else [] for item in items
        ],
        "modality": [question.modality for question in questions],
        "task": [question.task for question in questions],
        "metadata": [json.dumps(dict(question.metadata), ensure_ascii=False, sort_keys=True) for question in questions],
    }


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
