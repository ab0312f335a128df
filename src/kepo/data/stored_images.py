"""Images that stand in a table itself, written to files once each, so that they can be read one at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kepo.files import replacing


def keep_image(data: bytes, folder: Path) -> Path:
    """Writes an encoded image to `folder`, unless it is there already.

    Args:
        data: The encoded image (PNG, JPEG, ...); not looked into here.
        folder: Where to; made if missing.

    Returns:
        The file, named by the image's content, so that no name out of a table can lead anywhere.
    """
    file = folder.resolve() / hashlib.sha256(data).hexdigest()
    if not file.is_file() or file.stat().st_size != len(data):
        with replacing(file) as partial:
            partial.write_bytes(data)
    return file
