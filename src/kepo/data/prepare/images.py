"""What the images of a source show, and their resized copies.

An image is named by what it shows: a hash of its size and pixels in RGB. The same image under two names, or in two
file formats without loss, is one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from kepo.data.images import ImageError, as_rgb, decoded, frames_of, shallow
from kepo.data.prepare.settings import PrepareSettings
from kepo.data.sources import LazyImage
from kepo.errors import ConfigError, DataError
from kepo.files import image_hash, replacing
from kepo.workers import Worker, WorkerDiedError, available_workers, carry_out, progress_bars, started

if TYPE_CHECKING:
    from PIL.Image import Image

AnyImage: TypeAlias = Path | LazyImage
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

# 128 bits: two of a billion images are alike by chance once in 10^21 times.
_HASH_LENGTH = 32
# Lossless, and within 15 % of the smallest size at a third of the time of Pillow's default.
_PNG_COMPRESSION = 3
_BATCH = 16
# Below this, starting processes takes longer than the work.
_PROCESSES_FROM = 64


@dataclass(frozen=True, slots=True)
class HashedImage:
    """One image, opened: the hash of its content in hexadecimal, or the problem with it, without details."""

    name: str
    content: str | None
    problem: str | None
    frames: int = 1  # of its file, the first of which is shown


def image_name(image: AnyImage) -> str:
    """The name of an image, unique in its source."""
    return str(image) if isinstance(image, Path) else image.name


def hash_images(
    images: Iterable[AnyImage], record: Path, state: str, *, workers: int | None = None, bar: bool = False
) -> dict[str, HashedImage]:
    """Decodes every image once: its name -> the hash of its content, or why it cannot be used.

    Args:
        images: Each name once.
        record: File that keeps the hashes. Its images are not opened again, unless the file of one has changed.
        state: Changes when the files of the source do; for images that are no files of their own.
        workers: See `work_through`.
        bar: Show progress.
    """
    known = _read_record(record)
    by_name = {image_name(image): image for image in images}
    states = {name: _file_state(one) if isinstance(one, Path) else state for name, one in by_name.items()}
    found = {name: known[name, at] for name, at in states.items() if (name, at) in known}
    todo = [image for name, image in by_name.items() if name not in found]
    with record.open("a", encoding="utf-8") as lines:
        for one in work_through(_hash_some, todo, workers, "Hashing images", bar):
            found[one.name] = one
            if one.content is not None:
                lines.write(json.dumps([one.name, states[one.name], one.content, one.frames]) + "\n")
    return found


def _read_record(record: Path) -> dict[tuple[str, str], HashedImage]:
    known: dict[tuple[str, str], HashedImage] = {}
    if not record.is_file():
        return known
    with record.open("r+b") as lines:
        whole = 0
        for line in lines:
            # The last line may have been cut short when a run was killed.
            if not line.endswith(b"\n"):
                break
            name, state, content, *frames = json.loads(line)
            known[name, state] = HashedImage(name, content, None, *frames)
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
    return [_hashed(image) for image in images]


def _hashed(image: AnyImage) -> HashedImage:
    try:
        opened = _opened(image)
        return HashedImage(image_name(image), content_of(opened), None, frames_of(opened))
    except ImageError as error:
        return HashedImage(image_name(image), None, error.reason)


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
    """Hash of what an image shows: its size, and its pixels in RGB on white."""
    return image_hash(image)[:_HASH_LENGTH]


def write_images(
    wanted: Mapping[str, AnyImage],
    folder: Path,
    settings: PrepareSettings,
    workers: int | None = None,
    bar: bool = False,
) -> None:
    """Resized copies `CONTENT.png`; `folder` holds these and no other file at the end.

    Args:
        wanted: Content -> an image with that content; copies in `folder` are not made again.

    Raises:
        DataError: an image has changed since it was hashed, or the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = set(os.listdir(folder))
    for name in there - {f"{content}.png" for content in wanted}:
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
    if max(image.size) <= settings.longest_side:
        return as_rgb(image)
    width, height = (max(1, round(side * settings.longest_side / max(image.size))) for side in image.size)
    return as_rgb(image).resize((width, height), Resampling.BICUBIC)


def work_through(
    task: Callable[[Sequence[_Job]], list[_Result]], jobs: Sequence[_Job], workers: int | None, title: str, bar: bool
) -> Iterator[_Result]:
    """The results of `task`, which takes some of the `jobs` at once, in the order in which they are ready.

    Args:
        workers: Processes, >= 1; None: one per core. With one, or few jobs, all happens in this process.

    Raises:
        ConfigError: `workers` is less than 1.
        DataError: a process was ended from outside, as happens when memory runs out.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; give at least 1")
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    processes = min(workers or available_workers(), len(batches))
    with progress_bars(not bar or not jobs) as progress:
        shown = progress.add_task(title, total=len(jobs))
        alone = processes < 2 or len(jobs) < _PROCESSES_FROM
        for results in map(task, batches) if alone else _in_processes(task, batches, processes):
            progress.advance(shown, len(results))
            yield from results


def _in_processes(
    task: Callable[[Sequence[_Job]], list[_Result]], batches: Sequence[Sequence[_Job]], processes: int
) -> Iterator[list[_Result]]:
    workers: Iterator[Worker[Sequence[_Job], list[_Result]]] = (Worker(_unchanged, task) for _ in range(processes))
    with started(workers) as running:
        for ended in carry_out(running, batches):
            if isinstance(ended.error, WorkerDiedError):
                reason = "a worker process was ended from outside, perhaps because memory ran out"
                advice = "the same command continues, and --workers with a lower number needs less memory"
                raise DataError(f"{reason}; {advice}") from ended.error
            if ended.error is not None:
                raise ended.error
            yield ended.result or []


def _unchanged(task: Callable[[Sequence[_Job]], list[_Result]]) -> Callable[[Sequence[_Job]], list[_Result]]:
    return task
