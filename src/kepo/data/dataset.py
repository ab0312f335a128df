"""Questions as `datasets.Dataset`s in the formats that TRL's trainers take."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.data.images import as_rgb, has_transparency
from kepo.errors import DataError
from kepo.prompts import PromptStyle, build_prompt
from kepo.types import Question

if TYPE_CHECKING:
    from datasets import Dataset


def to_dataset(questions: Sequence[Question], style: PromptStyle, image_size: int | None = None) -> Dataset:
    """The data set of a GRPO run.

    Columns: `prompt` (conversation, text only: TRL puts the images in), `images` (only when a question has any; decoded
    when a row is read, see `kepo.files.as_shown`) and `image_paths` (of those images that are files), `id`, `question`,
    `options`, `answer`, `solution` (the answer as text, the column that TRL's own accuracy rewards read), `modality`,
    `task`, `metadata` (JSON text), `prompt_style` (only for "plain": rewards then read answers without tags) and, where
    every question has what the style asks for, `reference` (what a perfect policy writes, see `default_completion`).

    Args:
        questions: At least one.
        style: Prompt style, see `kepo.prompts`.
        image_size: Resizes every image to (image_size, image_size) pixels when a row is read; None keeps sizes. Call
            `.with_format(None)` on the data set before saving it to disk: it then holds the images as they are. So too
            where images are transparent, which are put on white when a row is read.
    """
    columns: dict[str, list[Any]] = {
        "prompt": [build_prompt(question, style) for question in questions],
        **text_columns(questions),
        "solution": [question.answer_text for question in questions],
    }
    if style == "plain":
        columns["prompt_style"] = [style] * len(questions)
    if style != "think" or all(_reasoning(question) for question in questions):
        columns["reference"] = [default_completion(question, style) for question in questions]
    if any(question.images for question in questions):
        # An image is decoded when its row is read, and then knows its file no more.
        columns["image_paths"] = [[str(one) for one in q.images if isinstance(one, str | Path)] for q in questions]
    return _build(questions, columns, image_size)


def text_columns(questions: Sequence[Question], *, sort_keys: bool = False) -> dict[str, list[Any]]:
    """The columns of `kepo.data.schema`, all but the images; metadata as JSON text, its keys sorted if asked for."""
    return {
        "id": [question.id for question in questions],
        "question": [question.text for question in questions],
        "options": [list(question.options) for question in questions],
        "answer": [question.answer for question in questions],
        "modality": [question.modality for question in questions],
        "task": [question.task for question in questions],
        "metadata": [json.dumps(dict(one.metadata), ensure_ascii=False, sort_keys=sort_keys) for one in questions],
    }


def to_sft_dataset(
    questions: Sequence[Question],
    style: PromptStyle,
    completion: Callable[[Question], str] | None = None,
    image_size: int | None = None,
) -> Dataset:
    """The data set of a supervised run: columns `prompt`, `completion` (conversations) and, if there are any, `images`.

    Args:
        questions: At least one; with reasoning to show for the style "think".
        style: Prompt style, see `kepo.prompts`.
        completion: What the policy is to write; None: `default_completion` in this style.
        image_size: As in `to_dataset`.
    """
    write = completion or partial(default_completion, style=style)
    columns: dict[str, list[Any]] = {
        "prompt": [build_prompt(question, style) for question in questions],
        "completion": [[{"role": "assistant", "content": write(question)}] for question in questions],
    }
    return _build(questions, columns, image_size)


def option_as_reasoning(question: Question) -> Question:
    """`question` with the text of its correct option as its written reasoning, for data that has none."""
    return replace(question, metadata={**question.metadata, "reasoning": question.answer_text})


def default_completion(question: Question, style: PromptStyle) -> str:
    """What a perfect policy writes: the answer (its letter, where there are options) in the form of the prompt."""
    if style == "plain":
        return question.answer
    answer = f"<answer>{question.answer}</answer>"
    if style == "answer":
        return answer
    reasoning = _reasoning(question)
    if reasoning is None:
        raise DataError(
            f"question {question.id!r}, field 'metadata': there is no 'reasoning' to put inside <think>; add it, use "
            "the prompt style 'answer', or say what to write with `completion`"
        )
    return f"<think>{reasoning}</think>\n{answer}"


def _reasoning(question: Question) -> str | None:
    """The question's written reasoning, if it has one."""
    reasoning = question.metadata.get("reasoning")
    return reasoning.strip() if isinstance(reasoning, str) and reasoning.strip() else None


def _build(questions: Sequence[Question], columns: dict[str, list[Any]], image_size: int | None) -> Dataset:
    from datasets import Dataset, Features, Image, List, Value

    if not questions:
        raise DataError("there are no questions to build a data set from; check the path and the filters")
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size is {image_size}; give the side in pixels, or None to keep sizes")
    text = Value("string")
    turns = List({"role": text, "content": text})
    lists = {"prompt": turns, "completion": turns, "options": List(text), "image_paths": List(text)}
    types: dict[str, Any] = {name: lists.get(name, text) for name in columns}
    has_images, transparent = any(question.images for question in questions), False
    if has_images:
        columns = {**columns, "images": [[_stored(image) for image in question.images] for question in questions]}
        # By its mode "RGB", `datasets` makes a transparent ground black.
        transparent = has_transparency(image for question in questions for image in question.images)
        types["images"] = List(Image(mode=None if transparent else "RGB"))
    dataset = Dataset.from_dict(columns, features=Features(types))
    if not has_images or (image_size is None and not transparent):
        return dataset
    return dataset.with_transform(partial(_shown, size=image_size))


def _stored(image: Any) -> dict[str, Any]:
    """An image as the data set keeps it: a file by its path, a decoded one as PNG."""
    if isinstance(image, str | Path):
        return {"path": str(image), "bytes": None}
    buffer = io.BytesIO()
    as_rgb(image).save(buffer, format="PNG")
    return {"path": None, "bytes": buffer.getvalue()}


def _shown(batch: dict[str, list[Any]], size: int | None) -> dict[str, list[Any]]:
    if "images" not in batch:
        return batch
    return {**batch, "images": [[as_rgb(image, size) for image in images] for images in batch["images"]]}
