"""`kepo study STUDY`: arms x seeds x training modalities from one file, here or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kepo.errors import ConfigError

if TYPE_CHECKING:
    from kepo.studies.plan import RunPlan
    from kepo.studies.runner import Failure
    from kepo.studies.schema import StudySpec


def study(
    study: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped study (studies/paper).")],
    data: Annotated[str | None, typer.Option(help="Folder of the questions; default: the study's.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of everything that is made; default: the study's.")] = None,
    only: Annotated[str | None, typer.Option(help="Only these arms, comma-separated.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Runs side by side; default: one per --devices.")] = None,
    devices: Annotated[
        str | None, typer.Option(help="A run on each: cuda:0,cuda:1; several for a run: cuda:0+cuda:1,cuda:2+cuda:3.")
    ] = None,
    print_for: Annotated[
        Literal["shell", "slurm"] | None,
        typer.Option("--print", help="Run nothing; print a command line per run, or an sbatch script."),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Make the reports at the end.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train, choose and test every arm with every seed on every training modality; what is done is not done again.

    Stopped by Ctrl-C or a crash, the same command goes on where it was.
    """
    from kepo.studies.plan import check_data
    from kepo.studies.reading import read_study
    from kepo.studies.study import plans_for_now

    spec = read_study(study, data=data, out=out)
    arms = [name.strip() for name in only.split(",") if name.strip()] if only else ()
    places = _places(devices)
    _check_workers(spec, workers, places)
    plans = plans_for_now(spec, arms)
    if print_for is not None:
        typer.echo(_script(plans, print_for), nl=False)
        return
    check_data(spec)
    failures = run_and_show(spec, arms, workers, places, quiet)
    reported = _report(spec) if report else True
    if failures or not reported:
        raise typer.Exit(1)


def _places(devices: str | None) -> list[str]:
    """What each worker sees: "cuda:0+cuda:1" becomes "0,1", and "cpu" nothing."""
    places = []
    for group in (devices or "").split(","):
        names = [name.strip() for name in group.split("+") if name.strip()]
        numbers = [name.removeprefix("cuda:") for name in names]
        if names == ["cpu"]:
            numbers = []
        elif not all(number.isdigit() for number in numbers):
            raise ConfigError(f"--devices {devices!r}: {group!r} names no device; write cuda:0,cuda:1 or cpu")
        if names:
            places.append(",".join(numbers))
    return places


def _check_workers(spec: StudySpec, workers: int | None, places: Sequence[str]) -> None:
    if places and workers not in (None, len(places)):
        raise ConfigError(f"--workers {workers} with {len(places)} --devices: name one device, or group, per worker")
    if (workers or len(places)) > 1 and spec.accelerate_config is not None:
        raise ConfigError(
            f"{spec.source}, key 'accelerate_config': {spec.accelerate_config!r} puts every run on all GPUs, so runs "
            f"cannot go side by side; leave out --workers {workers or len(places)}, or the key"
        )


def _script(plans: Sequence[RunPlan], kind: str) -> str:
    from kepo.studies.commands import shell_script, slurm_script

    return shell_script(plans) if kind == "shell" else slurm_script(plans, Path.cwd())


def run_and_show(
    spec: StudySpec,
    only: Sequence[str] = (),
    workers: int | None = None,
    places: Sequence[str] = (),
    quiet: bool = False,
) -> list[Failure]:
    """Run a study, with a table of the runs that failed; arguments as those of `kepo.studies.study.run_study`."""
    import signal

    from rich.console import Console
    from rich.table import Table

    from kepo.studies.study import run_study

    console = Console(stderr=True)

    def say(sentence: str) -> None:
        console.print(sentence, style="yellow" if " failed: " in sentence else None, highlight=False, markup=False)

    # A scheduler that stops the study ends its runs as Ctrl-C does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failures = run_study(spec, only, workers=workers, devices=places, say=say, quiet=quiet)
    finally:
        signal.signal(signal.SIGTERM, before)
    if failures:
        table = Table("run", "failed in", "log")
        for failure in failures:
            table.add_row(failure.plan.title, failure.stage, str(failure.plan.log))
        console.print(table)
    return failures


def _report(spec: StudySpec) -> bool:
    """Run the commands of the reports over what is there; whether they succeeded."""
    import subprocess
    import sys

    from kepo.studies.commands import report_stages

    if not any((spec.out / modality / "runs").is_dir() for modality in spec.modalities):
        return True
    good = True
    for stage in report_stages(spec):
        typer.echo(f"$ {stage.line}", err=True)
        done = subprocess.run([sys.executable, "-m", "kepo", *stage.arguments], check=False)
        good = good and done.returncode == 0
    return good
