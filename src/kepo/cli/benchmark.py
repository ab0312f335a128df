"""`kepo benchmark`: PhantomVQA's questions and base models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="PhantomVQA, the built-in benchmark: questions, base models.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="Folder to write into.")]


@app.command()
def data(
    out: Out,
    train: Annotated[int, typer.Option(help="Training questions per modality.")] = 600,
    validation: Annotated[int, typer.Option(help="Validation questions per modality.")] = 140,
    test: Annotated[int, typer.Option(help="Test questions per modality.")] = 300,
    modality: Annotated[list[str] | None, typer.Option(help="Only this modality; may be repeated.")] = None,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 48,
    layout: Annotated[str, typer.Option(help="'kepo' (JSON lines) or 'omnimedvqa' (the published layout).")] = "kepo",
    seed: Annotated[int, typer.Option(help="Decides every question; different seeds share no scene.")] = 2026,
) -> None:
    """Write training, validation and test questions, no scene in two of them."""
    from rich.console import Console

    from kepo.data.omnimedvqa import MODALITIES
    from kepo.errors import ConfigError
    from kepo.phantom.files import write_omnimedvqa, write_questions
    from kepo.phantom.questions import phantom_questions

    if layout not in ("kepo", "omnimedvqa"):
        raise ConfigError(f"layout is {layout!r}; use 'kepo' or 'omnimedvqa'.")
    modalities = modality or list(MODALITIES)
    console = Console()
    numbers = {"train": train, "validation": validation, "test": test}
    for offset, (name, number) in enumerate(numbers.items()):
        if number == 0:
            continue
        with console.status(f"Drawing {name}"):
            questions = phantom_questions(number * len(modalities), 10 * seed + offset, modalities=modalities)
            if layout == "kepo":
                write_questions(out / f"{name}.jsonl", questions, size)
            else:
                write_omnimedvqa(out / name, f"PhantomVQA-{name}", questions, size)
        console.print(f"{name}: {len(questions)} questions of {len(modalities)} modalities", highlight=False)


@app.command()
def models(out: Out) -> None:
    """Copy the base models that come with the package: three students and a teacher."""
    from rich.console import Console

    from kepo.phantom.build import SHIPPED, copy_models

    copy_models(out)
    Console().print(f"{', '.join(SHIPPED)}: {out}", highlight=False, soft_wrap=True)


@app.command()
def build(
    out: Out,
    name: Annotated[list[str] | None, typer.Argument(help="Which models; default: all.")] = None,
) -> None:
    """Make the base models from their seeds (all of them: some 45 minutes of one CPU core)."""
    from rich.console import Console

    from kepo.phantom.build import MODEL_PLANS, build_models

    console = Console()
    build_models(out, name or tuple(MODEL_PLANS), tell=lambda text: console.print(text, highlight=False))


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
    Console().print(f"now run: kepo study {needs.study} --out {out}", highlight=False, soft_wrap=True)


@app.command()
def sheet(
    file: Annotated[Path, typer.Argument(help="PNG file to write.")],
    size: Annotated[int, typer.Option(help="Side of one image in pixels.")] = 160,
) -> None:
    """Draw a contact sheet: every modality, several scenes."""
    from kepo.phantom.contact_sheet import contact_sheet

    # With a palette of its own the file is less than half as large, and no colour is far off.
    contact_sheet(size).quantize(128, kmeans=2).save(file, optimize=True)
