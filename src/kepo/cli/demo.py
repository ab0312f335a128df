"""`kepo demo`: the built-in benchmark, from nothing to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path | None, typer.Option(help="Folder of the study; default: runs/demo or runs/study.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The whole study: all arms, six runs each; hours.")] = False,
    workers: Annotated[int | None, typer.Option(help="Runs side by side; default: one per core.", min=1)] = None,
    results: Annotated[Path | None, typer.Option(help="Also write the results as Markdown to this file.")] = None,
) -> None:
    """Train KEPO and what it is compared with on PhantomVQA, evaluate, and write one HTML report.

    Stopped with Ctrl-C, the same command goes on where it was.
    """
    from rich.console import Console

    from kepo.cli.study import run_and_show
    from kepo.phantom.study import DEMO, FULL, TRAINED_ON
    from kepo.reports.report import report_study
    from kepo.studies.reading import read_study

    console = Console()
    needs = FULL if full else DEMO
    study = read_study(needs.study, out=None if out is None else str(out))
    with console.status("") as status:
        needs.write(study.out, status.update)
    try:
        failures = run_and_show(study, workers=workers)
    except KeyboardInterrupt:
        console.print(f"Stopped. What is finished is kept in {study.out}; the same command goes on from there.")
        raise
    if failures:
        raise typer.Exit(1)
    report_study(study.out / TRAINED_ON, study.out / "report.html", console, results)
