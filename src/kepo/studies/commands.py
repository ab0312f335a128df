"""The `kepo` commands of a run: train, validate all checkpoints, test the chosen one. Each can be repeated.

What the local runner runs and what is printed for a shell or a Slurm cluster are the same commands.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kepo.runs.study import RUNS
from kepo.studies.plan import LOGS, RunPlan
from kepo.studies.schema import StudySpec

VALIDATION = "validation"
TEST = "test"

# Recipe field -> option of `kepo eval`, for a model that no run says how to ask.
_EVAL_OPTIONS = {
    "prompt_style": "prompt_style",
    "image_size": "image_size",
    "max_completion_length": "max_new_tokens",
    "correctness_reward": "reward",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A command: `kepo ARGUMENTS`."""

    name: str
    arguments: tuple[str, ...]

    @property
    def line(self) -> str:
        """As a line of a shell."""
        return shlex.join(("kepo", *self.arguments))


def stages(plan: RunPlan) -> list[Stage]:
    """The commands of a run, in order; its recipe must have been written. A run of the tuning is never tested."""
    study, folder = plan.study, str(plan.folder)
    if not plan.arm.train:
        return [Stage(TEST, tuple(_untrained(plan)))]
    launch = ("--accelerate-config", study.accelerate_config) if study.accelerate_config else ()
    options, evaluation = tuple(_options(study.evaluation.options)), study.evaluation
    validated = ("--data", str(study.data.validation), "--name", VALIDATION, *options)
    tested = ("--data", str(study.data.test), "--name", TEST, *options, *_limit(evaluation.test_limit))
    train = Stage("train", ("train", str(plan.recipe_file), "--continue", *launch))
    validate = Stage("validate", ("eval", folder, "--checkpoints", *validated, *_limit(evaluation.validation_limit)))
    if study.validation is not None:  # the run ends with its best weights
        found = [train, Stage(TEST, ("eval", folder, *tested))]
    else:
        found = [train, validate, Stage(TEST, ("eval", folder, "--best-by", VALIDATION, *tested))]
    return found if plan.stage == RUNS else found[:-1]


def _untrained(plan: RunPlan) -> Iterator[str]:
    study, recipe = plan.study, plan.resolved()
    found = {option: recipe[field] for field, option in _EVAL_OPTIONS.items() if recipe.get(field) is not None}
    found.setdefault("reward", next(iter(recipe.get("reward_funcs") or ()), None))
    options = {name: str(value) for name, value in found.items() if value is not None} | dict(study.evaluation.options)
    yield from ("eval", str(recipe["model_name_or_path"]), "--out", str(plan.folder))
    yield from ("--data", str(study.data.test), "--name", TEST, "--in-domain", plan.modality)
    yield from ("--arm", plan.arm.name, "--replicate", plan.replicate)
    yield from _options(options)
    yield from _limit(study.evaluation.test_limit)


def _options(options: Mapping[str, str]) -> Iterator[str]:
    for name, value in options.items():
        yield from (f"--{name.replace('_', '-')}", value)


def _limit(limit: int | None) -> tuple[str, ...]:
    return () if limit is None else ("--limit", str(limit))


def command_line(plan: RunPlan) -> str:
    """All commands of a run as one line of a shell, each only when the one before it succeeded."""
    return " && ".join(stage.line for stage in stages(plan))


def report_stages(study: StudySpec) -> list[Stage]:
    """The commands after all runs: a report for each training modality, and the table and figure of the paper."""
    stages = [
        Stage("report", ("report", str(study.out / modality), "--out", str(study.out / modality / "report.html")))
        for modality in study.modalities
    ]
    paper = ("report", str(study.out), "--format", "paper", "--out", str(study.out / "paper"))
    return [*stages, Stage("paper", paper)]


def afterwards(plans: Sequence[RunPlan]) -> list[str]:
    """What is to be done by hand after the runs, as lines of a shell."""
    if plans[0].stage != RUNS:
        return ["# the same `kepo study` then prints the runs of the study, with the settings that were chosen"]
    return [stage.line for stage in report_stages(plans[0].study)]


def shell_script(plans: Sequence[RunPlan]) -> str:
    """One command line per run, in order, then what is to be done afterwards."""
    return "\n".join([*map(command_line, plans), "# after all of them:", *afterwards(plans)]) + "\n"


def slurm_script(plans: Sequence[RunPlan], folder: Path) -> str:
    """An `sbatch` script: an array with one task per run, from 0, in `folder`.

    A task that is stopped or fails is queued again by submitting the same script, and goes on.
    """
    study = plans[0].study
    slurm = study.slurm
    at_once = f"%{slurm.at_once}" if slurm.at_once else ""
    options = {
        "job-name": study.source.stem,
        "array": f"0-{len(plans) - 1}{at_once}",
        "output": str(study.out / LOGS / "slurm-%A-%a.log"),
        "open-mode": "append",
        **slurm.options,
    }
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}={value}" for name, value in options.items()),
        "#SBATCH --requeue",
        "# After all tasks (sbatch --dependency=afterany:JOB):",
        *(f"#   {line}" for line in afterwards(plans)),
        "set -u",
        f"cd {shlex.quote(str(folder))} || exit 1",
        *slurm.setup,
        'case "$SLURM_ARRAY_TASK_ID" in',
        *(f"{number}) {command_line(plan)} ;;" for number, plan in enumerate(plans)),
        '*) echo "no run has the number $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;',
        "esac",
    ]
    return "\n".join(lines) + "\n"
