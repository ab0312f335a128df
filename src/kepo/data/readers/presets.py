"""Layouts of published data sets, as data: `presets.yaml`, see there how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from kepo.data.readers.table import TableMap
from kepo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Preset:
    """One layout.

    Attributes:
        map: Where the fields of a question stand in its tables.
        title: Names the data set in its card; None for a layout of many data sets.
        license: Of its images.
        question_files: Names of files to look for, in order of preference.
        image_folders: Names of folders to look for, in order of preference.
        notes: Sentences for the data card.
    """

    map: TableMap
    title: str | None = None
    license: str = "unknown"
    question_files: tuple[tuple[str, ...], ...] = ()
    image_folders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def preset(name: str) -> Preset:
    """The preset `name`.

    Raises:
        ConfigError: there is none of this name; the message lists those there are.
    """
    entries: Mapping[str, Any] = yaml.safe_load((files(__package__) / "presets.yaml").read_text(encoding="utf-8"))
    if name not in entries:
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(entries)}")
    entry = dict(entries[name])
    return Preset(
        map=TableMap(**entry.pop("map")),
        question_files=tuple(map(tuple, entry.pop("question_files", ()))),
        image_folders=tuple(entry.pop("image_folders", ())),
        notes=tuple(entry.pop("notes", ())),
        **entry,
    )
