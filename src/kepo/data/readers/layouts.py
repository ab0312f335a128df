"""Which known layout a table has, told by its columns; for messages, and for what a reader would overlook."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from kepo.errors import ConfigError

_OWN_TEXT = ("question", "text")
_OWN_OPTIONS = ("options", "option_A")
_OWN_IMAGES = ("image", "images")
_LIKE_OPTIONS = re.compile(r"(?:opt(?:ion)?|op|choice)[ _-]?(?:[A-Ja-j]|\d)|[A-J]|[Cc]hoices?|[Cc]andidates|[Oo]ptions")
_LIKE_IMAGES = re.compile(
    r"(?:image|img|figure|picture|photo)s?(?:[ _-]?(?:path|file|name|filename|file_name|url|id|\d+)s?)?", re.IGNORECASE
)


@cache
def preset_entries() -> Mapping[str, Any]:
    """The entries of `presets.yaml` by name."""
    return yaml.safe_load((files(__package__) / "presets.yaml").read_text(encoding="utf-8"))


def fitting_presets(columns: Iterable[str]) -> list[str]:
    """Names of the presets that a table with these columns fits, first those that read most of them.

    A preset fits if every field that it cannot do without has a column.
    """
    present = set(columns)
    read = {name: _read(entry["map"], present) for name, entry in preset_entries().items()}
    fits = [name for name, found in read.items() if found is not None]
    return sorted(fits, key=lambda name: -len(read[name] or ()))


def _read(table_map: Mapping[str, Any], present: set[str]) -> set[str] | None:
    """The columns of `present` that a map reads; None where it lacks one that it needs."""
    found: set[str] = set()
    for name, given in table_map["columns"].items():
        there = {path.partition(".")[0] for path in ([given] if isinstance(given, str) else given)} & present
        if not there and (isinstance(given, str) or name in ("question", "answer")):
            return None
        found |= there
    images = set(table_map.get("image_columns", ())) & present
    if table_map.get("image_columns") and not images and "image" not in table_map["columns"]:
        return None
    return found | images


def _fits_beyond(present: Sequence[str]) -> list[str]:
    """The fitting presets that read a column which is none of `kepo.data.schema`."""
    own, maps = {*_OWN_TEXT, *_OWN_OPTIONS, *_OWN_IMAGES, "answer", "id", "task"}, preset_entries()
    return [name for name in fitting_presets(present) if (_read(maps[name]["map"], set(present)) or set()) - own]


def columns_there(present: Sequence[str]) -> str:
    """The columns of a table, and the preset that they fit, for messages."""
    fits = _fits_beyond(present)
    listed = f"its columns are {', '.join(present) or 'none'}"
    if len(present) == 1 and any(mark in present[0] for mark in ",;\t|"):
        return f"{listed}; another delimiter is between them (--delimiter of kepo prepare table)"
    return f"{listed}; {_advice(fits)}" if fits else listed


def _advice(fits: Sequence[str]) -> str:
    return f"they fit the preset {' or '.join(fits[:2])} (data_preset: {fits[0]}, or --preset {fits[0]})"


def check_own_columns(source: object, present: Sequence[str]) -> None:
    """Raises ConfigError where a table without a preset lacks a column, or has options or images under other names."""
    for needed in (_OWN_TEXT, ("answer",)):
        if not set(needed) & set(present):
            raise ConfigError(f"{source}: there is no column {' or '.join(needed)}; {columns_there(present)}")
    for name, own, like in (("options", _OWN_OPTIONS, _LIKE_OPTIONS), ("images", _OWN_IMAGES, _LIKE_IMAGES)):
        hidden = [] if set(own) & set(present) else _overlooked(name, present)
        if hidden:
            preset, columns = hidden[0]
            named = f"{', '.join(columns)} {'holds' if len(columns) == 1 else 'hold'} {name} in the preset {preset}"
            advice = f"set data_preset: {preset}, name the columns (data_columns), or leave these columns out"
            raise ConfigError(f"{source}: {named}, and would not be read without it; {advice}")
        alike = [] if set(own) & set(present) else [column for column in present if like.fullmatch(column)]
        if alike and (name == "images" or len(alike) > 1 or len(alike[0]) > 1):
            field = "image" if name == "images" else "options, or option_A, option_B, ..."
            advice = f"name the columns (data_columns: {field}), or leave these columns out"
            raise ConfigError(f"{source}: {', '.join(alike)} look like {name}, and would not be read; {advice}")


def _overlooked(kind: str, present: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The fitting presets that read options or images from other columns, with these columns."""
    field, found = "option" if kind == "options" else "image", []
    for preset in _fits_beyond(present):
        table_map = preset_entries()[preset]["map"]
        given = [paths for name, paths in table_map["columns"].items() if name.startswith(field)]
        paths = [path for one in given for path in ([one] if isinstance(one, str) else one)]
        paths += table_map.get("image_columns", ()) if kind == "images" else ()
        if columns := [path for path in paths if path in present]:
            found.append((preset, columns))
    return found
