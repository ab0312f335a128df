"""How the commands of a run are carried out: each in a process of its own, or all in one that stays warm."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from kepo.workers import Worker, WorkerDiedError

_PATIENCE = 5.0  # seconds that a process with nothing to do has to end


class Executor(ABC):
    """Where the runs of one worker are carried out, command by command."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._stopped = False

    @abstractmethod
    def run(self, arguments: Sequence[str], log: Path, claim: int) -> int:
        """Run `kepo ARGUMENTS`; returns its exit code, a negative one for the signal that ended it.

        What it prints is added to `log`; `claim` is the descriptor of the run's lock, which its process holds as well.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the command as Ctrl-C does, also one that is just being started."""

    @abstractmethod
    def close(self) -> None:
        """Kill what still runs."""


class FreshProcesses(Executor):
    """Every command is a process of its own."""

    _process: subprocess.Popen[bytes] | None = None

    def run(self, arguments: Sequence[str], log: Path, claim: int) -> int:
        with log.open("ab") as output:
            # A group of its own: Ctrl-C comes from `interrupt`, once, and reaches what the command starts as well.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kepo", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
                pass_fds=(claim,),
            )
            if self._stopped:
                self._signal(signal.SIGTERM)
            return self._process.wait()

    def stop(self) -> None:
        self._stopped = True
        self._signal(signal.SIGINT)

    def close(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)


class WarmProcess(Executor):
    """One process imports torch once and carries out one command after the other, with one thread."""

    _worker: Worker[Any, int] | None = None

    def run(self, arguments: Sequence[str], log: Path, claim: int) -> int:
        if self._worker is None:
            self._worker = Worker(_warmed_up, dict(self._environment))
        self._worker.send((tuple(arguments), log, DupFd(claim)))
        if self._stopped:
            self._worker.interrupt()
        try:
            return self._worker.receive()
        except WorkerDiedError as died:
            self._worker.close()
            self._worker = None  # the next run gets a process that lives
            return died.exit_code or 1

    def stop(self) -> None:
        self._stopped = True
        if self._worker is not None:
            self._worker.interrupt()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close(_PATIENCE)


def _warmed_up(environment: Mapping[str, str]) -> Callable[[tuple[Sequence[str], Path, Any]], int]:
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    return _run_here


def _run_here(task: tuple[Sequence[str], Path, Any]) -> int:
    """Run a `kepo` command in this process as `python -m kepo` does; returns its exit code."""
    arguments, log, claim = task
    lock = claim.detach()
    with log.open("ab") as output:
        # Below Python, so that loggers that were set up by the command before write there too.
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = ["kepo", *arguments]
    try:
        runpy.run_module("kepo", run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  (as the interpreter ends a command)
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.close(lock)
    return 0
