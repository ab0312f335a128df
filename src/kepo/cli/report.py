"""`kepo report PATH...`: runs compared, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def report(
    paths: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold runs.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: report.html or report.md. Of paper: a folder, paper.")
    ] = None,
    file_format: Annotated[
        Literal["html", "markdown", "paper"] | None,
        typer.Option(
            "--format",
            help="paper: the table of arms and modalities as Markdown, LaTeX and CSV, and the figure of checkpoints. "
            "Default: by the name of --out, else html.",
        ),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Also write the figures as PNG and SVG into this folder.")
    ] = None,
    evaluation: Annotated[str, typer.Option(help="Name of the evaluation.")] = "test",
    baseline: Annotated[
        list[str] | None, typer.Option(help="Arm that the main arm is claimed to beat; may be given several times.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title; default: the study's, else the folder's name.")] = None,
    max_rollouts: Annotated[int, typer.Option(min=0, help="Most rollouts to show.")] = 400,
    checkpoints: Annotated[str, typer.Option(help="Of paper: the evaluation of checkpoints to draw.")] = "validation",
    per_modality: Annotated[int, typer.Option(min=1, help="Of paper: questions each modality should have.")] = 300,
) -> None:
    """Compare runs in one HTML file that can be sent to others: accuracy, curves, reasoning, costs, rollouts."""
    from rich.console import Console

    from kepo.files import write_text
    from kepo.reports.report import html, make_report, markdown, write_figures

    console = Console(stderr=True)
    if file_format == "paper":
        from kepo.reports.paper import write_paper

        with console.status("reading runs") as status:
            output = write_paper(
                paths,
                out or Path("paper"),
                evaluation=evaluation,
                checkpoints=checkpoints,
                per_modality=per_modality,
                title=title,
                progress=status.update,
            )
        for note in output.notes:
            typer.echo(note)
        typer.echo(f"written: {len(output.files)} files in {out or 'paper'}, beginning with {output.files[0].name}")
        return
    if file_format is None:
        file_format = "markdown" if out is not None and out.suffix.lower() in (".md", ".markdown") else "html"
    with console.status("reading runs") as status:
        made = make_report(
            paths,
            evaluation=evaluation,
            title=title,
            baselines=baseline or (),
            max_rollouts=max_rollouts if file_format == "html" else 0,
            progress=status.update,
        )
        text, file = (html(made), "report.html") if file_format == "html" else (markdown(made), "report.md")
        written = write_text(text, out or Path(file))
        drawn = write_figures(made, figures) if figures else []
    for sentence in made.document.headline:
        typer.echo(sentence)
    typer.echo(f"written: {written}" + (f" and {len(drawn)} files in {figures}" if drawn else ""))
