"""The rollout log: every column where nothing was injected, and a file that is whole or not there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kepo.errors import DataError
from kepo.runs import Run, is_correct, read_rollouts
from kepo.runs.rollouts import rollout_schema, write_rollouts

REPOSITORY = Path(__file__).parents[3]


def _write(run: Path, step: int, hint: str | None = None, **columns: Any) -> Path:
    row = {"step": step, "process": 0, "row": 0, "hint": hint, "completion": "<script>{x}\n", **columns}
    return write_rollouts(run, step, [row], ["choice_accuracy"])


def test_steps_with_and_without_hints_are_read_as_one_table(tmp_path: Path) -> None:
    _write(tmp_path, 2, "look")
    _write(tmp_path, 1)
    assert read_rollouts(tmp_path).select(["step", "hint"]).to_pylist() == [
        {"step": 1, "hint": None},
        {"step": 2, "hint": "look"},
    ]
    names = sorted(file.name for file in (tmp_path / "rollouts").iterdir())
    assert names == ["step-000001.parquet", "step-000002.parquet"]


def test_a_run_without_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rollout_log"):
        read_rollouts(tmp_path)


def test_every_column_is_described_in_the_docs() -> None:
    text = (REPOSITORY / "docs" / "rollout-log.md").read_text()
    missing = [name for name in rollout_schema(["NAME"]).names if f"`{name}`" not in text]
    assert missing == []


def _run(**training: Any) -> Run:
    return Run(Path("run"), {"config": {"training": training}})


def test_correct_is_what_the_reward_named_in_the_settings_says() -> None:
    both = {"reward/think_format": 1.0, "reward/choice_accuracy": 0.0}
    assert is_correct(_run(correctness_reward="choice_accuracy"), both) is False
    assert is_correct(_run(), both) is True  # the first reward, where none is named
    assert is_correct(_run(), {"reward/choice_accuracy": math.nan}) is None
    assert is_correct(_run(correctness_reward="gone"), both) is None


def test_a_file_that_is_no_rollout_log_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    file = _write(tmp_path, 1)
    pq.write_table(pa.table({"step": [1]}), file)
    with pytest.raises(DataError, match=r"step-000001\.parquet has no column 'id'"):
        read_rollouts(tmp_path)
    file.write_bytes(b"PAR1 half a file")
    with pytest.raises(DataError, match=r"step-000001\.parquet cannot be read .*delete it"):
        read_rollouts(tmp_path)


def test_a_log_of_an_older_version_has_the_names_of_today(tmp_path: Path) -> None:
    old = {"step": [1], "id": ["q"], "completion": ["x"], "injected": [False], "group_dead": [True]}
    (tmp_path / "rollouts").mkdir()
    pq.write_table(pa.table(old), tmp_path / "rollouts" / "step-000001.parquet")
    [row] = read_rollouts(tmp_path).to_pylist()
    assert (row["group_all_failed"], row["images"], row["metadata"]) == (True, None, None)
    assert "group_dead" not in row
    assert read_rollouts(tmp_path, ["group_all_failed", "images"]).to_pylist() == [
        {"group_all_failed": True, "images": None}
    ]
    assert "completion" not in read_rollouts(tmp_path, texts=False).column_names
