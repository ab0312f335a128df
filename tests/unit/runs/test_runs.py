"""Reading run folders: which are found, what a run is called, and files that are half written or broken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kepo.errors import DataError
from kepo.runs import find_runs, open_run, read_metrics, read_rollouts


def _run(folder: Path, manifest: Mapping[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(manifest or {}))
    return folder


def test_runs_are_found_below_a_folder_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("kepo/seed-2", "kepo/seed-1", "grpo/seed-1"):
        _run(tmp_path / name)
    found = find_runs([tmp_path])
    assert [str(run.folder.relative_to(tmp_path)) for run in found] == ["grpo/seed-1", "kepo/seed-1", "kepo/seed-2"]


def test_a_run_is_found_once_however_often_it_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path / "study" / "run")
    (tmp_path / "link").symlink_to(run)
    found = find_runs([tmp_path / "link", run, tmp_path / "study"])
    assert [run.folder for run in found] == [tmp_path / "link"]


def test_paths_keep_the_order_they_are_given_in(tmp_path: Path) -> None:
    second, first = _run(tmp_path / "b"), _run(tmp_path / "a")
    assert [run.folder for run in find_runs([second, first])] == [second, first]


def test_hidden_folders_are_no_runs(tmp_path: Path) -> None:
    _run(tmp_path / ".run.older")
    _run(tmp_path / "study" / ".being-written" / "run")
    run = _run(tmp_path / "study" / "run")
    assert [found.folder for found in find_runs([tmp_path])] == [run]


def test_a_hidden_folder_above_does_not_hide_a_run(tmp_path: Path) -> None:
    run = _run(tmp_path / ".cache" / "run")
    assert [found.folder for found in find_runs([tmp_path / ".cache"])] == [run]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    _run(tmp_path / ".only-hidden")
    with pytest.raises(DataError, match=r"holds no run: there is no run\.json"):
        find_runs([tmp_path])


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("{}")
    with pytest.raises(DataError, match=f"{name} is not a folder"):
        find_runs([tmp_path / name])


def test_one_broken_run_is_named(tmp_path: Path) -> None:
    _run(tmp_path / "good")
    (_run(tmp_path / "bad") / "run.json").write_text('{"status": ')
    with pytest.raises(DataError, match=r"bad/run\.json is not JSON"):
        find_runs([tmp_path])


@pytest.mark.parametrize("content", [b"", b'{"status": "run', b"\xff\xfe"])
def test_a_broken_manifest_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(DataError, match=r"run\.json is not JSON"):
        open_run(tmp_path)


def test_a_folder_without_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run folder: it has no run\.json"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "arm"),
    [
        ({"config": {"run": {"arm": "kepo"}, "recipe": {"source": "x/grpo.yaml"}}}, "kepo"),
        ({"config": {"run": {"arm": None}, "recipe": {"source": "x/grpo.yaml"}}}, "grpo"),
        ({"config": {"recipe": {"source": None}}}, "the-folder"),
        ({}, "the-folder"),
    ],
)
def test_the_arm_is_the_recipes_or_its_file_or_the_folder(tmp_path: Path, manifest: dict[str, Any], arm: str) -> None:
    assert open_run(_run(tmp_path / "the-folder", manifest)).arm == arm


@pytest.mark.parametrize(
    ("manifest", "replicate"),
    [
        ({"seed": 3, "config": {"run": {"replicate": "student-1/seed-2"}}}, "student-1/seed-2"),
        ({"seed": 3}, "seed 3"),
        ({"seed": 0}, "seed 0"),
        ({}, "seed ?"),
    ],
)
def test_the_replicate_is_named_or_the_seed(tmp_path: Path, manifest: dict[str, Any], replicate: str) -> None:
    assert open_run(_run(tmp_path / "run", manifest)).replicate == replicate


def test_the_status_of_a_manifest_without_one_is_unknown(tmp_path: Path) -> None:
    assert open_run(_run(tmp_path / "a", {"status": "failed"})).status == "failed"
    assert open_run(_run(tmp_path / "b")).status == "unknown"


def test_evaluations_by_name_without_half_written_ones(tmp_path: Path) -> None:
    run = open_run(_run(tmp_path / "run"))
    assert run.evaluations == {}
    folder = run.folder / "evaluation"
    (folder / ".test.parts").mkdir(parents=True)
    for name in ("validation.parquet", "test.parquet", "test.json", ".test.parts/part-0.parquet"):
        (folder / name).touch()
    assert list(run.evaluations.items()) == [
        ("test", folder / "test.parquet"),
        ("validation", folder / "validation.parquet"),
    ]


def test_metrics_of_a_run_that_logged_nothing(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").touch()
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("half", ['{"step": 3, "lo', "{", '"step": 3}', "\n"])
def test_a_half_written_line_of_metrics_is_left_out(tmp_path: Path, half: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": NaN}\n' + half)
    records = read_metrics(tmp_path)
    assert [record["step"] for record in records] == [1, 2]
    assert records[0] == {"step": 1, "loss": 0.5}


def test_rollouts_come_in_the_order_of_steps_with_all_columns(tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    for step, columns in ((10, {"reward/new": [0.5]}), (2, {})):
        fixed = {"step": [step], "id": ["q"], "completion": ["x"], "injected": [False]}
        pq.write_table(pa.table({**fixed, **columns}), folder / f"step-{step:06d}.parquet")
    (folder / ".step-000003.parquet.17.partial").write_text("half a file")
    found = read_rollouts(tmp_path, ["step", "reward/new"]).to_pylist()
    assert found == [{"step": 2, "reward/new": None}, {"step": 10, "reward/new": 0.5}]


def test_a_run_without_rollout_log_says_what_may_be_the_cause(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    with pytest.raises(DataError, match=r"no rollout log .*rollout_log=false"):
        read_rollouts(tmp_path)
