"""A run that version 0.1.0 made before columns and metrics got the field's names: `tests/data/run-v0`, cut down."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from kepo.cli.main import app
from kepo.runs import open_run, read_evaluation, read_metrics, read_rollouts

RUN = Path(__file__).parents[1] / "data" / "run-v0"


def _kepo(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_inspect_shows_its_steps_groups_and_rollouts() -> None:
    steps = [json.loads(line) for line in _kepo("inspect", str(RUN), "--json").splitlines()]
    assert [(step["step"], step["all_failed_groups"], step["rescued_groups"]) for step in steps] == [
        (3, 0.5, 1.0),
        (5, 0.5, 1.0),
    ]
    groups = [json.loads(line) for line in _kepo("inspect", str(RUN), "--step", "5", "--json").splitlines()]
    assert sorted((group["all_failed"], group["kept"]) for group in groups) == [(False, 0), (True, 1)]
    assert "injected, attempt" in _kepo("inspect", str(RUN), "--only", "injected")


def test_the_report_shows_it_and_says_what_its_log_lacks(tmp_path: Path) -> None:
    _kepo("report", str(RUN), "--out", str(tmp_path / "report.html"))
    text = (tmp_path / "report.html").read_text()
    assert "1 of 1 rollout logs are of a version that noted no images and no facts" in text
    assert "phantom-" in text


def test_every_file_has_the_names_of_today() -> None:
    assert open_run(RUN).arm == "kepo"
    evaluation = read_evaluation(RUN)
    assert evaluation.table["consistent"].to_pylist().count(None) < 6
    assert all("<answer>" in text for text in evaluation.table["completion"].to_pylist())
    assert not {"output", "agreement"} & set(evaluation.table.column_names)
    assert any("exploration/all_failed_groups" in record for record in read_metrics(RUN))
    assert any(read_rollouts(RUN)["group_all_failed"].to_pylist())
