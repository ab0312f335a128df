"""`kepo inspect` as a user types it, on run folders that hold what a run may leave behind."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kepo.cli.inspect import inspect
from kepo.errors import DataError
from tests.rollout_runs import NAN, kepo_step, rollout, write_run

APP = typer.Typer()
APP.command()(inspect)


def _inspect(run: Path, *arguments: str, width: int = 80) -> str:
    """Standard output of the command; an error that a user can mend is raised."""
    result = CliRunner().invoke(APP, [str(run), *arguments], env={"COLUMNS": str(width)})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def _json(run: Path, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _inspect(run, "--json", *arguments).splitlines()]


@pytest.fixture
def kepo_run(tmp_path: Path) -> Path:
    metrics = [
        *({"step": step, "loss": 0.1 * step, "grad_norm": 2.0, "gate/open_share": 0.25} for step in range(1, 4)),
        {"step": 3, "train_runtime": 12.0, "loss": 0.3},
        {"step": 4, "eval_runtime": 1.0},
    ]
    return write_run(tmp_path / "run", {step: kepo_step(step) for step in range(1, 4)}, metrics, exploration="hint")


def test_steps_say_what_the_rollouts_and_the_metrics_say(kepo_run: Path) -> None:
    steps = _json(kepo_run)
    assert [step["step"] for step in steps] == [1, 2, 3]
    # 12 rollouts: 3 correct (one injected, all behind an open gate); 2 of 3 groups all-failed, both explored.
    expected = {
        "reward": (3 * 1.5 + 9 * 0.5) / 12,
        "correct": 3 / 12,
        "all_failed_groups": 2 / 3,
        "rescued_groups": 1 / 2,
        "injected": 1 / 12,
        "gate_open": 3 / 12,
        "loss": 0.2,
        "grad_norm": 2.0,
    }
    assert {key: steps[1][key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize("width", [80, 120])
def test_the_views_fit_the_terminal_and_lead_to_each_other(kepo_run: Path, width: int) -> None:
    steps = _inspect(kepo_run, width=width)
    assert "kepo  finished" in steps
    assert "--step" in steps
    groups = _inspect(kepo_run, "--step", "2", width=width)
    assert "--group" in groups
    rollouts = _inspect(kepo_run, "--step", "2", "--group", "2", width=width)
    assert "◆ injected, attempt 3" in rollouts
    assert max(len(line) for text in (steps, groups, rollouts) for line in text.splitlines()) <= width


def test_a_group_by_id_in_every_step_and_by_number_in_one(kepo_run: Path) -> None:
    assert [(r["step"], r["rollout"]) for r in _json(kepo_run, "--group", "q2")] == [
        (step, place) for step in (1, 2, 3) for place in (1, 2, 3, 4)
    ]
    by_number = _json(kepo_run, "--step", "2", "--group", "3")
    assert {(r["step"], r["id"], r["group"]) for r in by_number} == {(2, "q3", 3)}


def test_an_id_goes_before_a_number(tmp_path: Path) -> None:
    rows = [rollout(1, row, "2" if row < 4 else "1", 1.0) for row in range(8)]
    run = write_run(tmp_path / "run", {1: rows})
    assert {r["group"] for r in _json(run, "--step", "1", "--group", "2")} == {1}


@pytest.mark.parametrize(
    ("only", "rows"),
    [("injected", [4]), ("all-failed", list(range(4, 12))), ("open", [1, 3, 4]), ("incorrect", [0, 2, *range(5, 12)])],
)
def test_only_some_rollouts(kepo_run: Path, only: str, rows: list[int]) -> None:
    assert [record["row"] for record in _json(kepo_run, "--step", "2", "--only", only)] == rows
    assert len(_json(kepo_run, "--only", only)) == 3 * len(rows)
    assert f"rollout {rows[0] % 4 + 1} of 4" in _inspect(kepo_run, "--only", only, "--limit", "1")


def test_only_what_is_not_there(kepo_run: Path) -> None:
    assert "No rollout here is 'injected'" in _inspect(kepo_run, "--group", "q1", "--only", "injected")
    assert _json(kepo_run, "--group", "q1", "--only", "injected") == []


def test_limits(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {step: kepo_step(step) for step in range(1, 26)})
    shown = _inspect(run)
    assert "20 of 25 steps, the last ones; --limit 0 shows all." in shown
    assert re.findall(r"^ +(\d+) ", shown, re.MULTILINE) == [str(step) for step in range(6, 26)]
    assert "shows all" not in _inspect(run, "--limit", "0")
    assert [step["step"] for step in _json(run, "--limit", "2")] == [24, 25]
    assert len(_json(run)) == 25
    assert "1 of 3 groups" in _inspect(run, "--step", "4", "--limit", "1")
    assert [group["group"] for group in _json(run, "--step", "4", "--limit", "2")] == [1, 2]
    assert "20 of 75 rollouts" in _inspect(run, "--only", "open")


def test_groups_as_json(kepo_run: Path) -> None:
    _, rescued, failed = _json(kepo_run, "--step", "1")
    assert rescued == {
        "step": 1,
        "group": 2,
        "id": "q2",
        "modality": "MRI",
        "task": "Disease Diagnosis",
        "answer": "A",
        "rewards": [1.5, 0.5, 0.5, 0.5],
        "correct": [True, False, False, False],
        "injected": [True, False, False, False],
        "all_failed": True,
        "kept": 1,
        "attempts": 3,
        "failure": None,
    }
    assert (failed["kept"], failed["failure"]) == (0, "no hint")


def test_json_is_strict_and_harmless(tmp_path: Path) -> None:
    rows = [rollout(1, row, "q\x1b[31m", NAN, reward=NAN, completion="\x1b[2J\u202e\x9b") for row in range(4)]
    run = write_run(tmp_path / "run", {1: rows}, [{"step": 1, "grad_norm": NAN, "loss": math.inf}])
    for arguments in ((), ("--step", "1"), ("--step", "1", "--group", "1")):
        text = _inspect(run, "--json", *arguments)
        assert text.isascii()
        assert "\x1b" not in text
        assert "NaN" not in text
        assert "Infinity" not in text
    assert _json(run, "--step", "1", "--group", "1")[0]["completion"] == "\x1b[2J\u202e\x9b"
    assert _json(run, "--step", "1")[0]["correct"] == [None] * 4


def test_a_rollout_that_no_reward_applies_to_is_not_incorrect(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {1: [rollout(1, row, "q", (NAN, 0.0)[row]) for row in range(2)]})
    assert [record["row"] for record in _json(run, "--only", "incorrect")] == [1]
    assert _json(run)[0]["correct"] == 0.0


def test_an_unfinished_run_with_half_a_line_of_metrics(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {1: kepo_step(1), 2: kepo_step(2)}, [{"step": 1, "loss": 0.5}], status="running")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert "running" in _inspect(run)
    assert [step["loss"] for step in _json(run)] == [0.5, None]


def test_a_run_with_one_step_needs_no_step(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {7: kepo_step(7)})
    assert [step["step"] for step in _json(run)] == [7]
    assert {record["id"] for record in _json(run, "--group", "2")} == {"q2"}


def test_without_exploration_and_teacher_their_columns_are_left_out(tmp_path: Path) -> None:
    rows = [rollout(1, row, "q", float(row), gate=0.0) for row in range(4)]
    run = write_run(tmp_path / "run", {1: rows}, [{"step": 1, "loss": 0.5}], exploration="none")
    head = next(line for line in _inspect(run).splitlines() if line.startswith(" step"))
    assert head.split() == ["step", "reward", "correct", "failed", "loss"]
    assert _inspect(run, "--only", "all-failed").strip() == "No rollout here is 'all-failed'."


def test_metrics_speak_where_there_is_no_rollout_log(tmp_path: Path) -> None:
    metrics = [{"step": s, "loss": 0.5, "reward": 0.25, "exploration/all_failed_groups": 0.75} for s in (1, 2)]
    run = write_run(tmp_path / "run", {}, metrics)
    assert _json(run)[0] | {"step": 0} == {
        "step": 0,
        "reward": 0.25,
        "correct": None,
        "all_failed_groups": 0.75,
        "rescued_groups": None,
        "injected": None,
        "gate_open": None,
        "loss": 0.5,
        "grad_norm": None,
    }
    assert "--step N" not in _inspect(run)


def test_a_run_that_logged_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {}, status="running")
    assert "Nothing was logged yet." in _inspect(run)
    assert _json(run) == []


def test_groups_may_lie_across_processes(tmp_path: Path) -> None:
    """Six rows a process, four a group: the second group begins on one process and ends on the other."""
    rows = [
        rollout(1, row, f"q{(6 * process + row) // 4}", 1.0, process=process) for row in range(6) for process in (0, 1)
    ]
    run = write_run(tmp_path / "run", {1: rows})
    assert [(group["id"], len(group["rewards"])) for group in _json(run, "--step", "1")] == [
        ("q0", 4),
        ("q1", 4),
        ("q2", 4),
    ]
    assert [(r["process"], r["row"]) for r in _json(run, "--group", "q1")] == [(0, 4), (0, 5), (1, 0), (1, 1)]


def test_two_groups_of_one_question_stay_apart(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {1: [rollout(1, row, "q", 1.0) for row in range(8)]})
    assert [group["group"] for group in _json(run, "--step", "1")] == [1, 2]
    assert "group 1 of 2" in _inspect(run, "--step", "1", "--group", "q")
    assert "group 2 of 2" in _inspect(run, "--step", "1", "--group", "q")


def test_groups_by_id_where_their_size_is_not_known(tmp_path: Path) -> None:
    rows = [rollout(1, row, "ab"[row // 3], 1.0) for row in range(6)]
    run = write_run(tmp_path / "run", {1: rows}, num_generations=None)
    assert [(group["id"], len(group["rewards"])) for group in _json(run, "--step", "1")] == [("a", 3), ("b", 3)]


@pytest.mark.parametrize(
    ("settings", "correct"),
    [
        ({}, [False, True]),  # the first reward, at 1.0
        ({"correctness_reward": "think_format", "correctness_threshold": 0.5}, [True, True]),
        ({"correctness_threshold": 0.7}, [True, True]),  # 0.7 in float32 is below 0.7
        ({"correctness_reward": "not there"}, [None, None]),
    ],
)
def test_correct_is_what_the_run_calls_correct(
    tmp_path: Path, settings: dict[str, Any], correct: list[bool | None]
) -> None:
    rows = [rollout(1, row, "q", reward) for row, reward in enumerate([0.7, 1.0])]
    run = write_run(tmp_path / "run", {1: rows}, **{"num_generations": 2, **settings})
    assert _json(run, "--step", "1")[0]["correct"] == correct


def test_errors_say_what_there_is(kepo_run: Path, tmp_path: Path) -> None:
    (kepo_run / "rollouts" / "step-000009.parquet").write_bytes(
        (kepo_run / "rollouts" / "step-000003.parquet").read_bytes()
    )
    with pytest.raises(DataError, match=r"no rollouts of step 5; there are those of 1-3, 9\."):
        _inspect(kepo_run, "--step", "5")
    with pytest.raises(DataError, match=r"no group '8' in step 2, which has groups 1-3; the ids are 'q1', 'q2', 'q3'"):
        _inspect(kepo_run, "--step", "2", "--group", "8")
    with pytest.raises(DataError, match=r"no group '2' in the run \(a number needs --step\); the ids are 'q1'"):
        _inspect(kepo_run, "--group", "2")
    bare = write_run(tmp_path / "bare", {})
    with pytest.raises(DataError, match="has no rollout log"):
        _inspect(bare, "--step", "1")
    with pytest.raises(DataError, match="no run folder"):
        _inspect(tmp_path / "nowhere")
    (kepo_run / "rollouts" / "step-000002.parquet").write_bytes(b"PAR1 half a file")
    with pytest.raises(DataError, match=r"step-000002\.parquet cannot be read"):
        _inspect(kepo_run)


def test_ids_in_errors_are_harmless(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {1: [rollout(1, 0, "\x1b[2J\u202e", 1.0)]})
    with pytest.raises(DataError) as caught:
        _inspect(run, "--step", "1", "--group", "\x1b]0;x")
    assert str(caught.value).isascii()
    assert "\x1b" not in str(caught.value)


SCRIPT = """
import os, sys, time
from kepo.cli.inspect import inspect
import typer
app = typer.Typer()
app.command()(inspect)
try:
    app()
finally:
    unwanted = ("torch", "transformers", "trl", "datasets", "matplotlib", "scipy")
    heavy = [name for name in unwanted if name in sys.modules]
    print("heavy:", heavy, "seconds:", time.process_time(), file=sys.stderr)
"""


def _own_process(run: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(run), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_it_loads_nothing_heavy_and_answers_at_once(kepo_run: Path) -> None:
    done = _own_process(kepo_run, "--step", "1", "--group", "1")
    last = done.stderr.decode().splitlines()[-1]
    assert "heavy: []" in last
    assert float(last.split()[-1]) < 1.0
    assert b"rollout 1 of 4" in done.stdout


def test_a_pipe_gets_no_colours_and_a_terminal_gets_them_unless_plain(kepo_run: Path) -> None:
    arguments = ("--step", "1", "--group", "2")
    assert b"\x1b" not in _own_process(kepo_run, *arguments).stdout
    assert b"\x1b[" in _own_process(kepo_run, *arguments, FORCE_COLOR="1").stdout
    assert b"\x1b" not in _own_process(kepo_run, *arguments, "--plain", FORCE_COLOR="1").stdout


def test_an_encoding_that_lacks_a_character_shows_an_escape(tmp_path: Path) -> None:
    rows = [rollout(1, row, "q", 1.0, completion="肺 is lung") for row in range(4)]
    done = _own_process(write_run(tmp_path / "run", {1: rows}), "--group", "q", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert b"\\u80ba is lung" in done.stdout
