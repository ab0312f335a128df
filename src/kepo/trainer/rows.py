"""Columns of a data set that this package reads beside the user's own rewards, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kepo.prompts import style_of
from kepo.types import Message, Prompt


def column_text(value: Any) -> str | None:
    """A cell as text: numbers as they are written, lists and records as JSON; None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def column_texts(value: Any) -> tuple[str, ...]:
    """A cell that holds several texts, such as the options of a question: a list, or a record of lettered options.

    Args:
        value: None holds none; anything else that is no list and no record is one text. Fields of a record that are
            None, with which `datasets` fills up the fields of other rows, are left out.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, Mapping):
        return column_texts([each for each in value.values() if each is not None])
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (str(value),)
    return tuple("" if each is None else str(column_text(each)) for each in value)


def row_answer(row: Mapping[str, Any]) -> Any:
    """The true answer of a question: `answer`, else `solution`; None: it has none."""
    return row.get("answer") if row.get("answer") is not None else row.get("solution")


def row_images(row: Mapping[str, Any]) -> list[Any]:
    """The images of a question: those of `images`, else that of `image`."""
    given = row.get("images") if row.get("images") is not None else row.get("image")
    return [image for image in (given if isinstance(given, list) else [given]) if image is not None]


def row_options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The option texts of a question, in order; none where the column `options` holds no list and no record.

    Options in one text cannot be told apart here, so a question with such is an open one.
    """
    options = row.get("options")
    return () if isinstance(options, (str, int, float)) else column_texts(options)


def row_prompt_style(row: Mapping[str, Any]) -> str | None:
    """The prompt style of a row, from its column `prompt_style` or the words of its prompt; None where neither says."""
    return row.get("prompt_style") or style_of(written_prompt(row["prompt"]))


def written_prompt(prompt: Prompt) -> Prompt:
    """A prompt with those parts of its messages that are text; columnar data gives every part every key."""
    return prompt if isinstance(prompt, str) else [_written(message) for message in prompt]


def _written(message: Message) -> Message:
    content: Any = message["content"]
    if not isinstance(content, list):
        return message
    return {**message, "content": [part for part in content if part.get("type") == "text" and part.get("text")]}
