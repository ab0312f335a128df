"""`kepo plan RECIPE... [--field value ...]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kepo.cli.train import Recipes

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.planning.memory import MemoryPlan
    from kepo.planning.settings import PlanSettings, Schedule

_TOTALS = {
    "always": "always there",
    "rollouts": "during rollouts",
    "hints": "while the teacher writes hints",
    "scoring": "while the teacher scores",
    "step": "during the optimizer step",
}


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

    from kepo.planning.memory import plan_memory
    from kepo.planning.settings import load_for_gpu, read_launch, schedule_of, settings_of
    from kepo.recipes.files import split_arguments

    names, overrides = split_arguments(recipes)
    launch = read_launch(accelerate_config, gpus)
    console = Console()
    with console.status("Reading configs and counting parameters"):
        recipe = load_for_gpu(names, overrides)
        settings = settings_of(recipe, launch, gpu_memory, prompt_tokens)
        memory = plan_memory(settings)
    _show(console, recipe.source, settings, memory, schedule_of(recipe, launch.gpus))
    if not memory.fits:
        _show_advice(console, settings)
        raise typer.Exit(1)


def _show(console: Console, recipe: str, settings: PlanSettings, memory: MemoryPlan, schedule: Schedule | None) -> None:
    from rich.table import Table

    title = f"{recipe}: one GPU of {settings.gpu_memory:g} GiB, {settings.launch}"
    table = Table("when", "part", "GiB", "how", title=title)
    for phase in ("always", *memory.phases):
        for part in memory.parts:
            if part.phase == phase:
                table.add_row(part.phase, part.name, _gib(part.bytes), part.note)
        table.add_row("", f"[bold]{_TOTALS[phase]}[/bold]", f"[bold]{_gib(memory.total(phase))}[/bold]", "")
        table.add_section()
    console.print(table)
    models = {"student": settings.student, "teacher": settings.teacher.model if settings.teacher else None}
    for role, model in models.items():
        if model is not None:
            console.print(f"{role} {model.name}: {model.parameters:,} parameters ({model.source})")
    if schedule is not None:
        console.print(
            f"{schedule.prompts_per_step:g} questions a step, {schedule.steps_per_epoch} steps an epoch "
            f"({schedule.left_out} questions of each epoch left out), {schedule.steps} steps in all"
        )
    console.print(
        f"{'fits' if memory.fits else 'does not fit'}: at most {_gib(memory.peak)} GiB "
        f"({_TOTALS[memory.largest_phase]}) of {_gib(memory.usable)} usable GiB ({_gib(memory.gpu_bytes)} less what "
        "fragments)",
        style="green" if memory.fits else "red",
    )


def _show_advice(console: Console, settings: PlanSettings) -> None:
    from kepo.planning.memory import combined_changes, single_changes

    single = single_changes(settings)
    combined = [] if single else combined_changes(settings)
    if not (single or combined):
        console.print("No change of settings that is known here makes it fit; use a smaller teacher or student.")
        return
    console.print("It would fit with one of these:" if single else "It would fit with these together:")
    for change, memory in single or combined:
        then = "" if single else "then "
        console.print(f"  {change}  ({then}{_gib(memory.peak)} GiB)", highlight=False, markup=False)


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f}" if count >= 0.1 * 1024**3 else f"{count / 1024**3:.3f}"
