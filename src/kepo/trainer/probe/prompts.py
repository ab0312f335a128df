"""Prompts and images of a data set, as the model's own processor takes them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jinja2 import TemplateError
from PIL import Image

from kepo.errors import ConfigError, DataError
from kepo.models.encoding import sees_images, tokenizer_of
from kepo.prompts import message_text
from kepo.trainer.probe.records import Rows, Scope, evenly
from kepo.trainer.rows import written_prompt

# What templates, tokenizers and image processors raise on input that they do not take.
REFUSALS = (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, OSError)
_LONGEST, _SHAPES = 3, 8  # of all prompts these many are rendered: the longest texts, and one of each shape
_REPEATED = 4  # a token that stands more often in a row is written once
_BATCH = 100  # rows of images that are read at once
_IMAGE_COLUMNS = ("images", "image")


@dataclass(frozen=True)
class Texts:
    """The prompts that were read."""

    read: int
    to_render: list[int]  # rows: the first, one of each shape, those with the longest texts


def read_prompts(dataset: Any, processor: Any, rows: Rows, scope: Scope) -> Texts:
    """Read the texts of prompts, and choose which to render.

    Raises:
        DataError: A prompt is empty, or its text holds a token that stands for an image.
    """
    marks = image_marks(processor)
    numbers = evenly(len(dataset), scope.texts)
    column = dataset.select_columns(["prompt"]).with_format(None)
    lengths: list[tuple[int, int]] = []
    shapes: dict[tuple[str, ...], int] = {}
    for number, prompt in zip(numbers, _values(column, numbers), strict=True):
        if not prompt:
            raise DataError(f"{rows.where(number)}, column 'prompt' is {prompt!r}: give a conversation or a text.")
        written = written_prompt(prompt)
        texts = [written] if isinstance(written, str) else [message_text(message) for message in written]
        for mark in marks:
            if any(mark in text for text in texts):
                raise DataError(
                    f"{rows.where(number)}, column 'prompt': its text holds {mark!r}, which stands for an image in "
                    "this model's prompts, so that images and places for them would not agree. Take it out of the "
                    "text; the images of the row are put in front of it."
                )
        lengths.append((sum(map(len, texts)), number))
        shape = ("text",) if isinstance(prompt, str) else tuple(message["role"] for message in prompt)
        shapes.setdefault(shape, number)
    longest = [number for _, number in sorted(lengths, reverse=True)[:_LONGEST]]
    return Texts(len(numbers), list(dict.fromkeys([numbers[0], *list(shapes.values())[:_SHAPES], *longest])))


def _values(column: Any, numbers: Sequence[int]) -> list[Any]:
    chosen = column if len(numbers) == len(column) else column.select(numbers)
    return list(chosen["prompt"])


def image_marks(processor: Any) -> list[str]:
    """The texts that a processor reads as places of images; empty for a model that reads text."""
    if not sees_images(processor):
        return []
    tokenizer = tokenizer_of(processor)
    named = [getattr(holder, "image_token", None) for holder in (processor, tokenizer)]
    return list(dict.fromkeys(mark for mark in named if isinstance(mark, str) and mark))


def refused(rows: Rows, number: int, error: BaseException) -> DataError:
    """The error of a row whose prompt cannot be rendered."""
    return DataError(
        f"{rows.where(number)}: the model's chat template or processor refuses its prompt: "
        f"{type(error).__name__}: {first_line(error)}. Change the row, or use a model whose template takes it (a "
        "system message, for example, can stand at the start of the first user message)."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without a final stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def image_column(dataset: Any) -> str | None:
    """The column that TRL takes images from."""
    return next((name for name in _IMAGE_COLUMNS if name in dataset.column_names), None)


@dataclass(frozen=True)
class Shapes:
    """The images of a data set: how many distinct ones were looked at, and a row for each size and mode."""

    distinct: int
    rows: dict[tuple[int, int, str], tuple[int, int]]  # (width, height, mode) -> row, and place in it


def read_images(dataset: Any, processor: Any, rows: Rows, scope: Scope, *, mixed: bool = False) -> Shapes:
    """Look at the images of rows without decoding them; `mixed` allows rows with and without images.

    Raises:
        ConfigError: The model does not read images.
        DataError: Some rows have images and others none.
    """
    column = image_column(dataset)
    if column is None:
        return Shapes(0, {})
    numbers = evenly(len(dataset), scope.images)
    seen: set[Any] = set()
    shapes: dict[tuple[int, int, str], tuple[int, int]] = {}
    bare: int | None = None
    shown: int | None = None
    for number, value in zip(numbers, _stored(dataset, column, numbers), strict=True):
        images = [image for image in (value if isinstance(value, list) else [value]) if image is not None]
        bare, shown = (number if not images and bare is None else bare), (number if images and shown is None else shown)
        if not mixed and bare is not None and shown is not None:
            raise DataError(
                f"{rows.where(bare)} has no image, but {rows.where(shown)} has. TRL cannot put both into one batch: "
                "train on them in two runs, or give every row an image."
            )
        for place, image in enumerate(images):
            key = _key(image)
            if key not in seen:
                seen.add(key)
                try:
                    shapes.setdefault(_shape(image), (number, place))
                except OSError as error:
                    raise DataError(
                        f"{rows.where(number)}, image {place + 1} of column {column!r} cannot be read: "
                        f"{first_line(error)}. Replace it, or remove the row."
                    ) from error
    if seen and not sees_images(processor):
        assert shown is not None
        raise ConfigError(
            f"{rows.where(shown)} has an image, but the model reads text only ({type(processor).__name__}). Use a "
            "vision-language model, or data without images."
        )
    return Shapes(len(seen), shapes)


def check_shapes(dataset: Any, processor: Any, rows: Rows, shapes: Shapes, most: int, share: slice) -> int:
    """Give the processor one image of each size and mode, those of unusual size first; how many it was given.

    Args:
        dataset: With the images.
        processor: The model's.
        rows: To name them.
        shapes: See `read_images`.
        most: Sizes and modes at most.
        share: Which of them this process gives it.

    Raises:
        DataError: Names the row and the size of an image that it refuses.
    """
    column = image_column(dataset)
    chosen = sorted(shapes.rows.items(), key=_unusual)[:most]
    given = set()
    for (width, height, mode), (number, place) in chosen[share]:
        value = dataset[number][column]
        image = value[place] if isinstance(value, list) else value
        if isinstance(image, Image.Image):  # which may have been resized when it was read
            width, height, mode = *image.size, image.mode
            if (width, height, mode) in given:
                continue
            given.add((width, height, mode))
        try:
            processor.image_processor(images=[image], return_tensors="pt")
        except REFUSALS as error:
            size = f"{width} x {height} pixels" + ("" if mode == "RGB" else f", mode {mode}")
            raise DataError(
                f"{rows.where(number)}, image {place + 1} of column {column!r} ({size}): the model's processor refuses "
                f"it: {first_line(error)}. Crop or resize it (image_size resizes all images of a recipe), or remove "
                "the row."
            ) from error
    return len(chosen)


def _unusual(item: tuple[tuple[int, int, str], Any]) -> tuple[float, int]:
    width, height, _ = item[0]
    return -max(width, height) / max(1, min(width, height)), width * height


def _stored(dataset: Any, column: str, numbers: Sequence[int]) -> Iterator[Any]:
    """The images of rows as they are stored: of files and encoded images records of path and bytes, not decoded."""
    chosen = dataset.select_columns([column])
    if len(numbers) < len(dataset):
        chosen = chosen.select(numbers)
    for table in chosen.with_format("arrow").iter(batch_size=_BATCH):
        yield from table[column].to_pylist()


def _key(image: Any) -> Any:
    """What is equal for equal images: a path, or the stored content."""
    if not isinstance(image, dict):
        return str(image)
    return image["path"] if image.get("bytes") is None else hash(image["bytes"])


def _shape(image: Any) -> tuple[int, int, str]:
    """Width, height and mode, read from the head of the file; of what is no file (0, 0, "")."""
    if not isinstance(image, dict | str):
        return 0, 0, ""
    path = image if isinstance(image, str) else image.get("path")
    stored = None if isinstance(image, str) else image.get("bytes")
    with Image.open(io.BytesIO(stored) if stored is not None else str(path)) as opened:
        return (*opened.size, opened.mode)


def rendered(tokenizer: Any, ids: Sequence[int]) -> str:
    """A prompt as the model reads it; a token that is repeated, as those of an image are, is written once."""
    parts: list[str] = []
    waiting: list[int] = []
    for token, run in groupby(ids):
        times = len(list(run))
        if times <= _REPEATED:
            waiting += [token] * times
            continue
        parts += [tokenizer.decode(waiting), f"{tokenizer.decode([token])}[{times} times]"]
        waiting = []
    return "".join([*parts, tokenizer.decode(waiting)])
