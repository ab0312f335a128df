"""What one call of `kepo eval` has to do: a task per model or checkpoint, and how one is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError
from kepo.evaluation.choosing import check_unseen, choose_checkpoint
from kepo.evaluation.job import Job, Wanted, describe_home, plan
from kepo.evaluation.parts import check_name
from kepo.evaluation.run import evaluate, identify
from kepo.files import weights_fingerprint
from kepo.runs import MANIFEST, checkpoints_in, evaluation_file, is_run

if TYPE_CHECKING:
    from kepo.evaluation.backend import Backend
    from kepo.teachers.local import LocalTeacher


@dataclass(frozen=True, slots=True)
class Task:
    """One evaluation of one model.

    Attributes:
        model: What is loaded.
        source: What its questions and settings come from: the model itself, or the run that a checkpoint belongs to.
        home: The folder of the records.
        name: Name of the evaluation.
        facts: More for the description.
        labels: "arm" and "replicate" of a model that is no run.
    """

    model: str
    source: str
    home: Path
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

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

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._jobs: dict[str, Job] = {}

    def job(self, source: str) -> Job:
        """What evaluating `source` means; see `kepo.evaluation.job.plan` for errors."""
        if source not in self._jobs:
            self._jobs[source] = plan(source, self._wanted)
        return self._jobs[source]


def model_tasks(
    models: Sequence[str], planner: Planner, name: str, out: Path | None, labels: Mapping[str, str] | None = None
) -> list[Task]:
    """A task per model; `labels` as in `Task`.

    Raises:
        ConfigError: a model's records have no place, or two models' the same one.
    """
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
    """A task per checkpoint of every run, run by run in the order of steps.

    Raises:
        ConfigError: a folder is no run, or has no checkpoint.
    """
    tasks = []
    for run in dict.fromkeys(runs):
        _check_run(run)
        found = checkpoints_in(run)
        if not found:
            raise ConfigError(f"{run} has no whole checkpoint (checkpoint-N); leave out --checkpoints for its model")
        tasks += [Task(str(folder), run, folder, name, {"step": step}) for step, folder in found.items()]
    return tasks


def chosen_tasks(runs: Sequence[str], by: str, planner: Planner, name: str) -> list[Task]:
    """A task per run: its best checkpoint by the evaluation called `by`, with the records in the run folder.

    Raises:
        ConfigError: the choice cannot be made, or would be made on the questions that are to be asked.
    """
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


def is_finished(task: Task, job: Job, loading: Loading) -> bool:
    """Whether the records of a task of a model folder are there, made with these settings; loads no model.

    Raises:
        ConfigError: records of this name were made with other settings.
    """
    from kepo.evaluation.parts import Parts

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
        task: Which one.
        job: What it is asked.
        loading: How it is loaded.
        command: Noted in the `run.json` of a model that was only evaluated.
        teacher: Rates the reasoning.
        backend: Makes who answers; None loads the model in this process.
        quiet: No progress bar.

    Raises:
        KepoError: as `load_backend` and `evaluate`.
    """
    if backend is None and is_finished(task, job, loading):
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
        data=job.data,
        split=job.split,
        in_domain=job.in_domain,
        teacher=teacher,
        facts=task.facts,
        overwrite=loading.overwrite,
        quiet=quiet,
    )


def _loaded(task: Task, job: Job, loading: Loading) -> Backend:
    from kepo.evaluation.loading import load_backend

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
