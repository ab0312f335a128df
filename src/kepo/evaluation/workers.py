"""Evaluations side by side: one process per device, each with one model at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile

from kepo.errors import ConfigError, KepoError
from kepo.evaluation.job import Wanted
from kepo.evaluation.parts import answered
from kepo.evaluation.tasks import Loading, Planner, Task, carry_out, load_teacher
from kepo.workers import Worker, progress_bars, started
from kepo.workers import carry_out as share_out


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
        KepoError: A task failed, or its process died. Nothing more is started then; what is under way is finished.
    """
    check_devices(devices)
    devices = devices[: len(tasks)]
    failures: list[str] = []
    ended = begun = 0

    def watch(busy: Sequence[Task]) -> None:
        nonlocal begun
        begun = ended + len(busy)
        written = sum(answered(task.home, task.name) for task in busy)
        described = f"models, {len(busy)} under way ({written} records written)"
        progress.update(bar, completed=ended, description=described)

    workers = (Worker(_evaluator, wanted, replace(loading, device=device), command) for device in devices)
    with progress_bars(quiet) as progress, started(workers) as running:
        bar = progress.add_task("models", total=len(tasks))
        for one in share_out(running, takewhile(lambda _: not failures, tasks), watch):
            ended += 1
            if one.error is None:
                finished(one.task)
            else:
                failures.append(f"{one.task.model} on {devices[one.place]}: {one.error}")
        progress.update(bar, completed=ended)
    if failures:
        left = f" {len(tasks) - begun} more were not begun." if len(tasks) > begun else ""
        raise KepoError("; ".join(failures) + f"{left} The same command goes on with what is missing.")


def _evaluator(wanted: Wanted, loading: Loading, command: str) -> Callable[[Task], None]:
    """What the process of one device does with its tasks."""
    import torch

    if loading.device == "cpu":
        torch.set_num_threads(1)
    planner, teacher = Planner(wanted), None

    def evaluate(task: Task) -> None:
        nonlocal teacher
        teacher = teacher or load_teacher(loading)
        carry_out(task, planner.job(task.source), loading, command, teacher=teacher, quiet=True)
        if loading.device != "cpu":
            torch.cuda.empty_cache()

    return evaluate
