"""Thumbnails as data URIs, so that a report needs no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

_SIDE = 192
"""Longest side of a thumbnail, in pixels."""


class Thumbnails:
    """Collects images, each once, up to a total size.

    Args:
        budget: Characters of data URIs at most, all together.
    """

    def __init__(self, budget: int = 5_000_000) -> None:
        self._left = budget
        self._places: dict[Path, int | None] = {}
        self.uris: list[str] = []
        self.left_out = 0

    def add(self, file: Path) -> int | None:
        """The place of an image's data URI in `uris`, the same each time; None where the image cannot be shown."""
        if file not in self._places:
            self._places[file] = self._keep(_data_uri(file))
        return self._places[file]

    def _keep(self, uri: str | None) -> int | None:
        if uri is None:
            return None
        if len(uri) > self._left:
            self.left_out += 1
            return None
        self._left -= len(uri)
        self.uris.append(uri)
        return len(self.uris) - 1


def _data_uri(file: Path) -> str | None:
    """The image, made small, as PNG if it is tiny, else as JPEG; None where there is none or it is broken."""
    from PIL import Image

    from kepo.data.images import opened

    try:
        shown = opened(file).copy()
        shown.thumbnail((_SIDE, _SIDE))
        stream = io.BytesIO()
        kind = "PNG" if max(shown.size) <= _SIDE // 2 else "JPEG"
        shown.save(stream, kind, quality=82, optimize=True)
    # A broken file raises SyntaxError or ValueError as well, and an unreasonably large one its own error.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
