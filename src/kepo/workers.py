"""Processes that stay warm, and the progress display of everything that takes long.

A worker is spawned, as torch's threads and CUDA do not outlive a fork; it sets itself up once. Ctrl-C is left to the
process that started it, which ends its workers as Ctrl-C would, so that they keep what they have.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kepo.errors import ConfigError, DataError, KepoError, TeacherError

if TYPE_CHECKING:
    from rich.progress import Progress

Job = TypeVar("Job")
Result = TypeVar("Result")

# Read by the libraries underneath: no bars that redraw themselves, which a file or a pipe would keep line by line.
NO_BARS = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
_POLL = 0.5  # seconds between two looks at how far the workers are
_PATIENCE = 20.0  # seconds that an interrupted worker has to write what it has


class WorkerDiedError(KepoError):
    """A worker ended without an answer; a negative exit code is the signal that ended its process."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"its process ended without an answer (exit code {exit_code}); its output says why.")
        self.exit_code = exit_code


class Worker(Generic[Job, Result]):
    """A process that carries out tasks, one at a time.

    `start`, a function of a module, is called once in the process and returns the function that carries out a task.
    """

    def __init__(self, start: Callable[..., Callable[[Job], Result]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, start, arguments))
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the connection
        # The interpreter waits for its children when it ends, also for those that nobody came to close.
        atexit.register(self.interrupt)

    def send(self, task: Job) -> None:
        """Give the worker its next task."""
        with suppress(BrokenPipeError):  # of a worker that has ended; `receive` says so
            self.connection.send(task)

    def receive(self) -> Result:
        """Wait for the result of the task; raises its KepoError, or WorkerDiedError."""
        try:
            result, error = self.connection.recv()
        except (EOFError, OSError) as gone:
            self.process.join()
            raise WorkerDiedError(self.process.exitcode) from gone
        if error is not None:
            raise error
        return result

    def interrupt(self) -> None:
        """End the task as Ctrl-C would."""
        self.process.terminate()

    def close(self, patience: float = _PATIENCE) -> None:
        """End the process when its task is done; after `patience` seconds it is killed."""
        self.connection.close()
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        atexit.unregister(self.interrupt)


def _serve(connection: Connection, start: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_follow_parent, daemon=True).start()
    # An EOFError or BrokenPipeError: nobody waits for the answer any more.
    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        carry_out = start(*arguments)
        while True:
            task = connection.recv()
            answer: tuple[Any, KepoError | None]
            try:
                answer = carry_out(task), None
            except KepoError as error:
                # A class that is made from its message alone, so that the other process can make it again.
                kinds = (ConfigError, DataError, TeacherError, KepoError)
                answer = None, next(kind for kind in kinds if isinstance(error, kind))(str(error))
            connection.send(answer)


def _follow_parent() -> None:
    """Where the process that started this one is gone, this one ends as after Ctrl-C."""
    if (parent := multiprocessing.parent_process()) is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)
        os._exit(1)


@contextmanager
def started(workers: Iterable[Worker[Job, Result]]) -> Iterator[list[Worker[Job, Result]]]:
    """The workers, which are ended with the block; as after Ctrl-C when it fails or is interrupted."""
    running: list[Worker[Job, Result]] = []
    try:
        running += workers
        yield running
    except BaseException:
        for worker in running:
            worker.interrupt()
        raise
    finally:
        for worker in running:
            worker.close()


@dataclass(frozen=True, slots=True)
class Ended(Generic[Job, Result]):
    """A task that has ended, on worker number `place`: its result, or the error it failed with."""

    task: Job
    place: int
    result: Result | None
    error: KepoError | None


def carry_out(
    workers: Sequence[Worker[Job, Result]],
    tasks: Iterable[Job],
    watch: Callable[[Sequence[Job]], None] = lambda busy: None,
) -> Iterator[Ended[Job, Result]]:
    """Give the tasks in order, each to the first worker that is free and alive; yields them as they end.

    The next task is taken only when a worker is free; `watch` is called twice a second with those under way.
    """
    waiting = iter(tasks)
    busy: dict[int, Job] = {}
    while True:
        for place, worker in enumerate(workers):
            if place not in busy and worker.process.is_alive():
                for task in waiting:
                    worker.send(task)
                    busy[place] = task
                    break
        if not busy:
            return
        watch(list(busy.values()))
        ready = wait([workers[place].connection for place in busy], timeout=_POLL)
        for place in [place for place in busy if workers[place].connection in ready]:
            task = busy.pop(place)
            try:
                ended = Ended(task, place, workers[place].receive(), None)
            except KepoError as error:
                ended = Ended(task, place, None, error)
            yield ended


def available_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Progress]:
    """Bars on standard error: how many are done, how fast, the time since the start and left; none when `quiet`."""
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.text import Text

    class Speed(rich_progress.ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed or 0.0
            return Text(f"{speed:.0f}/s" if speed >= 1 else "")

    done = ("{task.description}", rich_progress.BarColumn(), rich_progress.MofNCompleteColumn(), Speed())
    time = (rich_progress.TimeElapsedColumn(), rich_progress.TimeRemainingColumn())
    with rich_progress.Progress(*done, *time, console=Console(stderr=True), disable=quiet) as bars:
        yield bars
