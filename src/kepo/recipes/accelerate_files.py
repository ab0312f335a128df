"""The accelerate configs that TRL and this package ship, found by their names."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from kepo.errors import ConfigError


def config_names() -> list[str]:
    """Names of the accelerate configs at hand: those that TRL ships, then ours."""
    return [path.stem for folder in _config_folders() for path in sorted(folder.glob("*.yaml"))]


def config_file(name: str) -> str:
    """The file of an accelerate config: the name of one of TRL's, of one of ours, or a path, in this order.

    Raises:
        ConfigError: There is none.
    """
    shipped = (folder / f"{name}.yaml" for folder in _config_folders())
    found = next((path for path in (*shipped, Path(name)) if path.is_file()), None)
    if found is None:
        names = ", ".join(config_names())
        raise ConfigError(f"accelerate_config {name!r} is neither a file nor one of these: {names}.")
    return str(found)


def _config_folders() -> tuple[Path, ...]:
    # From the packages above, because a folder without Python files is no path to importlib.resources.
    return tuple(Path(str(files(package))) / "accelerate_configs" for package in ("trl", "kepo.recipes"))
