"""What a run is trained on, kept in its run folder as hashes, from the rows of its data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from kepo.data.contents import contents_of
from kepo.prompts import question_in
from kepo.runs.trained_on import write_trained_on
from kepo.trainer.rows import column_text, row_images, row_options
from kepo.types import Question


def keep_trained_on(folder: Path, dataset: Any, *, resumed: bool) -> None:
    """Keep the questions of a training set in `trained_on.parquet` of a run folder.

    Args:
        folder: The run folder.
        dataset: As `KEPOTrainer` takes it. The question is read from the column `question`, or else from the last
            message of `prompt`, without options and instruction as `build_prompt` writes them; its images from
            `image_paths`, `images` or `image`. A stream is left alone, since reading it would use it up.
        resumed: As in `write_trained_on`.

    Raises:
        DataError: An image cannot be decoded, or the disk refuses.
    """
    if isinstance(dataset, Dataset):
        # Without what resizes images when a row is read: they are compared as they are stored.
        write_trained_on(folder, contents_of(_questions(dataset.with_format(None))), resumed=resumed)


def _questions(dataset: Dataset) -> Iterator[Question]:
    names = set(dataset.column_names)
    if "image_paths" in names and all(len(paths) > 0 for paths in dataset["image_paths"]):
        dataset = dataset.remove_columns([name for name in ("images", "image") if name in names])
    for place, row in enumerate(dataset):
        options = row_options(row)
        text = column_text(row.get("question")) or question_in(_prompt_text(row.get("prompt")), options)
        if text:
            yield Question(id=str(place), text=text, answer="", options=options, images=_images(row))


def _prompt_text(prompt: Any) -> str:
    """The text of the last message: the question, with whatever stands around it in the prompt."""
    content = prompt[-1].get("content") if isinstance(prompt, list) and prompt else prompt
    if isinstance(content, list):
        return " ".join(str(part["text"]) for part in content if part.get("text"))
    return content if isinstance(content, str) else ""


def _images(row: Mapping[str, Any]) -> tuple[Any, ...]:
    if "images" not in row and "image" not in row:
        return tuple(row.get("image_paths") or ())
    return tuple(row_images(row))
