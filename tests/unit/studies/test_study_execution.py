"""Commands of a run in processes of their own and in one that stays warm: exit codes, logs, Ctrl-C, locks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kepo.studies.execution import Executor, FreshProcesses, WarmProcess


def _started(code: str) -> FreshProcesses:
    executor = FreshProcesses({})
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    executor._process = process
    return executor


def _code(executor: FreshProcesses) -> int:
    assert executor._process is not None
    return executor._process.wait(10)


def test_stopping_ends_a_command_as_ctrl_c_does_with_what_it_started() -> None:
    code = (
        "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "try:\n"
        "    print('up', flush=True)\n"
        "    child.wait()\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    executor = _started(code)
    executor.stop()
    assert _code(executor) == 130


def test_a_command_that_does_not_end_is_killed() -> None:
    deaf = _started(
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    deaf.stop()
    deaf.close()
    assert _code(deaf) == -signal.SIGKILL


@pytest.fixture(params=[FreshProcesses, WarmProcess])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor = request.param(dict(os.environ))
    yield executor
    executor.close()


@pytest.mark.slow
def test_both_ways_give_the_same_codes_and_logs_and_hold_the_lock(executor: Executor, tmp_path: Path) -> None:
    log, other = tmp_path / "run.log", tmp_path / "other.log"
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert executor.run(["--version"], log, lock.fileno()) == 0
        assert executor.run(["study", "nowhere"], log, lock.fileno()) == 2
        assert executor.run(["nonsense"], other, lock.fileno()) == 2
    version, error = log.read_text().splitlines()[0], log.read_text().splitlines()[1:]
    assert version[0].isdigit()
    assert " ".join(error).startswith("error: There is no study 'nowhere'")
    assert "No such command" in other.read_text()
    assert "nonsense" not in log.read_text()
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back after each command


@pytest.mark.slow
def test_a_warm_process_that_dies_is_told_by_its_signal_and_replaced(tmp_path: Path) -> None:
    executor, codes = WarmProcess(dict(os.environ)), list[int]()
    log = tmp_path / "run.log"
    try:
        with (tmp_path / "lock").open("w") as lock:
            assert executor.run(["--version"], log, lock.fileno()) == 0
            worker: Any = executor._worker
            os.kill(worker.process.pid, signal.SIGSTOP)
            thread = threading.Thread(target=lambda: codes.append(executor.run(["--version"], log, lock.fileno())))
            thread.start()
            time.sleep(0.2)
            os.kill(worker.process.pid, signal.SIGKILL)
            thread.join(30)
            assert codes == [-signal.SIGKILL]
            assert executor.run(["--version"], log, lock.fileno()) == 0
    finally:
        executor.close()
