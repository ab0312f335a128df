"""The layouts of `presets.yaml` by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kepo.data.readers.layouts import preset_entries
from kepo.data.readers.table import TableMap
from kepo.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Preset:
    """The layout of a published data set, or of the rows of another trainer."""

    map: TableMap
    title: str | None = None  # names the data set in its card; None for a layout of many data sets
    license: str = "unknown"  # of its images
    source: str | None = None  # where it is published
    question_files: Sequence[Sequence[str]] = ()  # names of files to look for, in order of preference
    image_folders: Sequence[str] = ()  # names of folders to look for, in order of preference
    notes: Sequence[str] = ()  # sentences for the data card


def load_preset(name: str) -> Preset:
    """The preset `name`; a ConfigError lists the names where there is none of this one."""
    entries = preset_entries()
    if name not in entries:
        close = nearest(name.lower().replace("_", "-"), entries)
        meant = f"; did you mean {close}?" if close else ""
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(entries)}{meant}")
    return Preset(**{**entries[name], "map": TableMap(**entries[name]["map"])})
