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

    from kepo.benchmark.demo import run_demo, run_full_study
    from kepo.benchmark.study import default_workers
    from kepo.reports.report import report_study

    console = Console()
    study = out or Path("runs/study" if full else "runs/demo")
    try:
        (run_full_study if full else run_demo)(study, workers or default_workers(), console)
    except KeyboardInterrupt:
        console.print(f"Stopped. What is finished is kept in {study}; the same command goes on from there.")
        raise
    report_study(study, study / "report.html", console, results)
