"""What `kepo train` shows: lines in a file, a table on a terminal, and how to go on after a stop."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from kepo.cli import train, training_display
from kepo.cli.training_display import Lines, LiveTable, TrainingDisplay
from kepo.workers import duration

LOG = {
    "reward": 0.4567,
    "exploration/all_failed_groups": 0.25,
    "exploration/rescued_groups": 0.5,
    "gate/open_share": 0.375,
    "loss": 0.01234,
    "completions/mean_length": 12.0,
}
HELD_OUT = {"eval_reward": 0.5, "eval_rewards/choice_accuracy/mean": 0.25, "eval_runtime": 1.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(training_display.time, "monotonic", lambda: now[0])
    return now


def _train(display: TrainingDisplay, clock: list[float], logged: dict[int, dict[str, Any]], main: bool = True) -> None:
    """Four steps of ten seconds."""
    state = SimpleNamespace(global_step=0, max_steps=4, is_world_process_zero=main)
    display.on_train_begin(None, state, None)
    for step in range(1, 5):
        clock[0] += 10
        state.global_step = step
        display.on_step_end(None, state, SimpleNamespace(should_log=step in logged))
        if step in logged:
            display.on_log(None, state, None, logs=logged[step])
    display.on_log(None, state, None, logs={"train_runtime": 40.0, "loss": 1.0})
    display.on_train_end(None, state, None)


def test_a_file_gets_a_short_line_per_step_and_nothing_that_moves(clock: list[float]) -> None:
    file = io.StringIO()
    _train(Lines(Console(file=file)), clock, {1: LOG, 3: LOG, 4: HELD_OUT})
    lines = file.getvalue().splitlines()
    said = "reward 0.457  all-failed 25%  rescued 50%  gate open 38%  loss 0.01234  seconds 10.0"
    assert lines == [
        f"step 1/4  {said}  left 30 s",
        "step 2/4  left 20 s",
        f"step 3/4  {said}  left 10 s",
        "step 4/4  held out:  reward 0.500  choice_accuracy 0.250",
    ]
    assert not {"\r", "\x1b", "{"} & set(file.getvalue())


def test_other_processes_show_nothing(clock: list[float]) -> None:
    file = io.StringIO()
    _train(Lines(Console(file=file)), clock, {1: LOG}, main=False)
    assert file.getvalue() == ""


def test_a_terminal_gets_a_bar_with_the_time_left_and_a_table(clock: list[float]) -> None:
    display = LiveTable(Console(file=io.StringIO(), force_terminal=True, width=100))
    state = SimpleNamespace(global_step=0, max_steps=400, is_world_process_zero=False)
    display.on_train_begin(None, state, None)
    state.is_world_process_zero = True
    for step in range(1, 31):
        clock[0], state.global_step = 10.0 * step, step
        display.on_step_end(None, state, SimpleNamespace(should_log=True))
        display.on_log(None, state, None, logs=LOG)
    display.on_log(None, state, None, logs=HELD_OUT)
    shown = Console(file=io.StringIO(), width=100, record=True)
    shown.print(display._render())
    text = shown.export_text()
    assert "step 30/400" in text
    assert "5 min 00 s, 1 h 01 min left" in text
    assert "rescued" in text
    assert "held out, step 30: reward 0.500  choice_accuracy 0.250" in text
    assert len(text.splitlines()) == 1 + 1 + 12 + 1


def test_lines_are_for_everything_but_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr("sys.stdout", file)
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert isinstance(training_display.training_display(), Lines)


def test_durations_are_written_for_people() -> None:
    assert [duration(s) for s in (0.4, 45, 200, 7500)] == ["0 s", "45 s", "3 min 20 s", "2 h 05 min"]


def test_the_command_that_goes_on_is_the_one_that_was_given() -> None:
    overrides = ["--max_steps", "9", "--overwrite", "--resume_from_checkpoint", "latest", "--output_dir", "run"]
    assert train._again(["smollm2/kepo"], overrides, "zero3-8gpu") == [
        *("smollm2/kepo", "--max_steps", "9", "--output_dir", "run", "--accelerate-config", "zero3-8gpu", "--continue")
    ]
    assert train._again(["arms/kepo"], ["--seed", "1"], None)[-2:] == ["--resume_from_checkpoint", "latest"]


def test_a_stop_says_what_is_saved_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert "nothing was trained" in train._how_it_stopped(tmp_path, 0, 0, "kepo train x --continue")
    early = train._how_it_stopped(tmp_path, 3, 9, "kepo train x --continue")
    assert "no checkpoint yet" in early
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text("{}")
    said = train._how_it_stopped(tmp_path, 3, 9, "kepo train x --continue")
    assert said.startswith("Stopped after step 3 of 9.")
    assert said.endswith("checkpoint-2. To go on after step 2: kepo train x --continue")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert train._how_it_stopped(tmp_path, 3, 9, "kepo train x").endswith("the same command with --continue")
