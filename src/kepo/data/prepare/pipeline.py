"""The one pipeline of every source: read, hash the images, split, draw, resize, write, publish."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kepo.data.prepare import statistics
from kepo.data.prepare.card import render
from kepo.data.prepare.dataset import save_splits
from kepo.data.prepare.folder import CARD, Workplace, finished, workplace
from kepo.data.prepare.images import AnyImage, HashedImage, hash_images, image_name, write_images
from kepo.data.prepare.reading import Row, left_out_row, most_frequent, read_rows, usable_items
from kepo.data.prepare.settings import PrepareSettings
from kepo.data.prepare.splitting import LEFT_OUT, Item, draw, split_items
from kepo.data.sources import Source, Unusable
from kepo.errors import DataError
from kepo.types import SPLITS

UNUSABLE = "unusable.jsonl"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared folder.

    Attributes:
        folder: Where it lies.
        card: The content of its `card.json`.
        made: False where it was there already and nothing was touched.
    """

    folder: Path
    card: Mapping[str, Any]
    made: bool


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
        workers: Processes that decode images; None: one per core. They change nothing but the time it takes.
        overwrite: Replace a folder that was prepared otherwise.
        command: Stands in the data card.
        bar: Show progress.

    Returns:
        The folder and its card.

    Raises:
        ConfigError: settings that cannot work, or an `out` that may not be replaced.
        DataError: no row can be used, a file cannot be read, or the disk refuses.
    """
    settings = settings.resolved(source)
    out = Path(out).absolute()
    identity = {
        "source": source.name,
        "options": dict(source.options),
        "settings": asdict(settings),
        "files": [_described(file) for file in source.files],
    }
    card = finished(out, identity, overwrite)
    if card is not None:
        return Prepared(out, card, made=False)
    with workplace(out, settings.resized_to) as place:
        rows, unusable = read_rows(source, settings)
        hashed = _hashed(rows, place, identity, workers, bar)
        items, without_image = usable_items(rows, hashed)
        unusable = [*unusable, *without_image]
        if not items:
            raise DataError(f"{source.name}: not one row can be used. {most_frequent(unusable)}")
        indices = split_items(items, settings)
        whole = {split: [items[index] for index in found] for split, found in indices.items()}
        drawn = {
            split: [items[index] for index in draw(items, indices[split], count, settings.seed, split)]
            for split, count in settings.counts.items()
        }
        _write_images(drawn, place, settings, workers, bar)
        card = _card(source, settings, identity, whole, drawn, hashed, unusable, command)
        _write(place, drawn, card, [*unusable, *(left_out_row(rows, item) for item in whole[LEFT_OUT])])
        place.publish()
    return Prepared(out, card, made=True)


def _described(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            return {"name": file.name, "bytes": content.tell(), "sha256": digest}
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _hashed(
    rows: Mapping[str, Row], place: Workplace, identity: Mapping[str, Any], workers: int | None, bar: bool
) -> dict[str, HashedImage]:
    images: dict[str, AnyImage] = {}
    for row in rows.values():
        for image in row.question.images:
            images.setdefault(image_name(image), image)
    state = hashlib.sha256(json.dumps(identity["files"]).encode()).hexdigest()
    return hash_images(images.values(), place.hashed, state, workers=workers, bar=bar)


def _write_images(
    drawn: Mapping[str, Sequence[Item]], place: Workplace, settings: PrepareSettings, workers: int | None, bar: bool
) -> None:
    wanted: dict[str, AnyImage] = {}
    for items in drawn.values():
        for item in items:
            for content, image in zip(item.contents, item.question.images, strict=False):
                wanted.setdefault(content, image)
    write_images(wanted, place.images, settings, workers=workers, bar=bar)


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
    modalities = {item.question.modality or "unknown" for item in items}
    return {
        "name": source.name,
        "command": command,
        "seed": settings.seed,
        "settings": asdict(settings),
        "identity": {**identity, "images": bool(hashed)},
        "rows": {
            "total": len(items) + len(unusable),
            "usable": len(items),
            "unusable": len(unusable),
            "left_out": len(whole[LEFT_OUT]),
        },
        "unusable": statistics.unusable_counts(unusable),
        "splits": {split: statistics.of_split(drawn[split], len(whole[split])) for split in SPLITS},
        "shortfalls": statistics.shortfalls(drawn, settings.counts, modalities),
        "images": {
            "names": len(contents),
            "contents": len(set(contents)),
            "repeated": statistics.repeated(contents),
            "shared_images": statistics.shared_images(whole),
            "shared_drawn": statistics.shared_images(drawn),
        },
        "licenses": {dataset: source.license_of(dataset) for dataset in datasets},
        "notes": list(source.notes),
    }


def _write(
    place: Workplace, drawn: Mapping[str, Sequence[Item]], card: Mapping[str, Any], unusable: Sequence[Unusable]
) -> None:
    place.clear_all_but_images()
    if not card["identity"]["images"]:
        place.images.rmdir()
    save_splits(drawn, place.result)
    rows = sorted(unusable, key=lambda row: (row.source, row.row))
    lines = [json.dumps(row.record(), ensure_ascii=False) + "\n" for row in rows]
    (place.result / UNUSABLE).write_text("".join(lines), encoding="utf-8")
    (place.result / "README.md").write_text(render(card), encoding="utf-8")
    (place.result / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
