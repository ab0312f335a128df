"""Evaluations side by side: one process per device, each with one model at a time.

Work is handed out task by task to whoever is free. A process that answers nothing any more is noticed, not waited for.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from kepo.errors import ConfigError, KepoError
from kepo.evaluation.job import Wanted
from kepo.evaluation.parts import answered
from kepo.evaluation.tasks import Loading, Planner, Task, carry_out, load_teacher

_POLL = 0.5  # seconds between two looks at how far the workers are
_PATIENCE = 20.0  # seconds that an interrupted worker has to write what it answered


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    device: str
    task: Task | None = None


def check_devices(devices: Sequence[str]) -> None:
    """Refuse names of devices that are none of this machine, before a process is started.

    Raises:
        ConfigError: names the device and what there is.
    """
    import torch

    for name in devices:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"--devices: {name!r} is no device; write cpu, cuda:0, cuda:1, ...") from error
        count = torch.cuda.device_count()
        if device.type == "cuda" and (device.index or 0) >= count:
            raise ConfigError(f"--devices: there is no {name!r} here; this machine has {count} CUDA device(s)")


def carry_out_on(
    devices: Sequence[str],
    tasks: Sequence[Task],
    wanted: Wanted,
    loading: Loading,
    command: str,
    quiet: bool,
    finished: Callable[[Task], None],
) -> None:
    """Carry out `tasks`, one process per device.

    Args:
        devices: A name for every process; "cpu" may be there several times, each with one thread.
        tasks: In this order, each to the first process that is free.
        wanted: What was asked for; every process reads the questions itself.
        loading: How models are loaded; its device is not looked at.
        command: For the `run.json` of models that were only evaluated.
        quiet: No progress bar.
        finished: Called with each task that was done, in the order in which they are.

    Raises:
        KepoError: A task failed, or its process died. Nothing more is handed out then; what is under way is finished.
    """
    check_devices(devices)
    waiting, failures = list(tasks), list[str]()
    with _progress(tasks, quiet) as advance, _workers(devices, wanted, loading, command, len(tasks)) as workers:
        while any(worker.task for worker in workers) or (waiting and not failures):
            for worker in workers:
                if worker.task is None and waiting and not failures and worker.process.is_alive():
                    worker.task = waiting.pop(0)
                    worker.connection.send(worker.task)
            busy = [worker for worker in workers if worker.task]
            ready = wait([thing for one in busy for thing in (one.connection, one.process.sentinel)], timeout=_POLL)
            advance([worker.task for worker in busy if worker.task], len(waiting))
            for worker in busy:
                if worker.connection in ready or worker.process.sentinel in ready:
                    problem = _answer(worker)
                    task, worker.task = worker.task, None
                    assert task is not None
                    if problem is None:
                        finished(task)
                    else:
                        failures.append(f"{task.model} on {worker.device}: {problem}")
    if failures:
        left = f" {len(waiting)} more were not begun." if waiting else ""
        raise KepoError("; ".join(failures) + f"{left} The same command goes on with what is missing.")


def _answer(worker: _Worker) -> str | None:
    """What became of the worker's task: None if it is done, else what is wrong."""
    try:
        problem: str | None = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        return f"its process ended without an answer (exit code {worker.process.exitcode}); its output says why."
    return problem


@contextmanager
def _workers(
    devices: Sequence[str], wanted: Wanted, loading: Loading, command: str, tasks: int
) -> Iterator[list[_Worker]]:
    # Started afresh: a forked process would share the threads and locks of torch, and CUDA does not outlive a fork.
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        for device in devices[:tasks]:
            ours, theirs = context.Pipe()
            arguments = (theirs, wanted, replace(loading, device=device), command)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()  # so that the end of the process is the end of the connection
            workers.append(_Worker(process, ours, device))
        yield workers
        for worker in workers:
            if worker.process.is_alive():
                worker.connection.send(None)
    except BaseException:
        for worker in workers:
            worker.process.terminate()  # they keep what was answered, see `_work`
        raise
    finally:
        for worker in workers:
            worker.process.join(_PATIENCE)
            worker.process.kill()
            worker.connection.close()


def _work(connection: Connection, wanted: Wanted, loading: Loading, command: str) -> None:
    """The process of one device: tasks come in, None or what is wrong goes out."""
    import torch

    # Ctrl-C is left to the process that started this one; it ends this one as Ctrl-C would, so that parts are written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if loading.device == "cpu":
        torch.set_num_threads(1)
    try:
        planner, teacher = Planner(wanted), None
        while (task := connection.recv()) is not None:
            try:
                teacher = teacher or load_teacher(loading)
                carry_out(task, planner.job(task.source), loading, command, teacher=teacher, quiet=True)
            except KepoError as error:
                connection.send(str(error))
            else:
                connection.send(None)
            if loading.device != "cpu":
                torch.cuda.empty_cache()
    except (KeyboardInterrupt, EOFError):
        return


@contextmanager
def _progress(tasks: Sequence[Task], quiet: bool) -> Iterator[Callable[[Sequence[Task], int], None]]:
    """A bar over the tasks, with the records that those under way have written."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, disable=quiet) as progress:
        bar = progress.add_task("models", total=len(tasks))

        def advance(busy: Sequence[Task], waiting: int) -> None:
            written = sum(answered(task.home, task.name) for task in busy)
            progress.update(
                bar,
                completed=len(tasks) - waiting - len(busy),
                description=f"models, {len(busy)} under way ({written} records written)",
            )

        yield advance
        progress.update(bar, completed=len(tasks))
