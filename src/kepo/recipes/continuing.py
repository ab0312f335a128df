"""What `kepo train --continue` does with a run that lies there already. Nothing here imports torch or TRL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kepo.errors import ConfigError
from kepo.recipes.files import override_values, read_recipes, stated
from kepo.runs import MANIFEST, checkpoints_in, open_run

_FOLDER = "output_dir"
_SHOWN = 4


def how_to_continue(recipes: Sequence[str], overrides: Sequence[str]) -> list[str] | None:
    """The arguments that make the command with these recipes and overrides go on with its run, wherever it is.

    They name the checkpoint to resume from, or say that a run without one is begun again; None when it is finished.

    Raises:
        ConfigError: The run that lies there says other settings, or nobody knows which.
        DataError: Its `run.json` is damaged.
    """
    folder = run_folder_of(recipes, overrides)
    if not (folder / MANIFEST).is_file():
        return []
    manifest = open_run(folder).manifest
    _check_same(folder, manifest.get("stated"), stated(recipes, overrides))
    if manifest.get("status") == "finished":
        return None
    checkpoints = checkpoints_in(folder)
    return ["--resume_from_checkpoint", str(checkpoints[max(checkpoints)])] if checkpoints else ["--overwrite", "true"]


def run_folder_of(recipes: Sequence[str], overrides: Sequence[str]) -> Path:
    """Where the run of these recipes goes.

    Raises:
        ConfigError: Neither a recipe nor the command line names `output_dir`.
    """
    folder = override_values(overrides).get(_FOLDER) or read_recipes(recipes).get(_FOLDER)
    if not folder:
        raise ConfigError(
            f"{' '.join(recipes)}: output_dir is missing, so there is no run to continue; name the run's folder"
        )
    return Path(str(folder))


def _check_same(folder: Path, theirs: dict[str, Any] | None, ours: dict[str, Any]) -> None:
    """Refuse to go on with a run that states other settings (see `kepo.recipes.files.stated`)."""
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
