"""Keys of servers: read from where a user keeps them, sent in a header, written nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from kepo.errors import ConfigError


def read_api_key(variable: str | None = None, file: str | Path | None = None) -> str | None:
    """The key in the environment variable called `variable`, or in `file`; None when neither is named.

    Raises:
        ConfigError: both are named, or the one named is missing or empty.
    """
    if variable and file:
        raise ConfigError("the key is asked from an environment variable and from a file; name one of them")
    if variable:
        key = os.environ.get(variable, "").strip()
        where = f"the environment variable {variable}"
    elif file:
        path = Path(file)
        key = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        where = f"the file {file}"
    else:
        return None
    if not key or not key.isascii() or any(character.isspace() for character in key):
        raise ConfigError(f"{where} holds no key: it is missing, empty, or more than one word of ASCII")
    return key
