"""How the runner begins and ends runs, and what it says of a command that failed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import yaml

from kepo.studies import runner
from kepo.studies.execution import Executor
from kepo.studies.plan import RunPlan, plan_runs, write_recipes
from kepo.studies.reading import read_study
from kepo.studies.runner import _environment, _last_line, is_done, mark_done, run_plans


@pytest.fixture
def plans(tmp_path: Path) -> list[RunPlan]:
    content = {
        "data": "data",
        "out": str(tmp_path / "out"),
        "seeds": [1],
        "modalities": ["MRI"],
        "arms": {"grpo": "arms/grpo", "kepo": "arms/kepo"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    plans = plan_runs(read_study(str(tmp_path / "mine.yaml")))
    write_recipes(plans)
    return plans


class Noted(Executor):
    """Notes the commands; those of one run fail in one stage."""

    commands: list[tuple[str, ...]]
    fails = ("nothing", 0)

    def run(self, arguments: Sequence[str], log: Path, claim: int) -> int:
        self.commands.append(tuple(arguments))
        return self.fails[1] if self.fails[0] in " ".join(arguments) else 0

    def stop(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    noted: list[tuple[str, ...]] = []
    monkeypatch.setattr(Noted, "commands", noted, raising=False)
    monkeypatch.setattr(runner, "FreshProcesses", Noted)
    return noted


def test_a_run_that_fails_ends_and_stops_no_other(
    plans: list[RunPlan], commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noted, "fails", ("grpo--seed-1 --checkpoints", 3))
    said: list[str] = []
    failures = run_plans(plans, 1, [], said.append, quiet=True)
    assert [(failure.plan.arm.name, failure.stage) for failure in failures] == [("grpo", "validate")]
    assert said == ["MRI/grpo--seed-1: validate failed: $ kepo " + " ".join(commands[1]) + " (exit code 3)"]
    assert [command[0] for command in commands] == ["train", "eval", "train", "eval", "eval"]
    assert list(map(is_done, plans)) == [False, True]


def test_runs_that_are_done_are_left_alone(plans: list[RunPlan], commands: list[tuple[str, ...]]) -> None:
    for plan in plans:
        mark_done(plan)
    assert run_plans(plans, 1, [], print, quiet=True) == []
    assert commands == []


def test_a_run_that_is_begun_again_is_not_done_until_it_ends(
    plans: list[RunPlan], commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_done(plans[0])
    monkeypatch.setattr(runner, "is_done", lambda plan: False)
    monkeypatch.setattr(Noted, "fails", ("train", 1))
    run_plans(plans[:1], 1, [], lambda _: None, quiet=True)
    assert not is_done(plans[0])


def test_ctrl_c_waits_for_the_runs_under_way_only(
    plans: list[RunPlan], commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    def run(self: Noted, arguments: Sequence[str], log: Path, claim: int) -> int:
        self.commands.append(tuple(arguments))
        stopped.wait(10)
        return 130

    left: list[int] = []

    def waited(futures: Any, **how: Any) -> Any:
        if stopped.is_set():  # the last look, after the runs were stopped
            done, pending = wait(futures, timeout=2)
            left.append(len(pending))
            return done, pending
        raise KeyboardInterrupt

    monkeypatch.setattr(Noted, "run", run)
    monkeypatch.setattr(Noted, "stop", lambda self: stopped.set())
    monkeypatch.setattr(runner, "wait", waited)
    with pytest.raises(KeyboardInterrupt):
        run_plans(plans, 1, [], print, quiet=True)
    assert left == [0]
    assert not any(map(is_done, plans))
    assert len(commands) <= 1  # the run that was still waiting never began


def test_the_last_error_of_a_log_is_said(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("$ kepo train\nerror: learning_rate is 'x'; give a number\nbye\n\n")
    assert _last_line(log, 2) == "error: learning_rate is 'x'; give a number (exit code 2)"
    log.write_text("Traceback\nRuntimeError: out of memory\n")
    assert _last_line(log, 1) == "RuntimeError: out of memory (exit code 1)"
    log.write_text("")
    assert _last_line(log, -9) == " (exit code -9)"


def test_a_worker_sees_its_devices_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert _environment("1", 2)["CUDA_VISIBLE_DEVICES"] == "1"
    assert _environment("", 1)["CUDA_VISIBLE_DEVICES"] == ""
    alone = _environment(None, 1)
    assert alone["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "OMP_NUM_THREADS" not in alone
    assert int(_environment(None, 2)["OMP_NUM_THREADS"]) >= 1
