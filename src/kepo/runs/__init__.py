"""What lies in a run folder, and how it is read again: the one place that knows the names of its files.

```
run.json                   resolved config, versions, seed, command, git state, how the run ended
metrics.jsonl              every logged metric, a record per logging step
rollouts/step-*.parquet    every rollout of training
evaluation/NAME.parquet    the records of one evaluation, with NAME.json beside it
checkpoint-N/              the model after N updates, with evaluations of its own
```

Nothing here imports torch, so that reports and the terminal open a run at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "run.json"
METRICS = "metrics.jsonl"
ROLLOUTS = "rollouts"
EVALUATIONS = "evaluation"
STUDY = "study.json"
RUNS = "runs"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_CHECKPOINT_END = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, opened.

    Attributes:
        folder: Where it lies.
        manifest: The content of `run.json`.
    """

    folder: Path
    manifest: dict[str, Any]

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

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Step -> folder of every whole checkpoint, in the order of steps."""
        return checkpoints_in(self.folder)

    def setting(self, part: str, name: str) -> Any:
        """A field of one part of the resolved config; None where there is none."""
        return (self.manifest.get("config", {}).get(part) or {}).get(name)


def open_run(folder: str | Path) -> Run:
    """The run in `folder`.

    Raises:
        DataError: The folder holds no run, or its `run.json` is not JSON.
    """
    file = Path(folder) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} is no run folder: it has no {MANIFEST}. Give the output_dir of a run.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not JSON ({error}); the run cannot be read.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config", {}), dict):
        raise DataError(f"{file} does not describe a run: a record with a record 'config' was expected.")
    return Run(Path(folder), manifest)


def checkpoints_in(folder: str | Path) -> dict[int, Path]:
    """Step -> folder of every whole checkpoint of a run, in the order of steps.

    What a checkpoint's trainer writes last is looked for: a run that was killed while it saved leaves half of one.
    """
    found = {
        int(match[1]): path
        for path in Path(folder).glob("checkpoint-*")
        if (match := CHECKPOINT.fullmatch(path.name)) and (path / _CHECKPOINT_END).is_file()
    }
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
        # A hidden folder holds an older run that is about to be deleted, or one that is being written.
        files = [
            file
            for file in sorted(path.rglob(MANIFEST))
            if not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not files:
            raise DataError(f"{path} holds no run: there is no {MANIFEST} in it or below it.")
        for file in files:
            found.setdefault(file.parent.resolve(), open_run(file.parent))
    return list(found.values())


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The logged metrics of a run in order, each with its `step`; empty when nothing was logged yet."""
    file = Path(folder) / METRICS
    if not file.is_file():
        return []
    return list(_whole_records(file.read_text(encoding="utf-8").splitlines()))


def _whole_records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """A run that is being written, or was killed while it wrote, may end in half a line."""
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and "step" in record:
            yield record


def read_rollouts(folder: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rollouts of a run, in the order of steps; the columns are described in `docs/rollout-log.md`.

    Args:
        folder: The run folder.
        columns: Read these only; None for all.

    Raises:
        DataError: The run folder has no rollout log.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((Path(folder) / ROLLOUTS).glob("step-*.parquet"))
    if not files:
        raise DataError(f"{folder} has no rollout log ({ROLLOUTS}/step-*.parquet); was it run with rollout_log=false?")
    return pa.concat_tables([pq.read_table(file, columns=columns) for file in files], promote_options="default")
