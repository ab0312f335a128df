"""`kepo study STUDY`: arms x seeds x training modalities from one file, here or on a cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kepo.errors import ConfigError

if TYPE_CHECKING:
    from kepo.studies.runner import Failure
    from kepo.studies.schema import StudySpec


def study(
    study: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped study (studies/paper).")],
    data: Annotated[str | None, typer.Option(help="Folder of the questions; default: the study's.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of everything that is made; default: the study's.")] = None,
    only: Annotated[str | None, typer.Option(help="Only these arms, comma-separated.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side; default: one per entry of --devices.")
    ] = None,
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
        from kepo.studies.commands import shell_script, slurm_script

        typer.echo(shell_script(plans) if print_for == "shell" else slurm_script(plans, Path.cwd()), nl=False)
        return
    check_data(spec)
    _check_here(places)
    failures = _run(spec, arms, workers, places, quiet)
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


def _check_here(places: Sequence[str]) -> None:
    """The GPUs of `--devices` are there."""
    from kepo.recipes.requirements import check_device

    for number in (number for place in places for number in place.split(",") if number):
        check_device("--devices", f"cuda:{number}")


def _check_workers(spec: StudySpec, workers: int | None, places: Sequence[str]) -> None:
    if places and workers not in (None, len(places)):
        raise ConfigError(f"--workers {workers} with {len(places)} --devices: name one device, or group, per worker")
    if (workers or len(places)) > 1 and spec.accelerate_config is not None:
        raise ConfigError(
            f"{spec.source}, key 'accelerate_config': {spec.accelerate_config!r} puts every run on all GPUs, so runs "
            f"cannot go side by side; leave out --workers {workers or len(places)}, or the key"
        )


def demo(
    out: Annotated[Path | None, typer.Option(help="Folder of the study; default: runs/demo or runs/study.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The whole study: all arms, six runs each.")] = False,
    workers: Annotated[int | None, typer.Option(help="Runs side by side; default: one per core.", min=1)] = None,
    results: Annotated[Path | None, typer.Option(help="Also write the results as Markdown to this file.")] = None,
) -> None:
    """Train KEPO and what it is compared with on PhantomVQA, evaluate, and write one HTML report.

    Stopped with Ctrl-C, the same command goes on where it was.
    """
    from rich.console import Console

    from kepo.phantom.study import DEMO, FULL, TRAINED_ON
    from kepo.reports.report import report_study
    from kepo.studies.reading import read_study

    console = Console()
    needs = FULL if full else DEMO
    spec = read_study(needs.study, out=None if out is None else str(out))
    with console.status("") as status:
        needs.write(spec.out, status.update)
    try:
        failures = _run(spec, (), workers)
    except KeyboardInterrupt:
        console.print(f"Stopped. What is finished is kept in {spec.out}; the same command goes on from there.")
        raise
    if failures:
        raise typer.Exit(1)
    report_study(spec.out / TRAINED_ON, spec.out / "report.html", console, results)


def _run(
    spec: StudySpec, only: Sequence[str], workers: int | None, places: Sequence[str] = (), quiet: bool = False
) -> list[Failure]:
    """Run a study, and print a table of the runs that failed; arguments as of `kepo.studies.study.run_study`."""
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
    from kepo.studies.commands import report_stages

    if not any((spec.out / modality / "runs").is_dir() for modality in spec.modalities):
        return True
    codes = []
    for stage in report_stages(spec):
        typer.echo(f"$ {stage.line}", err=True)
        codes.append(subprocess.run([sys.executable, "-m", "kepo", *stage.arguments], check=False).returncode)
    return not any(codes)
