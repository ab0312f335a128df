"""What the images of a source show, and their resized copies.

An image is named by what it shows: a hash of its size and pixels in RGB. The same image under two names, or in two
file formats without loss, is one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kepo.data.images import ImageError, as_rgb, decoded, shallow
from kepo.data.prepare.parallel import work_through
from kepo.data.prepare.settings import PrepareSettings
from kepo.data.sources import LazyImage
from kepo.errors import DataError
from kepo.files import image_hash, replacing

if TYPE_CHECKING:
    from PIL.Image import Image

AnyImage: TypeAlias = Path | LazyImage

# 128 bits: two of a billion images are alike by chance once in 10^21 times.
_HASH_LENGTH = 32
# Lossless, and within 15 % of the smallest size at a third of the time of Pillow's default.
_PNG_COMPRESSION = 3


@dataclass(frozen=True, slots=True)
class HashedImage:
    """One image, opened: `content`, or the `problem` with it.

    Attributes:
        name: See `image_name`.
        content: Hash of what it shows, in hexadecimal; None where it cannot be used.
        problem: Why it cannot be used, in words without details.
    """

    name: str
    content: str | None
    problem: str | None


def image_name(image: AnyImage) -> str:
    """Unique in its source."""
    return str(image) if isinstance(image, Path) else image.name


def hash_images(
    images: Iterable[AnyImage], record: Path, state: str, *, workers: int | None = None, bar: bool = False
) -> dict[str, HashedImage]:
    """Decodes every image once, and says what each shows or why it cannot be used.

    Args:
        images: Each name once.
        record: File that keeps what was found. Images that it knows are not opened again, unless the file of one has
            changed; images with a problem are always opened again.
        state: Changes when the files of the source do; for images that are no files of their own.
        workers: See `kepo.data.prepare.parallel`.
        bar: Show progress.

    Returns:
        Name -> what was found.
    """
    known = _read_record(record)
    found: dict[str, HashedImage] = {}
    states: dict[str, str] = {}
    todo: list[AnyImage] = []
    for image in images:
        name = image_name(image)
        states[name] = _file_state(image) if isinstance(image, Path) else state
        content = known.get((name, states[name]))
        if content is None:
            todo.append(image)
        else:
            found[name] = HashedImage(name, content, None)
    with record.open("a", encoding="utf-8") as lines:
        for one in work_through(_hash_some, todo, workers, "Hashing images", bar):
            found[one.name] = one
            if one.content is not None:
                lines.write(json.dumps([one.name, states[one.name], one.content]) + "\n")
    return found


def _read_record(record: Path) -> dict[tuple[str, str], str]:
    known: dict[tuple[str, str], str] = {}
    if not record.is_file():
        return known
    with record.open("r+b") as lines:
        whole = 0
        for line in lines:
            # The last line may have been cut short when a run was killed.
            if not line.endswith(b"\n"):
                break
            name, state, content = json.loads(line)
            known[name, state] = content
            whole += len(line)
        lines.truncate(whole)
    return known


def _file_state(file: Path) -> str:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return "missing"
    return f"{status.st_size}-{status.st_mtime_ns}"


def _hash_some(images: Sequence[AnyImage]) -> list[HashedImage]:
    hashed = []
    for image in images:
        try:
            content, problem = content_of(_opened(image)), None
        except ImageError as error:
            content, problem = None, error.reason
        hashed.append(HashedImage(image_name(image), content, problem))
    return hashed


def _opened(image: AnyImage) -> Image:
    if isinstance(image, Path):
        return decoded(image)
    try:
        return shallow(image.load())
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError("cannot be read from its file", f" ({error})") from error


def content_of(image: Image) -> str:
    """Hash of what an image shows: its size, and its pixels in RGB."""
    return image_hash(image)[:_HASH_LENGTH]


def write_images(
    wanted: Mapping[str, AnyImage],
    folder: Path,
    settings: PrepareSettings,
    *,
    workers: int | None = None,
    bar: bool = False,
) -> None:
    """Resized copies `CONTENT.png`; `folder` holds these and no other file at the end.

    Args:
        wanted: Content -> an image that shows it.
        folder: Where to; copies that are there already are not made again.
        settings: How to resize.
        workers: See `kepo.data.prepare.parallel`.
        bar: Show progress.

    Raises:
        DataError: an image has changed since it was hashed, or the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"{content}.png" for content in wanted}
    there = {entry.name for entry in os.scandir(folder)}
    for name in there - names:
        (folder / name).unlink()
    todo = [(content, image) for content, image in wanted.items() if f"{content}.png" not in there]
    task = partial(_write_some, folder=folder, settings=settings)
    for problem in work_through(task, todo, workers, "Resizing images", bar):
        if problem is not None:
            raise DataError(problem)


def _write_some(jobs: Sequence[tuple[str, AnyImage]], folder: Path, settings: PrepareSettings) -> list[str | None]:
    return [_write(content, image, folder, settings) for content, image in jobs]


def _write(content: str, image: AnyImage, folder: Path, settings: PrepareSettings) -> str | None:
    """None, or what went wrong."""
    name = image_name(image)
    try:
        opened = _opened(image)
    except ImageError as error:
        return f"{name} {error}; it could be read a moment ago. The same command goes on from here."
    if content_of(opened) != content:
        return f"{name} has changed while it was being prepared; run the same command again"
    target = folder / f"{content}.png"
    try:
        with replacing(target) as partial_file:
            resized(opened, settings).save(partial_file, format="PNG", compress_level=_PNG_COMPRESSION)
    except OSError as error:
        return f"{target} cannot be written: {error}. Make room; the same command goes on from here."
    return None


def resized(image: Image, settings: PrepareSettings) -> Image:
    """`image` in RGB at the size that `settings` ask for, with the bicubic filter."""
    from PIL.Image import Resampling

    if settings.longest_side is None:
        return as_rgb(image, settings.size)
    rgb = as_rgb(image)
    longest = max(rgb.size)
    if longest <= settings.longest_side:
        return rgb
    width, height = (max(1, round(side * settings.longest_side / longest)) for side in rgb.size)
    return rgb.resize((width, height), Resampling.BICUBIC)
