"""Files that are written whole or not at all, and content hashes: what a model is shown, and nothing else, as one hash.

A hint's cache key is the content hash of the request for it: question, answer, options, images, level and template are
all in it (see `kepo.prompts.hint_request`), so a change of any of them is another hash. Who is asked is not part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import DataError
from kepo.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path`, for a file or a folder, that takes its place when the block ends without an error.

    So a reader, or a run that is killed, never meets half of it. The parents of `path` are made; a folder that is
    already there goes once the new one is complete.

    Raises:
        OSError: The disk refuses; see `readable_errors`.
    """
    partial, retired = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("partial", "old"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if path.is_dir() and partial.is_dir():
            path.rename(retired)
        partial.replace(path)
    finally:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
    shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turns what the operating system says about writing `path` into a DataError."""
    try:
        yield
    except OSError as error:
        advice = "Free space, fix the permissions or choose another place; the same command then goes on."
        raise DataError(f"{path} could not be written: {error}. {advice}") from error


def write_text(text: str, file: Path) -> Path:
    """Write a text file, whole or not at all; a failure of the disk is a DataError. Returns the file."""
    with readable_errors(file), replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")
    return file


def write_json(content: Any, file: Path) -> Path:
    """Write a JSON file for people and programs, like `write_text`; what JSON does not know is written as text."""
    return write_text(json.dumps(content, indent=2, default=str) + "\n", file)


def write_table(table: pa.Table, file: Path) -> Path:
    """Write a Parquet file, like `write_text`."""
    import pyarrow.parquet as pq

    with readable_errors(file), replacing(file) as partial:
        pq.write_table(table, partial, compression="zstd")
    return file


def content_hash(request: Conversation) -> str:
    """The hash of a conversation: SHA-256 of its canonical JSON, as 64 hexadecimal digits.

    Only what is shown counts: a text has one hash whether it comes as one string or as several parts, an image whether
    it comes as PIL image or as path of its file (shown as `as_shown` says). Hint banks hold these hashes, so their
    definition never changes.

    Raises:
        DataError: An image that cannot be opened, or a part that is neither text nor image.
    """
    shown = [[message["role"], _parts(message["content"])] for message in request]
    return hashlib.sha256(json.dumps(shown, separators=(",", ":")).encode()).hexdigest()


def image_hash(image: Image) -> str:
    """SHA-256 of what an image shows, its size and its pixels as `as_shown` gives them, as 64 hexadecimal digits.

    Prepared data sets name their images by it, so its definition never changes.
    """
    rgb = as_shown(image)
    return hashlib.sha256(f"{rgb.width}x{rgb.height}\n".encode() + rgb.tobytes()).hexdigest()


def as_shown(image: Image) -> Image:
    """What a model is shown of `image`: upright where its EXIF data says so, on white where it is transparent, in RGB.

    Training, evaluation, hints and prepared data sets all show images so. An image that is upright, opaque and RGB is
    returned as it is.
    """
    from PIL import Image as PilImage
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        # Drawings are often black on a transparent ground, which a plain conversion to RGB makes black as well.
        image = image.convert("RGBA")
        image = PilImage.alpha_composite(PilImage.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _parts(content: Any) -> list[Any]:
    """The content as text and image parts; texts next to each other become one."""
    if isinstance(content, str):
        return [content]
    parts: list[Any] = []
    for is_text, shown in groupby(map(_part, content), lambda part: isinstance(part, str)):
        parts.extend(["".join(shown)] if is_text else shown)  # noqa: B031
    return parts


def _part(part: Mapping[str, Any]) -> Any:
    if part["type"] == "text":
        return part["text"]
    if part["type"] == "image" and part.get("image") is not None:
        image = part["image"]
        rgb = _opened(Path(image)) if isinstance(image, str | Path) else as_shown(image)
        return {"size": list(rgb.size), "rgb": hashlib.sha256(rgb.tobytes()).hexdigest()}
    raise DataError(
        f"a message holds a part of type {part['type']!r} with the fields {sorted(part)}; hints are kept for texts and "
        "for images that come as PIL image or as path."
    )


def _opened(path: Path) -> Image:
    from PIL import Image as PilImage

    try:
        with PilImage.open(path) as file:
            return as_shown(file)
    except (OSError, ValueError) as error:
        raise DataError(f"the image {path} of a question cannot be opened ({error}); fix or replace it.") from error


def weights_fingerprint(name: str | Path) -> str:
    """A short text that changes when the weights in the folder `name` do; empty for a name on the hub."""
    # Evenly spread parts of each file are enough to tell two trained models apart: training moves every weight.
    spots, length = 256, 4096
    digest = hashlib.sha256()
    files = sorted(Path(name).glob("*.safetensors"))
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as weights:
            for spot in range(spots):
                weights.seek(size * spot // spots)
                digest.update(weights.read(length))
    return digest.hexdigest()[:16] if files else ""
