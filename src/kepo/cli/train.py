"""`kepo train RECIPE... [--field value ...]`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kepo.recipes.launch import Result

_HELP = "YAML files, or names of shipped recipes (`kepo recipes`), then fields."
Recipes = Annotated[list[str], typer.Argument(metavar="RECIPE", help=_HELP, show_default=False)]

# What the closing table shows, where the run logged it.
_SHOWN = {
    "reward": "reward",
    "exploration/correct_before": "correct before exploration",
    "exploration/all_failed_groups": "all-failed groups",
    "exploration/rescued_groups": "rescued of the explored groups",
    "exploration/attempts_per_rescue": "attempts per rescue",
    "exploration/tokens_per_rescue": "tokens per rescue",
    "exploration/injected_share": "injected rollouts",
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
    "time/teacher_s": "seconds of waiting for the teacher",
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
) -> None:
    """Train with a recipe, or several: later ones go over earlier ones, and `--field value` over all.

    `kepo fields` lists the fields that are not TRL's.
    """
    from kepo.recipes.files import find_accelerate_config, how_to_continue, run_folder_of, split_arguments

    names, overrides = split_arguments(recipes)
    if go_on:
        more = how_to_continue(names, overrides)
        if more is None:
            typer.echo(f"{run_folder_of(names, overrides)} is finished with these settings.")
            return
        overrides += more
    if accelerate_config is not None:  # this command again, under accelerate
        from accelerate.commands.launch import launch_command, launch_command_parser

        options = ["--config_file", find_accelerate_config(accelerate_config), "-m", "kepo", "train"]
        launch_command(launch_command_parser().parse_args([*options, *names, *overrides]))
        return
    from accelerate import PartialState

    from kepo.recipes.launch import train as run
    from kepo.recipes.recipe import load_recipe

    _show(run(load_recipe(names, overrides)))
    # Left to the interpreter's exit, the threads of the process group may still run and abort the process.
    PartialState().destroy_process_group()


def _show(result: Result) -> None:
    """Print the run's metrics: first and last logged value, and the mean over the logs that have one."""
    from rich.console import Console
    from rich.table import Table

    if os.environ.get("RANK", "0") != "0":
        return
    table = Table("metric", "first", "last", "mean", title=f"{result.folder} ({result.device})")
    for name, label in {**_SHOWN, **_reward_labels(result.history)}.items():
        values = [log[name] for log in result.history if log.get(name) is not None]
        if values:
            table.add_row(label, _number(values[0]), _number(values[-1]), _number(sum(values) / len(values)))
    console = Console()
    console.print(table)
    console.print(f"model, rollouts/ and run.json are in {result.folder}")


def _reward_labels(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each reward function's mean on the rollouts of training, and on those of held-out questions."""
    names = sorted({name for log in history for name in log})
    found = (re.fullmatch("(eval_)?rewards/([^/]+)/mean", name) for name in names)
    return {one[0]: f"{one[2]}, {'held out' if one[1] else 'training'}" for one in found if one}


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
