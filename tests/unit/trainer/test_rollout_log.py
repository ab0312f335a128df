"""The rollout log: every column where nothing was injected, and a file that is whole or not there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from kepo.errors import DataError
from kepo.runs import read_rollouts
from kepo.trainer.rollout_log import _schema, write_atomically

REPOSITORY = Path(__file__).parents[3]


def _table(step: int, hint: str | None) -> pa.Table:
    schema = _schema(["choice_accuracy"])
    row = dict.fromkeys(schema.names) | {"step": step, "hint": hint, "completion": "<script>{x}\n"}
    return pa.Table.from_pylist([row], schema=schema)


def test_steps_with_and_without_hints_are_read_as_one_table(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    write_atomically(_table(2, "look"), tmp_path / "rollouts" / "step-000002.parquet")
    write_atomically(_table(1, None), tmp_path / "rollouts" / "step-000001.parquet")
    assert read_rollouts(tmp_path).select(["step", "hint"]).to_pylist() == [
        {"step": 1, "hint": None},
        {"step": 2, "hint": "look"},
    ]
    assert not list((tmp_path / "rollouts").glob("*.tmp"))


def test_a_run_without_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rollout_log"):
        read_rollouts(tmp_path)


def test_every_column_is_described_in_the_docs() -> None:
    text = (REPOSITORY / "docs" / "rollout-log.md").read_text()
    missing = [name for name in _schema(["NAME"]).names if f"`{name}`" not in text]
    assert missing == []
