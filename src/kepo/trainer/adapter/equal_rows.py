"""The rows of a group are equal until their rollouts: read, rendered, tokenized and processed once, not G times.

TRL repeats every row of the data set G times before it looks at it. The results here are those of separate rows, to
the bit: processors treat every row and every image for itself.

Legend: B rows, Q distinct ones, G rollouts of a group.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset

from kepo.models.row_fields import IMAGE_FIELDS, TOKEN_TYPE_FIELDS
from kepo.models.shared_prefill import EqualRows, repeated
from kepo.prompts import prompt_images
from kepo.types import Prompt

_FIELDS = {*IMAGE_FIELDS, *TOKEN_TYPE_FIELDS}


class RowsOnce(Dataset):
    """A data set that reads a row once where a batch asks for it several times."""

    def __getitems__(self, keys: list[int]) -> list[dict[str, Any]]:
        distinct = list(dict.fromkeys(keys))
        rows = dict(zip(distinct, super().__getitems__(distinct), strict=True))
        return [dict(rows[key]) for key in keys]


def rows_once(dataset: Any) -> Any:
    """`dataset` as `RowsOnce`, over the same data; what is no `datasets.Dataset` comes back as it is."""
    if type(dataset) is not Dataset:
        return dataset
    once = copy.copy(dataset)
    once.__class__ = RowsOnce
    return once


class TokenizedOnce(NamedTuple):
    """What TRL made of the Q distinct prompts of a batch."""

    prompt_ids: list[list[int]]  # (B) of all rows; the list that TRL hands on
    rows: EqualRows


def equal_prompts(prompts: Sequence[Prompt]) -> EqualRows:
    """Which prompts are equal: the same texts, and the very same images."""
    places: dict[Hashable, int] = {}
    index = [places.setdefault(_frozen(prompt), len(places)) for prompt in prompts]
    firsts = [index.index(place) for place in range(len(places))]
    return EqualRows(index, firsts, [len(prompt_images(prompts[row])) for row in firsts])


def as_tensors(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields of a processor as TRL makes tensors of them, those with one entry per token left as lists.

    None: there is one whose rows cannot be told.
    """
    if not set(fields) <= _FIELDS:
        return None
    return {
        name: value if torch.is_tensor(value) or name in TOKEN_TYPE_FIELDS else torch.tensor(np.array(value))
        for name, value in fields.items()
    }


class EqualRowsProcessor:
    """Stands in for TRL's processor while a batch is made: what is equal is rendered and processed once.

    Args:
        processor: Does the work; everything else about it is as it is.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._rendered: dict[Hashable, tuple[Any, str]] = {}  # with the conversation, so that its identity stays taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def apply_chat_template(self, conversation: Any, **given: Any) -> Any:
        """As the processor's; a text that was written before is not written again."""
        if given.get("tokenize", True):
            return self._processor.apply_chat_template(conversation, **given)
        key = (_frozen(conversation), _frozen(given))
        if key not in self._rendered:
            self._rendered[key] = conversation, self._processor.apply_chat_template(conversation, **given)
        return self._rendered[key][1]

    def __call__(self, *args: Any, **given: Any) -> Any:
        images, texts = given.get("images"), given.get("text")
        if args or not isinstance(images, list) or not isinstance(texts, list) or given.get("return_tensors") != "pt":
            return self._processor(*args, **given)
        places: dict[Hashable, int] = {}
        index = [places.setdefault(_frozen(row), len(places)) for row in zip(texts, images, strict=True)]
        firsts = [index.index(place) for place in range(len(places))]
        distinct = {"images": [images[row] for row in firsts], "text": [texts[row] for row in firsts]}
        made = self._processor(**{**given, **distinct})
        fields = {name: value for name, value in made.items() if name not in ("input_ids", "attention_mask")}
        if not set(fields) <= _FIELDS:
            return self._processor(**given)
        rows = EqualRows(index, firsts, [len(images[row] or ()) for row in firsts])
        for name in set(made) - set(fields):
            made[name] = made[name][index]
        for name, value in repeated(fields, rows).items():
            made[name] = value
        return made


def _frozen(value: Any) -> Hashable:
    """Equal for equal texts, and for the very same images; its objects must stay alive as long as it is compared."""
    if isinstance(value, Mapping):
        return tuple((key, _frozen(entry)) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(entry) for entry in value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return id(value), "object"
