"""The base models that come with the package."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from kepo.errors import ConfigError
from kepo.files import replacing

SHIPPED: tuple[str, ...] = ("student-1", "student-2", "student-3", "teacher-reliable")
"""Made by `kepo.phantom.build`, in half precision; the other teachers are built when a study needs them."""


def copy_models(folder: Path, names: Sequence[str] = SHIPPED) -> None:
    """Copy base models into `folder`, a folder each; those that are there are left alone.

    Raises:
        ConfigError: A name that is not in `SHIPPED`.
    """
    for name in names:
        if name not in SHIPPED:
            raise ConfigError(f"there is no base model {name!r} in the package; there are {', '.join(SHIPPED)}.")
        out = folder / name
        if out.is_dir():
            continue
        with replacing(out) as partial, as_file(files("kepo.phantom") / "weights" / name) as source:
            shutil.copytree(source, partial)
