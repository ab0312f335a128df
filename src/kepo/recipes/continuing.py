"""What `kepo train --continue` does with a run that lies there already. Nothing here imports torch or TRL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from kepo.errors import ConfigError
from kepo.recipes.files import read_recipes, stated
from kepo.runs import checkpoints_in, is_run, open_run

_FOLDER = "output_dir"
_SHOWN = 4


def how_to_continue(recipes: Sequence[str], overrides: Sequence[str]) -> list[str] | None:
    """The arguments that make the command go on with its run, wherever it is.

    Args:
        recipes: Paths, or names of shipped recipes.
        overrides: The command's own arguments.

    Returns:
        None when the run is finished; else the checkpoint to resume from, or that a run without one is begun again.

    Raises:
        ConfigError: The run that lies there says other settings, or nobody knows which.
        DataError: Its `run.json` is damaged.
    """
    folder = run_folder_of(recipes, overrides)
    if not is_run(folder):
        return []
    manifest = open_run(folder).manifest
    check_same(folder, manifest.get("stated"), stated(recipes, overrides))
    if manifest.get("status") == "finished":
        return None
    checkpoints = checkpoints_in(folder)
    if not checkpoints:
        return ["--overwrite", "true"]
    return ["--resume_from_checkpoint", str(checkpoints[max(checkpoints)])]


def run_folder_of(recipes: Sequence[str], overrides: Sequence[str]) -> Path:
    """Where the run of these recipes goes.

    Raises:
        ConfigError: Neither a recipe nor the command line names `output_dir`.
    """
    words = [word for argument in overrides for word in argument.split("=", 1)]
    named = [value for name, value in pairwise(words) if name in ("--output_dir", "--output-dir")]
    folder = named[-1] if named else read_recipes(recipes).get(_FOLDER)
    if not folder:
        raise ConfigError(
            f"{' '.join(recipes)}: output_dir is missing, so there is no run to continue; name the run's folder"
        )
    return Path(str(folder))


def check_same(folder: Path, theirs: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of other settings.

    Args:
        folder: The run folder.
        theirs: "stated" of its `run.json`.
        ours: What is to be run, see `kepo.recipes.files.stated`.

    Raises:
        ConfigError: names the settings that differ.
    """
    if theirs is None:
        raise ConfigError(f"{folder} does not say by which settings it was made; choose another output_dir")
    there, now = theirs.get("fields", {}), ours["fields"]
    differing = [name for name in {**there, **now} if name != _FOLDER and there.get(name) != now.get(name)]
    shown = [f"{name}: {there.get(name)!r} there, {now.get(name)!r} now" for name in differing[:_SHOWN]]
    if theirs.get("overrides") != ours["overrides"]:
        shown.append(f"arguments: {theirs.get('overrides')} there, {ours['overrides']} now")
    if shown:
        raise ConfigError(
            f"{folder} holds a run with other settings ({'; '.join(shown)}). Choose another output_dir, or start it "
            "again with --overwrite instead of --continue."
        )
