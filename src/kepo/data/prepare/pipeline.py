"""The one pipeline of every source: read, hash the images, split, draw, resize, write, publish."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kepo.data.contents import text_key
from kepo.data.images import several_frames
from kepo.data.prepare.card import of_split, render, shared_images, shortfalls, unusable_counts
from kepo.data.prepare.folder import CARD, finished, save_splits, workplace
from kepo.data.prepare.images import AnyImage, HashedImage, hash_images, image_name, write_images
from kepo.data.prepare.settings import PrepareSettings
from kepo.data.prepare.splitting import LEFT_OUT, Item, draw, split_items
from kepo.data.sources import Source, Unusable
from kepo.errors import DataError
from kepo.types import SPLITS, Question

UNUSABLE = "unusable.jsonl"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared folder."""

    folder: Path
    card: Mapping[str, Any]  # the content of its `card.json`
    made: bool  # False where it was there already and nothing was touched


def prepare(
    source: Source,
    settings: PrepareSettings,
    out: str | Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    command: str = "",
    bar: bool = False,
) -> Prepared:
    """Makes a folder of train, validation and test questions with their resized images and a data card.

    The folder appears whole or not at all. An interrupted call leaves what is done beside `out`; the same call goes on
    there and ends with the same bytes. If `out` was made from the same files with the same settings, nothing happens.

    Args:
        source: The questions; `source.rows` is read once, unless there is nothing to do.
        settings: Split, sample and image size.
        out: The folder to make.
        workers: Processes that decode images; None: one per core.
        overwrite: Replace a folder that was prepared otherwise.
        command: For the data card.
        bar: Show progress.

    Raises:
        ConfigError: settings that cannot work, or an `out` that may not be replaced.
        DataError: no row can be used, a file cannot be read, or the disk refuses.
    """
    settings, out = settings.resolved(source), Path(out).absolute()
    identity: dict[str, Any] = {"source": source.name, "options": dict(source.options), "settings": asdict(settings)}
    identity["files"] = [_described(file) for file in source.files]
    card = finished(out, identity, overwrite)
    if card is not None:
        return Prepared(out, card, made=False)
    with workplace(out, settings.resized_to) as place:
        rows, unusable = _read_rows(source, settings)
        images = {image_name(image): image for row in rows for image in row.question.images}
        state = hashlib.sha256(json.dumps(identity["files"]).encode()).hexdigest()
        hashed = hash_images(images.values(), place.hashed, state, workers=workers, bar=bar)
        items, without_image = _usable_items(rows, hashed)
        unusable = [*unusable, *without_image]
        if not items:
            raise DataError(f"{source.name}: not one row can be used. {_most_frequent(unusable)}")
        indices = split_items(items, settings)
        whole = {split: [items[index] for index in found] for split, found in indices.items()}
        drawn = {
            split: [items[index] for index in draw(items, indices[split], count, settings.seed, split)]
            for split, count in settings.counts.items()
        }
        write_images(_images(drawn), place.images, settings, workers, bar)
        card = _card(source, settings, identity, whole, drawn, hashed, unusable, command)
        place.clear_all_but_images()
        if not hashed:
            place.images.rmdir()
        save_splits(drawn, place.result)
        reason = "left out: its image is in another split"
        unusable += [item.unusable("split", reason, item.question.metadata["split"]) for item in whole[LEFT_OUT]]
        unusable.sort(key=lambda row: (row.source, row.row))
        lines = [json.dumps(row.record(), ensure_ascii=False) + "\n" for row in unusable]
        texts = {UNUSABLE: "".join(lines), "README.md": render(card)}
        texts[CARD] = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
        for name, text in texts.items():
            (place.result / name).write_text(text, encoding="utf-8")
        place.publish()
    return Prepared(out, card, made=True)


def _described(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            return {"name": file.name, "bytes": content.tell(), "sha256": digest}
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _images(drawn: Mapping[str, Sequence[Item]]) -> dict[str, AnyImage]:
    """Content -> the first of the images with it."""
    images: dict[str, AnyImage] = {}
    for item in (item for items in drawn.values() for item in items):
        for content, image in zip(item.contents, item.question.images, strict=False):
            images.setdefault(content, image)
    return images


def _card(
    source: Source,
    settings: PrepareSettings,
    identity: Mapping[str, Any],
    whole: Mapping[str, Sequence[Item]],
    drawn: Mapping[str, Sequence[Item]],
    hashed: Mapping[str, HashedImage],
    unusable: Sequence[Unusable],
    command: str,
) -> dict[str, Any]:
    items = [item for part in whole.values() for item in part]
    datasets = sorted({str(item.question.metadata["dataset"]) for item in items})
    contents = [one.content for one in hashed.values() if one.content is not None]
    shown = {Path(one.name).name: one.frames for one in hashed.values()}
    modalities = {item.question.modality or "unknown" for item in items}
    counts = {"usable": len(items), "unusable": len(unusable), "left_out": len(whole[LEFT_OUT])}
    return {
        "name": source.name,
        "command": command,
        "seed": settings.seed,
        "settings": asdict(settings),
        "identity": {**identity, "images": bool(hashed)},
        "rows": {"total": len(items) + len(unusable), **counts},
        "unusable": unusable_counts(unusable),
        "splits": {split: of_split(drawn[split], len(whole[split])) for split in SPLITS},
        "shortfalls": shortfalls(drawn, settings.counts, modalities),
        "images": {
            "names": len(contents),
            "contents": len(set(contents)),
            "repeated": sum(count > 1 for count in Counter(contents).values()),
            "shared_images": shared_images(whole),
            "shared_drawn": shared_images(drawn),
        },
        "licenses": {dataset: source.license_of(dataset) for dataset in datasets},
        "notes": [*source.notes, *([frames] if (frames := several_frames(shown)) else [])],
    }


def _read_rows(source: Source, settings: PrepareSettings) -> tuple[list[Item], list[Unusable]]:
    """Questions whose images are still to be opened, and the rows that are none."""
    items: dict[str, Item] = {}
    unusable: list[Unusable] = []
    for number, row in enumerate(source.rows, start=1):
        if isinstance(row, Unusable):
            unusable.append(row)
            continue
        images = tuple(Path(image) if isinstance(image, str) else image for image in row.images)
        file, place = str(row.metadata.get("file", source.name)), int(row.metadata.get("row", number))
        item = Item(replace(row, images=images), (), file, place)
        problem = _problem(row, items, settings)
        if problem is None:
            items[row.id] = item
        else:
            unusable.append(item.unusable(*problem))
    return list(items.values()), unusable


def _problem(question: Question, known: Container[str], settings: PrepareSettings) -> tuple[str, str, Any] | None:
    """(field, reason, value) of what is wrong with a question."""
    split = question.metadata.get("split")
    try:
        json.dumps([asdict(replace(question, images=()))], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # JSON can spell halves of characters, which no file can hold as UTF-8.
        return "question", "holds characters that are no text (half of a surrogate pair)", question.text
    if question.id in known:
        return "id", "is already the id of another row", question.id
    if settings.split == "given" and split not in SPLITS:
        return "split", f"is none of {', '.join(SPLITS)}", split
    return None


def _usable_items(items: Sequence[Item], hashed: Mapping[str, HashedImage]) -> tuple[list[Item], list[Unusable]]:
    """Questions whose images can all be used, with the contents of these, and the other rows."""
    usable: list[Item] = []
    unusable: list[Unusable] = []
    for item in items:
        question, image = item.question, item.question.metadata.get("image")
        found = [hashed[image_name(one)] for one in question.images]
        failed = next((one for one in found if one.problem is not None), None)
        if failed is not None:
            name = str(question.metadata.get("image", failed.name))
            unusable.append(item.unusable("image", failed.problem or "", name))
            continue
        # A question without images is told by the name of its image, or by its text.
        without = f"name {image}" if image else text_key(question.text, question.options)
        usable.append(replace(item, contents=tuple(one.content or "" for one in found) or (without,)))
    return usable, unusable


def _most_frequent(unusable: Sequence[Unusable]) -> str:
    """A sentence about the reason that most rows have."""
    counts = unusable_counts(unusable)
    if not counts:
        return "The files hold no rows."
    first = next(row for row in unusable if (row.field, row.reason) == (counts[0]["field"], counts[0]["reason"]))
    example = f"{counts[0]['rows']} rows; the first is row {first.row} of {first.source}: {first.value}"
    return f"Most often the field {first.field!r} {first.reason} ({example})."
