"""Work on many images in several processes, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kepo.errors import ConfigError, DataError
from kepo.workers import Worker, WorkerDiedError, available_workers, carry_out, progress_bars, started

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

_BATCH = 16
# Below this, starting processes takes longer than the work.
_PROCESSES_FROM = 64


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
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    processes = min(workers or available_workers(), len(batches))
    with progress_bars(not bar or not jobs) as progress:
        shown = progress.add_task(title, total=len(jobs))
        alone = processes < 2 or len(jobs) < _PROCESSES_FROM
        for results in map(task, batches) if alone else _in_processes(task, batches, processes):
            progress.advance(shown, len(results))
            yield from results


def _in_processes(
    task: Callable[[Sequence[_Job]], list[_Result]], batches: Sequence[Sequence[_Job]], processes: int
) -> Iterator[list[_Result]]:
    workers: Iterator[Worker[Sequence[_Job], list[_Result]]] = (Worker(_unchanged, task) for _ in range(processes))
    with started(workers) as running:
        for ended in carry_out(running, batches):
            if isinstance(ended.error, WorkerDiedError):
                raise DataError(
                    "a worker process was ended from outside, perhaps because memory ran out; the same command goes on "
                    "where this one stopped, and --workers with a lower number needs less memory"
                ) from ended.error
            if ended.error is not None:
                raise ended.error
            yield ended.result or []


def _unchanged(task: Callable[[Sequence[_Job]], list[_Result]]) -> Callable[[Sequence[_Job]], list[_Result]]:
    return task
