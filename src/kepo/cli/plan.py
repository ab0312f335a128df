"""`kepo plan RECIPE... [--field value ...]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kepo.cli.train import Recipes

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.planning.memory import MemoryPlan
    from kepo.planning.recipes import RecipePlan


def plan(
    recipes: Recipes,
    gpus: Annotated[int | None, typer.Option(help="GPUs; default: those of --accelerate-config, or 1.", min=1)] = None,
    gpu_memory: Annotated[float, typer.Option(help="Memory of one GPU in GiB.", min=1.0)] = 80.0,
    accelerate_config: Annotated[
        str | None, typer.Option(help="As in `kepo train`; default: one GPU alone, several with ZeRO-3.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt beside its image.", min=1)] = 256,
) -> None:
    """Memory per GPU that a recipe needs, whether it fits, and what would make it fit; arguments as in `train`.

    Nothing is loaded or downloaded but configs. The sizes of Qwen3-VL (2B, 4B, 8B, 32B, 30B-A3B, 235B-A22B) come with
    the package. Exit code 1 when it does not fit.
    """
    from rich.console import Console

    from kepo.planning.launch import read_launch
    from kepo.planning.recipes import load_for_gpu, plan_recipe
    from kepo.recipes.files import split_arguments

    names, overrides = split_arguments(recipes)
    launch = read_launch(accelerate_config, gpus)
    console = Console()
    with console.status("Reading configs and counting parameters"):
        planned = plan_recipe(load_for_gpu(names, overrides), launch, gpu_memory, prompt_tokens)
    _show(console, " ".join(names), planned)
    if not planned.memory.fits:
        _show_advice(console, planned)
        raise typer.Exit(1)


def _show(console: Console, recipe: str, planned: RecipePlan) -> None:
    from rich.table import Table

    settings, memory = planned.settings, planned.memory
    table = Table(
        "when", "part", "GiB", "how", title=f"{recipe}: one GPU of {settings.gpu_memory:g} GiB, {settings.launch}"
    )
    for phase in ("always", *memory.phases):
        for part in memory.parts:
            if part.phase == phase:
                table.add_row(part.phase, part.name, _gib(part.bytes), part.note)
        table.add_row("", f"[bold]{_TOTALS[phase]}[/bold]", f"[bold]{_gib(memory.total(phase))}[/bold]", "")
        table.add_section()
    console.print(table)
    console.print(
        f"student {settings.student.name}: {settings.student.parameters:,} parameters ({settings.student.source})"
    )
    if settings.teacher is not None:
        model = settings.teacher.model
        console.print(f"teacher {model.name}: {model.parameters:,} parameters ({model.source})")
    schedule = planned.schedule
    if schedule is not None:
        console.print(
            f"{schedule.prompts_per_step:g} questions a step, {schedule.steps_per_epoch} steps an epoch "
            f"({schedule.left_out} questions of each epoch left out), {schedule.steps} steps in all"
        )
    console.print(_verdict(memory), style="green" if memory.fits else "red")


_TOTALS = {
    "always": "always there",
    "rollouts": "during rollouts",
    "hints": "while the teacher writes hints",
    "scoring": "while the teacher scores",
    "step": "during the optimizer step",
}


def _verdict(memory: MemoryPlan) -> str:
    verb = "fits" if memory.fits else "does not fit"
    return (
        f"{verb}: at most {_gib(memory.peak)} GiB ({_TOTALS[memory.largest_phase]}) of {_gib(memory.usable)} usable "
        f"GiB ({_gib(memory.gpu_bytes)} less what fragments)"
    )


def _show_advice(console: Console, planned: RecipePlan) -> None:
    from kepo.planning.advice import combined_changes, single_changes

    single = single_changes(planned.settings)
    if single:
        console.print("It would fit with one of these:")
        for advice in single:
            console.print(f"  {advice.change}  ({_gib(advice.plan.peak)} GiB)", highlight=False, markup=False)
        return
    combined = combined_changes(planned.settings)
    if not combined:
        console.print("No change of settings that is known here makes it fit; use a smaller teacher or student.")
        return
    console.print("It would fit with these together:")
    for advice in combined:
        console.print(f"  {advice.change}  (then {_gib(advice.plan.peak)} GiB)", highlight=False, markup=False)


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f}" if count >= 0.1 * 1024**3 else f"{count / 1024**3:.3f}"
