"""`kepo train RECIPE... [--field value ...]`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kepo.errors import ConfigError, KepoError

if TYPE_CHECKING:
    from kepo.recipes.launch import Result

_HELP = "YAML files, or names of shipped recipes (`kepo recipes`), then fields."
Recipes = Annotated[list[str], typer.Argument(metavar="RECIPE", help=_HELP, show_default=False)]

_PROFILE_STEPS = 2

# What the closing table shows, where the run logged it.
_SHOWN = {
    "reward": "reward",
    "exploration/correct_before": "correct before exploration",
    "exploration/all_failed_groups": "all-failed groups",
    "exploration/rescued_groups": "rescued of the explored groups",
    "exploration/attempts_per_rescue": "attempts per rescue",
    "exploration/tokens_per_rescue": "tokens per rescue",
    "exploration/injected_share": "injected rollouts",
    "exploration/truncated_samples": "samples cut off",
    "exploration/leaked_hints": "leaked hints",
    "exploration/hint_level": "level of the hints that worked",
    "exploration/bank_hits": "hints that the bank had",
    "gate/open_share": "gate open",
    "distillation/loss": "distillation loss",
    "teacher/tokens": "teacher tokens",
    "teacher/rows_lost": "rows without the teacher's scores",
    "teacher/hints_lost": "hints that did not come",
    "teacher/faults": "failed tries to reach the teacher",
    "time/rollouts_s": "seconds of rollouts",
    "time/exploration_s": "seconds of exploration",
    "time/rewards_s": "seconds of rewards",
    "time/teacher_s": "seconds of waiting for the teacher",
    "time/logprobs_s": "seconds of old and reference log-probabilities",
    "time/training_s": "seconds of forward and backward",
    "time/optimizer_s": "seconds of the optimizer",
    "time/step_s": "seconds of a whole step",
    "loss": "loss",
    "mean_token_accuracy": "token accuracy",
}


def train(
    recipes: Recipes,
    accelerate_config: Annotated[
        str | None,
        typer.Option(
            help="Launch with accelerate: one of TRL's configs (multi_gpu, fsdp2, zero2, zero3), one of ours "
            "(zero3-8gpu, fsdp2-4gpu, ... see docs/distributed.md), or a file."
        ),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Go on with the run in output_dir: from its last checkpoint, or not at all if it is finished.",
        ),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Measure the phases of two steps after the first, trace the two after them, and go on. Tables and "
            "trace are written to OUTPUT_DIR/profile.",
        ),
    ] = False,
    profile_steps: Annotated[
        int | None, typer.Option(min=1, help="--profile with another number of steps.", show_default=False)
    ] = None,
) -> None:
    """Train with a recipe, or several: later ones go over earlier ones, and `--field value` over all.

    `kepo fields` lists the fields that are not TRL's.
    """
    from kepo.recipes.files import find_accelerate_config, how_to_continue, run_folder_of, split_arguments

    names, overrides = split_arguments(recipes)
    go_on_with = shlex.join(["kepo", "train", *_again(names, overrides, accelerate_config)])
    if go_on:
        more = how_to_continue(names, overrides)
        if more is None:
            typer.echo(f"{run_folder_of(names, overrides)} is finished with these settings.")
            return
        overrides += more
    if profile and profile_steps is None:
        profile_steps = _PROFILE_STEPS
    if accelerate_config is not None:
        options = [] if profile_steps is None else ["--profile-steps", str(profile_steps)]
        _launch(find_accelerate_config(accelerate_config), [*names, *overrides], options, go_on_with)
        return
    from accelerate import PartialState

    _show(_run(names, overrides, profile_steps, go_on_with))
    # Left to the interpreter's exit, the threads of the process group may still run and abort the process.
    PartialState().destroy_process_group()


def _run(names: Sequence[str], overrides: Sequence[str], profile_steps: int | None, go_on_with: str) -> Result:
    """Train in this process; what stops it on the way says what is saved, and how to go on."""
    import torch

    from kepo.cli.training_display import training_display
    from kepo.recipes.launch import train as run
    from kepo.recipes.recipe import load_recipe

    recipe = load_recipe(names, overrides)
    folder = Path(recipe.training.output_dir)
    with training_display(plain=recipe.training.disable_tqdm) as display:
        try:
            return run(recipe, display, profile_steps)
        except KeyboardInterrupt:
            stopped = _how_it_stopped(folder, display.step, display.steps, go_on_with)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"The memory of the GPU is full: {str(error).split('. ')[0]}. `kepo plan` with the same arguments "
                "says what needs how much, and what would make it fit. " + _saved(folder, display.step, go_on_with)
            ) from error
        except KepoError as error:
            if display.steps:
                error.add_note(_saved(folder, display.step, go_on_with))
            raise
    if os.environ.get("RANK", "0") == "0":
        typer.secho(stopped, fg=typer.colors.YELLOW, err=True)
    raise typer.Exit(130)


def _again(names: Sequence[str], overrides: Sequence[str], accelerate_config: str | None) -> list[str]:
    """The arguments of the command that goes on with the run of this one."""
    from kepo.recipes.files import CONTROLS, override_values, read_recipes, words_of

    kept = [word for name, words in words_of(overrides) if name not in CONTROLS for word in words]
    stated = "output_dir" in {**read_recipes(names), **override_values(overrides)}
    # Without a folder of its own the run cannot be looked up; transformers' default is not a field of the recipe.
    how = ["--continue"] if stated else ["--resume_from_checkpoint", "latest"]
    config = [] if accelerate_config is None else ["--accelerate-config", accelerate_config]
    return [*names, *kept, *config, *how]


def _how_it_stopped(folder: Path, step: int, steps: int, go_on_with: str) -> str:
    if not steps:
        return "Stopped before the first step; nothing was trained."
    return f"Stopped after step {step} of {steps}. {_saved(folder, step, go_on_with)}"


def _saved(folder: Path, step: int, go_on_with: str) -> str:
    """What lies in the folder of a run that was stopped, and the command that goes on with it."""
    from kepo.runs import checkpoints_in

    last = max(checkpoints_in(folder), default=None)
    kept = f"{folder} has run.json, metrics.jsonl and the rollouts so far"
    # A launcher gave this process its arguments; the command that was typed is not known here.
    command = "the same command with --continue" if "LOCAL_RANK" in os.environ else go_on_with
    if last is None:
        return f"{kept}, and no checkpoint yet (see save_steps). To begin again: {command}"
    return f"{kept}, and checkpoint-{last}. To go on after step {last}: {command}"


def _launch(config: str, arguments: Sequence[str], more: Sequence[str], go_on_with: str) -> None:
    """Run `kepo train` again, in the processes of an accelerate config; ends with their exit code."""
    import subprocess

    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from kepo.recipes.files import split_arguments
    from kepo.recipes.recipe import load_recipe
    from kepo.recipes.requirements import check_launch

    check_launch(config)
    load_recipe(*split_arguments(arguments))  # so that a typing error is said once, and not by every process
    options = ["--config_file", config, "-m", "kepo", "train", *arguments, *more]
    try:
        launch_command(launch_command_parser().parse_args(options))
    # The processes themselves have said why.
    except subprocess.CalledProcessError as error:
        raise typer.Exit(error.returncode) from error
    except ChildFailedError as error:
        raise typer.Exit(max(abs(failure.exitcode) for failure in error.failures.values())) from error
    except (KeyboardInterrupt, SignalException) as error:
        typer.secho(f"Stopped. To go on: {go_on_with}", fg=typer.colors.YELLOW, err=True)
        raise typer.Exit(130) from error


def _show(result: Result) -> None:
    """Print the run's metrics: first and last logged value with their steps, and the mean of all."""
    from rich.console import Console
    from rich.table import Table

    if os.environ.get("RANK", "0") != "0":
        return
    table = Table("metric", "first (step)", "last (step)", "mean", title=f"{result.folder} ({result.device})")
    for name, label in {**_SHOWN, **_reward_labels(result.history)}.items():
        logs = [log for log in result.history if log.get(name) is not None]
        if logs:
            ends = (f"{_number(log[name])} ({log['step']})" for log in (logs[0], logs[-1]))
            table.add_row(label, *ends, _number(sum(log[name] for log in logs) / len(logs)))
    console = Console()
    console.print(table)
    there = "model, rollouts/ and" if (result.folder / "rollouts").is_dir() else "model and"
    console.print(f"{there} run.json are in {result.folder}")


def _reward_labels(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each reward function's mean on the rollouts of training, and on those of held-out questions."""
    names = sorted({name for log in history for name in log})
    found = (re.fullmatch("(eval_)?rewards/([^/]+)/mean", name) for name in names)
    return {one[0]: f"{one[2]}, {'held out' if one[1] else 'training'}" for one in found if one}


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
