"""Warm processes: tasks in order, errors, deaths, Ctrl-C, and a parent that vanishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest

from kepo.errors import DataError
from kepo.workers import Worker, WorkerDiedError, available_workers, carry_out, started


class NegativeError(DataError):
    """An error that is made from more than its message, such as those of rows."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"{number} is {problem}")


def adder(start: int) -> Callable[[int], tuple[int, int]]:
    """Keeps a sum from task to task; negative numbers are refused, and 99 ends the process."""
    total = start

    def add(number: int) -> tuple[int, int]:
        nonlocal total
        if number < 0:
            raise NegativeError(number, "negative")
        if number == 99:
            os._exit(7)
        total += number
        return os.getpid(), total

    return add


def sleeper(file: str) -> Callable[[float], None]:
    """Sleeps, and notes when it is interrupted."""

    def sleep(seconds: float) -> None:
        Path(file).write_text("begun")
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            Path(file).write_text("interrupted")
            raise

    return sleep


def test_a_worker_keeps_its_state_and_outlives_errors_of_its_tasks() -> None:
    with started([Worker(adder, 10)]) as [worker]:
        found = list(carry_out([worker], [1, -2, 3]))
    assert [(ended.task, ended.result and ended.result[1]) for ended in found] == [(1, 11), (-2, None), (3, 14)]
    assert isinstance(found[1].error, DataError)
    assert str(found[1].error) == "-2 is negative"
    assert worker.process.exitcode == 0


def test_tasks_are_shared_out_and_no_more_are_asked_for_after_a_failure() -> None:
    failed: list[int] = []
    with started(Worker(adder, 0) for _ in range(2)) as workers:
        pids = {ended.result[0] for ended in carry_out(workers, range(40)) if ended.result}
        begun = list[int]()
        for ended in carry_out(workers, takewhile(lambda _: not failed, [-1, *range(2000)])):
            begun.append(ended.task)
            if ended.error:
                failed.append(ended.task)
    assert pids == {worker.process.pid for worker in workers}
    assert failed == [-1]
    assert len(begun) < 2001


def test_a_process_that_dies_is_told_and_the_others_go_on() -> None:
    with started(Worker(adder, 0) for _ in range(2)) as workers:
        found = {ended.task: ended for ended in carry_out(workers, [99, 1, 2, 3])}
    assert isinstance(found[99].error, WorkerDiedError)
    assert found[99].error.exit_code == 7
    assert {task for task, ended in found.items() if ended.error is None} == {1, 2, 3}


def test_a_block_that_fails_ends_its_workers_as_ctrl_c_does(tmp_path: Path) -> None:
    note, begun = tmp_path / "note", time.monotonic()
    worker = Worker(sleeper, str(note))

    def interrupted() -> None:
        with started([worker]):
            worker.send(60.0)
            while not note.is_file():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert note.read_text() == "interrupted"
    assert time.monotonic() - begun < 30
    assert worker.process.exitcode is not None


@pytest.mark.parametrize("how", ["killed", "left open"])
def test_workers_do_not_outlive_the_process_that_started_them(tmp_path: Path, how: str) -> None:
    end = "time.sleep(60)" if how == "killed" else "sys.exit(0)"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom kepo.workers import Worker\n"
        "from tests.unit.test_workers import sleeper\n"
        f"if __name__ == '__main__':\n    note = Path({str(tmp_path / 'note')!r})\n"
        "    worker = Worker(sleeper, str(note)); worker.send(60.0)\n"
        "    while not note.is_file(): time.sleep(0.05)\n"
        f"    print(worker.process.pid, flush=True); {end}\n"
    )
    (tmp_path / "script.py").write_text(code)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if how == "killed":
        parent.send_signal(signal.SIGKILL)
    parent.wait(30)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (tmp_path / "note").read_text() == "interrupted"
    assert not Path(f"/proc/{pid}").exists()


def test_there_is_at_least_one_core() -> None:
    assert available_workers() >= 1
