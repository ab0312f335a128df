"""Rows of a source: questions that can be used, and rows that cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kepo.data.prepare.images import HashedImage, image_name
from kepo.data.prepare.settings import PrepareSettings
from kepo.data.prepare.splitting import Item
from kepo.data.prepare.statistics import unusable_counts
from kepo.data.sources import Source, Unusable, shortened
from kepo.types import SPLITS, Question


@dataclass(frozen=True, slots=True)
class Row:
    """A question, and the file and row that it comes from."""

    question: Question
    file: str
    row: int


def read_rows(source: Source, settings: PrepareSettings) -> tuple[dict[str, Row], list[Unusable]]:
    """Questions by their ids, and the rows that are none."""
    rows: dict[str, Row] = {}
    unusable: list[Unusable] = []
    for number, row in enumerate(source.rows, start=1):
        if isinstance(row, Unusable):
            unusable.append(row)
            continue
        problem = _problem(row, rows, settings)
        file, place = str(row.metadata.get("file", source.name)), int(row.metadata.get("row", number))
        if problem is None:
            images = tuple(Path(image) if isinstance(image, str) else image for image in row.images)
            rows[row.id] = Row(replace(row, images=images), file, place)
        else:
            field, reason, value = problem
            unusable.append(Unusable(file, place, field, reason, shortened(value)))
    return rows, unusable


def _problem(question: Question, rows: Mapping[str, Row], settings: PrepareSettings) -> tuple[str, str, Any] | None:
    """(field, reason, value) of what is wrong with a question."""
    split = question.metadata.get("split")
    try:
        json.dumps([asdict(replace(question, images=()))], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # JSON can spell halves of characters, which no file can hold as UTF-8.
        return "question", "holds characters that are no text (half of a surrogate pair)", question.text
    if question.id in rows:
        return "id", "is already the id of another row", question.id
    if settings.split == "given" and split not in SPLITS:
        return "split", f"is none of {', '.join(SPLITS)}", split
    return None


def usable_items(rows: Mapping[str, Row], hashed: Mapping[str, HashedImage]) -> tuple[list[Item], list[Unusable]]:
    """Questions whose images can all be used, with what these show, and the other rows."""
    items: list[Item] = []
    unusable: list[Unusable] = []
    for row in rows.values():
        image = row.question.metadata.get("image")
        found = [hashed[image_name(image)] for image in row.question.images]
        failed = next((one for one in found if one.problem is not None), None)
        if failed is not None:
            name = str(row.question.metadata.get("image", failed.name))
            unusable.append(Unusable(row.file, row.row, "image", failed.problem or "", shortened(name)))
            continue
        # A question without images is told by the name of its image, or by its text.
        without = f"name {image}" if image else json.dumps([row.question.text, row.question.options])
        items.append(Item(row.question, tuple(one.content or "" for one in found) or (without,)))
    return items, unusable


def left_out_row(rows: Mapping[str, Row], item: Item) -> Unusable:
    """The record of a usable question that is in no split."""
    row = rows[item.question.id]
    reason = "left out: its image is in another split"
    return Unusable(row.file, row.row, "split", reason, str(item.question.metadata["split"]))


def most_frequent(unusable: Sequence[Unusable]) -> str:
    """A sentence about the reason that most rows have."""
    counts = unusable_counts(unusable)
    if not counts:
        return "The files hold no rows."
    first = next(row for row in unusable if (row.field, row.reason) == (counts[0]["field"], counts[0]["reason"]))
    return (
        f"Most often the field {first.field!r} {first.reason} ({counts[0]['rows']} rows; the first is row {first.row} "
        f"of {first.source}: {first.value})."
    )
