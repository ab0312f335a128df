"""Recipes as files: found by their names and merged with their bases. Nothing here imports torch or TRL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from kepo.errors import ConfigError

STUDIES = "studies"
"""The folder of shipped studies, which are no recipes."""

_CONTROLS = ("resume_from_checkpoint", "overwrite")
"""Fields that say what becomes of an older run, not what a run is."""


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    root = Path(str(files("kepo.recipes")))
    names = (path.relative_to(root).with_suffix("") for path in root.rglob("*.yaml"))
    return sorted(str(name) for name in names if not name.name.startswith("_") and name.parts[0] != STUDIES)


def find_file(name: str) -> Path | None:
    """The file at a path, or the one of this name that comes with the package; None where there is neither."""
    shipped = Path(str(files("kepo.recipes"))) / f"{name.removesuffix('.yaml')}.yaml"
    return next((path for path in (Path(name), shipped) if path.is_file()), None)


def find_recipe(name: str) -> Path:
    """The file of a recipe given as a path or as the name of a shipped one.

    Raises:
        ConfigError: There is neither.
    """
    path = find_file(name)
    if path is not None:
        return path
    raise ConfigError(f"There is no recipe {name!r}: neither a file, nor one of {', '.join(shipped_recipes())}.")


def read_recipe(path: Path) -> dict[str, Any]:
    """The fields of a recipe file, those of its `base:` recipes underneath, later ones over earlier ones.

    A base is named as a file beside the recipe or as a shipped recipe, without `.yaml`.

    Raises:
        ConfigError: Not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold fields as `name: value`, one per line.")
    bases = content.pop("base", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        beside = path.parent / f"{base}.yaml"
        merged |= read_recipe(beside if beside.is_file() else find_recipe(base))
    return {**merged, **content}


def stated(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What makes a run what it is, as far as somebody said so; survives JSON.

    Args:
        path: The recipe.
        overrides: Command-line arguments.

    Returns:
        "fields": those of the recipe and its bases; "overrides": the arguments. Without what only says how an older run
        in the folder is dealt with.

    Raises:
        ConfigError: as `read_recipe`.
    """
    fields = {name: value for name, value in read_recipe(path).items() if name not in _CONTROLS}
    plain: dict[str, Any] = json.loads(json.dumps({"fields": fields, "overrides": list(_kept(overrides))}, default=str))
    return plain


def _kept(overrides: Sequence[str]) -> Iterator[str]:
    dropping = False
    for word in overrides:
        if word.startswith("--"):
            dropping = word[2:].split("=")[0].replace("-", "_") in _CONTROLS
        if not dropping:
            yield word
