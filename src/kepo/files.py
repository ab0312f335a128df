"""Hashes of content: what a model is shown, and nothing else, as one hash.

A hint is found by the content hash of the request for it: question, answer, options, images, level and template are all
in it (see `kepo.prompts.hint_request`), so a change of any of them is another hash. Who is asked is not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import DataError
from kepo.types import Conversation

if TYPE_CHECKING:
    from PIL.Image import Image


def content_hash(request: Conversation) -> str:
    """The content hash of a conversation: SHA-256 of its canonical JSON, as 64 hexadecimal digits.

    Only what is shown counts: a text has one hash whether it comes as one string or as several parts, an image
    whether it comes as PIL image or as path of its file (read upright and in RGB, as `datasets` decodes it).

    Args:
        request: Messages whose contents are texts, or lists of text and image parts.

    Raises:
        DataError: An image that cannot be opened, or a part that is neither text nor image.
    """
    shown = [[message["role"], _parts(message["content"])] for message in request]
    return hashlib.sha256(json.dumps(shown, separators=(",", ":")).encode()).hexdigest()


def _parts(content: Any) -> list[Any]:
    """The content as text and image parts; texts next to each other become one."""
    if isinstance(content, str):
        return [content]
    parts: list[Any] = []
    for part in content:
        shown = _part(part)
        if isinstance(shown, str) and parts and isinstance(parts[-1], str):
            parts[-1] += shown
        else:
            parts.append(shown)
    return parts


def _part(part: Mapping[str, Any]) -> Any:
    if part["type"] == "text":
        return part["text"]
    if part["type"] == "image" and part.get("image") is not None:
        return image_content(part["image"])
    raise DataError(
        f"a message holds a part of type {part['type']!r} with the fields {sorted(part)}; hints are kept for texts and "
        "for images that come as PIL image or as path."
    )


def image_content(image: Image | str | Path) -> dict[str, Any]:
    """An image as its size in pixels and the hash of its pixels in RGB, row by row."""
    opened = _opened(Path(image)) if isinstance(image, str | Path) else image
    rgb = opened if opened.mode == "RGB" else opened.convert("RGB")
    return {"size": list(rgb.size), "rgb": hashlib.sha256(rgb.tobytes()).hexdigest()}


def _opened(path: Path) -> Image:
    from PIL import Image as PilImage
    from PIL import ImageOps

    try:
        with PilImage.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError) as error:
        raise DataError(f"the image {path} of a question cannot be opened ({error}); mend or replace it.") from error
