"""The rollout log: every rollout of every optimizer step, as Parquet in the run folder.

One file per generation batch, named by the optimizer step it was made for, written whole or not at all; a resumed run
writes the same names again. Columns are described in `docs/rollout-log.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import DataError
from kepo.files import write_table
from kepo.runs.folder import Run
from kepo.runs.renamed import read_columns

if TYPE_CHECKING:
    import pyarrow as pa

ROLLOUTS = "rollouts"
REWARD = "reward/"
"""What the column of a reward function begins with."""
TEXTS = ("prompt", "completion", "question", "options", "images", "metadata", "hint", "hints_tried")
"""The large columns."""
_REQUIRED = ("step", "id", "completion", "injected")


def rollout_schema(reward_names: Sequence[str]) -> pa.Schema:
    """The columns of the log, in order; fixed, because a batch without any hint would get columns of type null."""
    import pyarrow as pa

    text, whole, number, flag = pa.string(), pa.int32(), pa.float32(), pa.bool_()
    columns = [
        (pa.int64(), ["step"]),
        (whole, ["process", "row"]),
        (text, ["id", "modality", "task", "prompt", "completion", "question"]),
        (pa.list_(text), ["options"]),
        (text, ["answer"]),
        (whole, ["tokens"]),
        (number, [*(f"{REWARD}{name}" for name in reward_names), "reward", "advantage", "gate"]),
        (flag, ["group_all_failed", "injected"]),
        (whole, ["attempt", "attempts"]),
        (text, ["hint"]),
        (whole, ["hint_level"]),
        (pa.list_(text), ["hints_tried"]),
        (whole, ["leaked_hints"]),
        (text, ["exploration_failure"]),
        (pa.list_(text), ["images"]),
        (text, ["metadata"]),
    ]
    return pa.schema([(name, kind) for kind, names in columns for name in names])


def write_rollouts(folder: Path, step: int, rows: Sequence[Mapping[str, Any]], reward_names: Sequence[str]) -> Path:
    """Write the rollouts that all processes made for `step` (from 1), each with the columns of `rollout_schema`."""
    import pyarrow as pa

    table = pa.Table.from_pylist(list(rows), schema=rollout_schema(reward_names))
    return write_table(table, folder / ROLLOUTS / f"step-{step:06d}.parquet")


def rollout_files(folder: str | Path) -> dict[int, Path]:
    """Optimizer step -> file of the rollout log, in the order of steps; empty where there is no log."""
    return {int(file.stem[5:]): file for file in sorted((Path(folder) / ROLLOUTS).glob("step-*.parquet"))}


def read_rollouts(
    folder: str | Path, columns: Sequence[str] | None = None, *, step: int | None = None, texts: bool = True
) -> pa.Table:
    """The rollouts of a run in the order of steps, processes and rows; columns that its version did not write are null.

    Args:
        folder: The run folder.
        columns: Read these only; None for all, the large ones (`TEXTS`) only with `texts`.
        step: Read this optimizer step only; None for all.
        texts: See `columns`.

    Raises:
        DataError: There is no rollout log, none of this step, or a file of it is damaged or no rollout log.
    """
    import pyarrow as pa

    files = rollout_files(folder)
    if not files:
        raise DataError(
            f"{folder} has no rollout log ({ROLLOUTS}/step-*.parquet); was it run with rollout_log=false, or has it "
            "just begun?"
        )
    if step is not None and step not in files:
        raise DataError(f"{folder} has no rollouts of step {step}; there are those of {_ranges(list(files))}.")
    without, schema, tables = () if texts or columns else TEXTS, rollout_schema(()), []
    for file in files.values() if step is None else [files[step]]:
        table = read_columns(file, schema, _REQUIRED, "delete it to see the other steps", columns, without)
        if {"process", "row"} <= set(table.column_names):
            table = table.sort_by([("process", "ascending"), ("row", "ascending")])
        tables.append(table)
    return pa.concat_tables(tables, promote_options="default")


def all_failed_shares(run: Run) -> dict[int, float]:
    """Step -> share of groups without a correct rollout (0..1), of a run without exploration, by its logged rewards.

    For runs of versions that logged this metric with exploration only. Empty where the log does not say.

    Raises:
        DataError: As `read_rollouts`.
    """
    size = run.setting("training", "num_generations")
    if not size or run.setting("training", "exploration", "none") != "none" or not rollout_files(run.folder):
        return {}
    shares = {}
    for step in rollout_files(run.folder):
        rewards = read_rollouts(run.folder, step=step, texts=False).to_pylist()
        failed = [is_correct(run, rollout) is False for rollout in rewards]
        groups = [all(failed[start : start + size]) for start in range(0, len(failed), size)]
        if groups and len(failed) % size == 0:
            shares[step] = sum(groups) / len(groups)
    return shares


def is_correct(run: Run, rollout: Mapping[str, Any]) -> bool | None:
    """Whether the reward that says what is correct reached its threshold in a row of the log; None: not known.

    Args:
        run: Says which reward it is, and its threshold.
        rollout: A row of the rollout log.
    """
    name = run.setting("training", "correctness_reward")
    column = f"{REWARD}{name}" if name else next((key for key in rollout if key.startswith(REWARD)), "")
    reward = rollout.get(column)
    if reward is None or math.isnan(reward):
        return None
    # The log holds float32, in which a reward of 0.7 is a little less.
    return bool(reward >= run.setting("training", "correctness_threshold", 1.0) - 1e-6)


def _ranges(steps: Sequence[int]) -> str:
    """ "1-10, 12": sorted numbers, runs of them joined."""
    runs = [[step for _, step in part] for _, part in groupby(enumerate(steps), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in runs[:20])
