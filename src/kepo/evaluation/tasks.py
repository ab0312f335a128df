"""What one call of `kepo eval` has to do: a task per model or checkpoint, carried out here or on several devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError, KepoError
from kepo.evaluation.choosing import check_unseen, choose_checkpoint
from kepo.evaluation.contamination import described
from kepo.evaluation.job import Job, Request, describe_home, plan
from kepo.evaluation.parts import Parts, answered, check_name
from kepo.evaluation.run import evaluate, identify
from kepo.files import weights_fingerprint
from kepo.runs import MANIFEST, checkpoints_in, evaluation_file, is_run
from kepo.workers import Worker, progress_bars, started
from kepo.workers import carry_out as share_out

if TYPE_CHECKING:
    from kepo.evaluation.settings import Backend
    from kepo.teachers.local import LocalTeacher


@dataclass(frozen=True, slots=True)
class Task:
    """One evaluation of one model."""

    model: str
    source: str  # of its questions and settings: the model itself, or the run that a checkpoint belongs to
    home: Path  # folder of the records
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)  # more for the description
    labels: Mapping[str, str] = field(default_factory=dict)  # "arm" and "replicate" of a model that is no run

    @property
    def file(self) -> Path:
        """Where the records go."""
        return evaluation_file(self.home, self.name)


@dataclass(frozen=True, slots=True)
class Loading:
    """How models are loaded and records written; fields as in `load_backend` and `evaluate`."""

    batch_size: int = 64
    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    teacher: str | None = None
    overwrite: bool = False


class Planner:
    """Plans models once each: the checkpoints of a run share their questions."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._jobs: dict[str, Job] = {}

    def job(self, source: str) -> Job:
        """What evaluating `source` means, see `plan`."""
        if source not in self._jobs:
            self._jobs[source] = plan(source, self._request)
        return self._jobs[source]


def model_tasks(
    models: Sequence[str], planner: Planner, name: str, out: Path | None, labels: Mapping[str, str] | None = None
) -> list[Task]:
    """A task per model; raises ConfigError where a model's records have no place, or two models' the same one."""
    homes: dict[str, Path] = {}
    for model in dict.fromkeys(models):
        job, below = planner.job(model), Path(model).name or model
        home = job.home if out is None else out if len(set(models)) == 1 else out / below
        if home is None:
            raise ConfigError(f"{model} is no run folder, so its records have no place; name a folder with --out")
        if home in homes.values():
            raise ConfigError(
                f"the records of two models would go to {home}; evaluate them one by one, each with --out"
            )
        homes[model] = home
    return [Task(model, model, home, name, labels=labels or {}) for model, home in homes.items()]


def checkpoint_tasks(runs: Sequence[str], name: str) -> list[Task]:
    """A task per checkpoint, run by run in the order of steps; raises ConfigError for a run without one."""
    tasks = []
    for run in dict.fromkeys(runs):
        _check_run(run)
        if not (found := checkpoints_in(run)):
            raise ConfigError(f"{run} has no whole checkpoint (checkpoint-N); leave out --checkpoints for its model")
        tasks += [Task(str(folder), run, folder, name, {"step": step}) for step, folder in found.items()]
    return tasks


def chosen_tasks(runs: Sequence[str], by: str, planner: Planner, name: str) -> list[Task]:
    """A task per run: its best checkpoint by the evaluation called `by`, with the records in the run folder."""
    check_name(by)
    if by == name:
        raise ConfigError(f"--best-by {by} --name {name}: an evaluation cannot choose what it tests; give another name")
    tasks = []
    for run in dict.fromkeys(runs):
        _check_run(run)
        choice = choose_checkpoint(run, by)
        check_unseen(choice, run, planner.job(run).questions)
        tasks.append(Task(str(choice.folder), run, Path(run), name, {"chosen": choice.described()}))
    return tasks


def _check_run(folder: str) -> None:
    if not is_run(folder):
        raise ConfigError(f"{folder} is no run folder: it has no {MANIFEST}. Give the output_dir of a run.")


def _is_finished(task: Task, job: Job, loading: Loading) -> bool:
    """Whether the records of a model folder are there, made with these settings; loads no model."""
    if loading.overwrite or not task.file.is_file() or loading.teacher is not None:
        return False
    weights = weights_fingerprint(task.model)
    identity = identify(job.questions, "transformers", task.model, weights, job.settings, None)
    return Parts(task.home, task.name, identity).finished


def carry_out(
    task: Task,
    job: Job,
    loading: Loading,
    command: str,
    *,
    teacher: LocalTeacher | None = None,
    backend: Callable[[Task, Job], Backend] | None = None,
    quiet: bool = False,
) -> Path:
    """Evaluate one model; returns the file of the records.

    Args:
        task: Which model.
        job: Its questions and settings.
        loading: How it is loaded.
        command: Noted in the `run.json` of a model that was only evaluated.
        teacher: Rates the reasoning.
        backend: Makes the backend; None loads the model in this process.
        quiet: No progress bar.
    """
    if backend is None and _is_finished(task, job, loading):
        return task.file
    answering = backend(task, job) if backend else _loaded(task, job, loading)
    # A checkpoint's records lie in the checkpoint, which is no run of its own.
    at_home = job if task.source == task.model else replace(job, home=task.home)
    describe_home(task.home, answering.model, at_home, command, task.labels)
    return evaluate(
        job.questions,
        answering,
        job.settings,
        task.home,
        task.name,
        description={
            "data": job.data,
            "split": job.split,
            "in_domain": list(job.in_domain),
            "trained_on": described(job.trained_on),
            **task.facts,
        },
        teacher=teacher,
        overwrite=loading.overwrite,
        quiet=quiet,
    )


def _loaded(task: Task, job: Job, loading: Loading) -> Backend:
    from kepo.evaluation.generate import load_backend

    return load_backend(
        task.model,
        batch_size=loading.batch_size,
        device=loading.device,
        dtype=loading.dtype,
        trust_remote_code=loading.trust_remote_code,
        chat_template_kwargs=job.chat_template_kwargs,
    )


def load_teacher(loading: Loading) -> LocalTeacher | None:
    """The model that rates the reasoning; None where none is named."""
    if loading.teacher is None:
        return None
    import torch

    from kepo.teachers.local import LocalTeacher

    device = loading.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return LocalTeacher(
        loading.teacher, device=device, dtype=loading.dtype, trust_remote_code=loading.trust_remote_code
    )


def check_devices(devices: Sequence[str]) -> None:
    """Raise ConfigError for a device that this machine has not, before a process is started."""
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
    request: Request,
    loading: Loading,
    command: str,
    quiet: bool,
    finished: Callable[[Task], None],
) -> None:
    """Carry out `tasks`, one process per device.

    Args:
        devices: A name for every process; "cpu" may be there several times, each with one thread.
        tasks: In this order, each to the first process that is free.
        request: Every process reads the questions itself.
        loading: How models are loaded; its device does not count.
        command: For the `run.json` of models that were only evaluated.
        quiet: No progress bar.
        finished: Called with each task when it is done.

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

    workers = (Worker(_evaluator, request, replace(loading, device=device), command) for device in devices)
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


def _evaluator(request: Request, loading: Loading, command: str) -> Callable[[Task], None]:
    """What the process of one device does with its tasks."""
    import torch

    if loading.device == "cpu":
        torch.set_num_threads(1)
    planner, teacher = Planner(request), None

    def evaluate(task: Task) -> None:
        nonlocal teacher
        teacher = teacher or load_teacher(loading)
        carry_out(task, planner.job(task.source), loading, command, teacher=teacher, quiet=True)
        if loading.device != "cpu":
            torch.cuda.empty_cache()

    return evaluate
