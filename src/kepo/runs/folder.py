"""A run folder: which files lie in it, how it is found and opened, and that none is overwritten silently.

```
run.json                   resolved config, versions, seed, command, git state, how the run ended
recipe.yaml                what was stated, recipes and command line merged; `kepo.recipes.launch` writes it
metrics.jsonl              every logged metric, a record per logging step
rollouts/step-*.parquet    every rollout of training
profile/                   phases, operators and trace of a few steps, see `kepo.runs.profile`
trained_on.parquet         what the training questions show, as hashes
evaluation/NAME.parquet    the records of one evaluation, with NAME.json beside it
checkpoint-N/              the model after N optimizer steps, with evaluations of its own
plan.json                  in a study: that its commands were all done, and with what; `kepo.studies.runner` writes it
```
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kepo.errors import ConfigError, DataError
from kepo.runs.evaluations import EVALUATIONS
from kepo.runs.manifest import MANIFEST, is_run, read_manifest
from kepo.runs.study import TUNING

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, opened."""

    folder: Path
    manifest: dict[str, Any]  # the content of `run.json`

    @property
    def arm(self) -> str:
        """Which method: the recipe's `arm`, else the name of its file, else the folder's."""
        source = self.setting("recipe", "source")
        return self.setting("run", "arm") or (Path(source).stem if source else self.folder.name)

    @property
    def replicate(self) -> str:
        """Which repetition: runs of different arms with the same one are compared in pairs. Default: the seed."""
        return self.setting("run", "replicate") or f"seed {self.manifest.get('seed', '?')}"

    @property
    def status(self) -> str:
        """ "running", "finished", "interrupted" or "failed"."""
        return str(self.manifest.get("status", "unknown"))

    @property
    def evaluations(self) -> dict[str, Path]:
        """Name -> Parquet file of every evaluation in the folder, by name."""
        return {file.stem: file for file in sorted((self.folder / EVALUATIONS).glob("*.parquet"))}

    def setting(self, part: str, name: str, default: Any = None) -> Any:
        """A field of one part of the resolved config; the default where it is missing or null."""
        value = (self.manifest.get("config", {}).get(part) or {}).get(name)
        return default if value is None else value

    def located(self, path: str) -> Path:
        """Where a file that the run noted lies now: a study that was moved as a whole took its data along."""
        noted, home = Path(path), Path(self.setting("training", "output_dir", ""))
        if noted.exists() or not (noted.is_absolute() and home.is_absolute()):
            return noted
        folder = self.folder.resolve()
        for up, old in enumerate(home.parents):
            if noted.is_relative_to(old) and up < len(folder.parents):
                return folder.parents[up] / noted.relative_to(old)
        return noted


def open_run(folder: str | Path) -> Run:
    """The run in `folder`.

    Raises:
        DataError: The folder holds no run, or its `run.json` is not JSON.
    """
    return Run(Path(folder), read_manifest(Path(folder)))


def checkpoints_in(folder: str | Path) -> dict[int, Path]:
    """Step -> folder of every whole checkpoint of a run, in the order of steps.

    What a checkpoint's trainer writes last is looked for: a run that was killed while it saved leaves half of one.
    """
    ends = Path(folder).glob("checkpoint-*/trainer_state.json")
    found = {int(match[1]): end.parent for end in ends if (match := _CHECKPOINT.fullmatch(end.parent.name))}
    return dict(sorted(found.items()))


def find_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Every run in the given folders and below them, each once, in the order of their names.

    Raises:
        DataError: A path does not exist, or there is no run in it.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; give run folders, or a folder that holds some.")
        # A hidden folder holds an older run that is about to be deleted, or one being written; trial runs are none.
        folders = [
            file.parent
            for file in sorted(path.rglob(MANIFEST))
            if not any(part.startswith(".") or part == TUNING for part in file.relative_to(path).parts)
        ]
        if not folders:
            raise DataError(f"{path} holds no run: there is no {MANIFEST} in it or below it.")
        for folder in folders:
            found.setdefault(folder.resolve(), open_run(folder))
    return list(found.values())


def claim(folder: Path, *, overwrite: bool, resume: str | None) -> str | None:
    """The checkpoint to resume a run in `folder` from, None for a new run; nothing is changed yet.

    With `overwrite` an older run there may be deleted (see `older_run_set_aside`). `resume` is "latest" (the last whole
    checkpoint), a checkpoint folder, or None.

    Raises:
        ConfigError: The folder holds something and neither was asked for, or there is no checkpoint to resume from.
    """
    if resume is not None:
        checkpoint = next(reversed(checkpoints_in(folder).values()), None) if resume == "latest" else Path(resume)
        if checkpoint is None or not checkpoint.is_dir():
            raise ConfigError(
                f"There is no checkpoint to resume from: {resume!r} in {folder}. Start without resume_from_checkpoint."
            )
        return str(checkpoint)
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not overwrite:
        raise ConfigError(
            f"{folder} is not empty. Choose another --output_dir, continue the run with "
            "--resume_from_checkpoint latest, or delete it and start again with --overwrite."
        )
    if not is_run(folder):
        raise ConfigError(
            f"{folder} was not made by this program (it has no {MANIFEST}), so --overwrite does not delete it. Choose "
            "another --output_dir."
        )
    return None


@contextmanager
def older_run_set_aside(folder: Path) -> Iterator[None]:
    """Delete the older run in `folder`, but only when what happens inside succeeds; else put it back."""
    aside = folder.with_name(f".{folder.name}.older")
    older = folder.is_dir() and any(folder.iterdir())
    if older:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        yield
    except BaseException:
        if older:
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
