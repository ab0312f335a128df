"""Rows of a source, sorted into questions that can be used and rows that cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
        file, place = str(row.metadata.get("file", source.name)), int(row.metadata.get("row", number))
        if not _is_text(row):
            reason = "holds characters that are no text (half of a surrogate pair)"
            unusable.append(Unusable(file, place, "question", reason, shortened(row.text)))
        elif row.id in rows:
            unusable.append(Unusable(file, place, "id", "is already the id of another row", shortened(row.id)))
        elif settings.split == "given" and row.metadata.get("split") not in SPLITS:
            value = shortened(row.metadata.get("split"))
            unusable.append(Unusable(file, place, "split", f"is none of {', '.join(SPLITS)}", value))
        else:
            images = tuple(Path(image) if isinstance(image, str) else image for image in row.images)
            rows[row.id] = Row(replace(row, images=images), file, place)
    return rows, unusable


def _is_text(question: Question) -> bool:
    """JSON can spell halves of characters, which no file can hold as UTF-8."""
    texts = (question.id, question.text, question.answer, *question.options, question.modality, question.task)
    try:
        json.dumps([*texts, dict(question.metadata)], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def usable_items(rows: Mapping[str, Row], hashed: Mapping[str, HashedImage]) -> tuple[list[Item], list[Unusable]]:
    """Questions whose images can all be used, with what these show, and the other rows."""
    items: list[Item] = []
    unusable: list[Unusable] = []
    for row in rows.values():
        found = [hashed[image_name(image)] for image in row.question.images]
        failed = next((one for one in found if one.problem is not None), None)
        if failed is not None:
            name = str(row.question.metadata.get("image", failed.name))
            unusable.append(Unusable(row.file, row.row, "image", failed.problem or "", shortened(name)))
        elif found:
            items.append(Item(row.question, tuple(one.content or "" for one in found)))
        else:
            items.append(Item(row.question, (_without_image(row.question),)))
    return items, unusable


def _without_image(question: Question) -> str:
    """What stands for the image of a question that comes without one."""
    image = question.metadata.get("image")
    return f"name {image}" if image else json.dumps([question.text, question.options])


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
