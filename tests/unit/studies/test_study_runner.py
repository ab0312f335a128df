"""How the runner stops what it started, and what it says of a command that failed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kepo.studies.runner import _Crew, _environment, _last_words


def _started(code: str) -> subprocess.Popen[Any]:
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def _crew(*processes: subprocess.Popen[Any]) -> _Crew:
    return _Crew(running={str(place): (None, None, process) for place, process in enumerate(processes)})  # type: ignore[misc]


def test_stopping_ends_a_command_as_ctrl_c_does_with_what_it_started() -> None:
    code = (
        "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('up', flush=True)\n"
        "try: child.wait()\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    process = _started(code)
    begun = time.monotonic()
    crew = _crew(process)
    crew.stop()
    assert process.returncode == 130
    assert crew.stopped.is_set()
    assert time.monotonic() - begun < 30


def test_a_command_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepo.studies.runner._PATIENCE", 0.3)
    deaf = _started(
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    _crew(deaf).stop()
    assert deaf.wait(10) == -signal.SIGKILL


def test_the_last_error_of_a_log_is_said(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("$ kepo train\nerror: learning_rate is 'x'; give a number\nbye\n\n")
    assert _last_words(log, 2) == "error: learning_rate is 'x'; give a number (exit code 2)"
    log.write_text("Traceback\nRuntimeError: out of memory\n")
    assert _last_words(log, 1) == "RuntimeError: out of memory (exit code 1)"
    log.write_text("")
    assert _last_words(log, -9) == " (exit code -9)"


def test_a_worker_sees_its_devices_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert _environment("1", 2)["CUDA_VISIBLE_DEVICES"] == "1"
    assert _environment("", 1)["CUDA_VISIBLE_DEVICES"] == ""
    alone = _environment(None, 1)
    assert alone["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "OMP_NUM_THREADS" not in alone
    assert int(_environment(None, 2)["OMP_NUM_THREADS"]) >= 1
