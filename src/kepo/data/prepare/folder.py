"""Where a prepared folder is put together: beside its place, so that a partial one is never taken for a whole one.

`.NAME.partial/` lies beside the folder NAME while it is made, and outlives an interruption:

```
hashed.jsonl         what every image shows, as far as it was opened
lock                 held by the process that works here
384x384/             the folder to be, its images first
```
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kepo.data.dataset import text_columns
from kepo.data.prepare.splitting import Item
from kepo.errors import ConfigError, DataError

CARD = "card.json"
IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folder beside `out` in which it is put together."""

    out: Path
    folder: Path
    result: Path  # the folder to be, below `folder`
    images: Path
    hashed: Path  # keeps the content hashes of the source's images

    def clear_all_but_images(self) -> None:
        """Removes what an interrupted run wrote besides images."""
        for entry in self.result.iterdir():
            if entry.name != IMAGES:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def publish(self) -> None:
        """Puts the result in its place, and removes the folder that was there."""
        retired = self.folder / "retired"
        shutil.rmtree(retired, ignore_errors=True)
        if self.out.exists():
            self.out.rename(retired)
        self.result.rename(self.out)


@contextmanager
def workplace(out: Path, resized_to: str) -> Iterator[Workplace]:
    """The workplace of `out`, locked against other processes, and removed once it is published."""
    folder = out.with_name(f".{out.name}.partial")
    result = folder / resized_to
    place = Workplace(out, folder, result, result / IMAGES, folder / "hashed.jsonl")
    try:
        place.images.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=0):
            yield place
            if not place.result.exists():
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise ConfigError(f"{out} is being prepared by another process; wait, or choose another --out") from error
    except OSError as error:
        kept = "What is done is kept; the same command goes on."
        raise DataError(f"{folder} cannot be written: {error}. {kept}") from error


def finished(out: Path, identity: Mapping[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The card of the folder `out` if it was made with this `identity` (source and settings); None: it is to be made.

    Raises:
        ConfigError: `out` holds something else, or was made otherwise and may not be overwritten.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    card = _card(out)
    if card is None:
        raise ConfigError(f"{out} is not empty, and no folder that kepo prepare made; choose another --out")
    if overwrite:
        return None
    if any(card["identity"].get(key) != value for key, value in identity.items()):
        changes, advice = ", ".join(_changes(card["identity"], identity)), "or replace it with --overwrite"
        raise ConfigError(f"{out} was prepared otherwise ({changes}); choose another --out, {advice}")
    return card


def _card(out: Path) -> dict[str, Any] | None:
    try:
        card = json.loads((out / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) and isinstance(card.get("identity"), dict) else None


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in new:
        if isinstance(new[key], Mapping) and isinstance(old.get(key), Mapping):
            yield from _changes(old[key], new[key])
        elif old.get(key) != new[key]:
            short = isinstance(new[key], str | int | float | bool | None)
            yield f"{key} was {old.get(key)!r}, is now {new[key]!r}" if short else f"other {key}"


def save_splits(drawn: Mapping[str, Sequence[Item]], folder: Path) -> None:
    """Writes a folder per split that has questions, and `dataset_dict.json`, into `folder`.

    Columns are those of `kepo.data.schema`. Images stand in it too, so that viewers and `push_to_hub` show them; what
    reads it here takes the files in `images/` instead, and opens a data set of any size without reading them.
    """
    from datasets import Dataset, DatasetDict, Features, Image, List, Value, disable_progress_bars, enable_progress_bars
    from datasets import are_progress_bars_disabled as bars_disabled

    text = Value("string")
    names = ("id", "question", "options", "answer", "images", "modality", "task", "metadata")
    types = {"options": List(text), "images": List(Image())}
    features = Features({name: types.get(name, text) for name in names})
    splits = {}
    for split, items in drawn.items():
        if items:
            columns = _columns(items, names)
            # By its content: `datasets` would take the place of the images for a part of it.
            fingerprint = hashlib.sha256(json.dumps(columns).encode()).hexdigest()[:16]
            columns["images"] = [[str(folder / path) for path in paths] for paths in columns["images"]]
            made = Dataset.from_dict(columns, features, split=split)
            splits[split] = Dataset(made.data, info=made.info, split=made.split, fingerprint=fingerprint)
    shown = not bars_disabled()
    disable_progress_bars()
    try:
        DatasetDict(splits).save_to_disk(folder)
    finally:
        if shown:
            enable_progress_bars()


def _columns(items: Sequence[Item], names: Sequence[str]) -> dict[str, list[Any]]:
    columns = text_columns([item.question for item in items], sort_keys=True)
    # Saving puts the content of a file in the place of its path, batch by batch.
    columns["images"] = [[f"{IMAGES}/{one}.png" for one in item.contents if item.question.images] for item in items]
    return {name: columns[name] for name in names}
