"""Work on many images in several processes, with a bounded number of them in flight and a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for_exit
from typing import TYPE_CHECKING, TypeVar

from kepo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.progress import Progress

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

_BATCH = 16
_IN_FLIGHT = 4
# Below this, starting processes takes longer than the work.
_PROCESSES_FROM = 64


def available_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_through(
    task: Callable[[Sequence[_Job]], list[_Result]], jobs: Sequence[_Job], workers: int | None, title: str, bar: bool
) -> Iterator[_Result]:
    """The results of `task` over all `jobs`, batch by batch, in the order in which they are ready.

    Args:
        task: A function of a module, which goes over some jobs; jobs and results are sent between processes.
        jobs: What is to be done.
        workers: Processes, >= 1; None: one per core. With one, or few jobs, all happens in this process.
        title: Stands beside the progress bar.
        bar: Show it.

    Raises:
        ConfigError: `workers` is less than 1.
        DataError: a process was ended from outside, as happens when memory runs out.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; give at least 1")
    processes = min(workers or available_workers(), -(-len(jobs) // _BATCH))
    with _progress(bar and bool(jobs)) as progress:
        shown = progress.add_task(title, total=len(jobs))
        batches = _batches(jobs)
        if processes < 2 or len(jobs) < _PROCESSES_FROM:
            done: Iterable[list[_Result]] = map(task, batches)
        else:
            done = _in_processes(task, batches, processes)
        for results in done:
            progress.advance(shown, len(results))
            yield from results


def _in_processes(
    task: Callable[[Sequence[_Job]], list[_Result]], batches: Iterator[Sequence[_Job]], processes: int
) -> Iterator[list[_Result]]:
    # A forked copy of a process with threads may wait for a lock for ever; a spawned one has no threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start)
    waiting: set[Future[list[_Result]]] = set()
    try:
        waiting.update(pool.submit(task, batch) for batch in islice(batches, processes * _IN_FLIGHT))
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            waiting.update(pool.submit(task, batch) for batch in islice(batches, len(done)))
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was ended from outside, perhaps because memory ran out; the same command goes on where "
            "this one stopped, and --workers with a lower number needs less memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(jobs: Sequence[_Job]) -> Iterator[Sequence[_Job]]:
    return (jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH))


def _start() -> None:
    """Ctrl-C is for the main process, which lets its workers finish; where it is gone, they go too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_exit([parent.sentinel])
        os._exit(1)


@contextmanager
def _progress(shown: bool) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: object) -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text("" if speed is None else f"{speed:.0f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as progress:
        yield progress
