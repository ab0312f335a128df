"""Where a prepared folder is put together: beside its place, so that a partial one is never taken for a whole one.

`.NAME.partial/` lies beside the folder NAME while it is made, and outlives an interruption:

```
hashed.jsonl         what every image shows, as far as it was opened
lock                 held by the process that works here
384x384/             the folder to be, its images first
```
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kepo.errors import ConfigError, DataError

CARD = "card.json"
IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folder beside `out` in which it is put together.

    Attributes:
        out: Where the result goes.
        folder: The workplace.
        result: The folder to be, below `folder`.
    """

    out: Path
    folder: Path
    result: Path

    @property
    def hashed(self) -> Path:
        """Keeps what was found out about images."""
        return self.folder / "hashed.jsonl"

    @property
    def images(self) -> Path:
        """The images of the folder to be."""
        return self.result / IMAGES

    def clear_all_but_images(self) -> None:
        """Takes away what an interrupted run wrote besides images."""
        for entry in self.result.iterdir():
            if entry.name != IMAGES:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def publish(self) -> None:
        """Puts the result in its place, and the folder that was there, and the workplace, away."""
        retired = self.folder / "retired"
        shutil.rmtree(retired, ignore_errors=True)
        if self.out.exists():
            self.out.rename(retired)
        self.result.rename(self.out)


@contextmanager
def workplace(out: Path, resized_to: str) -> Iterator[Workplace]:
    """The workplace of `out`, held against other processes, and removed once it is published.

    Raises:
        ConfigError: another process is at work there.
        DataError: the disk refuses.
    """
    folder = out.with_name(f".{out.name}.partial")
    place = Workplace(out, folder, folder / resized_to)
    try:
        place.images.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=0):
            yield place
            if not place.result.exists():
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise ConfigError(
            f"{out} is being prepared by another process; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error}. What is done is kept; the same command goes on."
        ) from error


def finished(out: Path, identity: Mapping[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The card of a folder that is finished and was made from the same source with the same settings; None to make it.

    Args:
        out: The folder.
        identity: What decides its content; compared with the card's `identity`.
        overwrite: Make it again, whatever it is, as long as it is a prepared folder.

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
    differing = [key for key, value in identity.items() if card["identity"].get(key) != value]
    if differing:
        raise ConfigError(
            f"{out} was prepared otherwise ({', '.join(_changes(card['identity'], identity))}); choose another --out, "
            "or replace it with --overwrite"
        )
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
