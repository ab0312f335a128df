"""`kepo prepare SOURCE`: from a data set on disk to a folder that is trained and evaluated on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kepo.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.data.prepare import Prepared, PrepareSettings
    from kepo.data.sources import Source

app = typer.Typer(
    help="Split a data set, draw samples, resize images, and write a data set folder with a data card.",
    no_args_is_help=True,
)


# What every command has; the defaults stand at the commands, because typer takes them from there.
Out = Annotated[Path, typer.Option("--out", help="Folder to write; it appears whole or not at all.")]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="stratified: by modality and question type. paper: by modality, question by question. given: as the "
        "source says. Default: given where there is one, else stratified.",
    ),
]
ImageDisjoint = Annotated[
    bool | None,
    typer.Option(
        "--image-disjoint/--no-image-disjoint",
        help="Keep all questions about one picture on one side. Default: yes, except for --split paper.",
    ),
]
Train = Annotated[str, typer.Option("--train", metavar="N|all", help="Questions per modality.")]
Test = Annotated[str, typer.Option("--test", metavar="N|all", help="Questions per modality.")]
Validation = Annotated[
    str, typer.Option("--validation", metavar="N|all", help="The same, out of the training side; 0: none.")
]
Size = Annotated[int | None, typer.Option("--size", help="Images become N x N pixels. Default: 384.")]
LongestSide = Annotated[
    int | None, typer.Option("--longest-side", help="Instead: at most N pixels on the longer side, shape kept.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of split and samples.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes. Default: one per core.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a folder that was prepared otherwise.")]


def settings_from(options: Mapping[str, Any]) -> PrepareSettings:
    """The shared options of a command, by the names of its parameters (`locals()`), as settings.

    Raises:
        ConfigError: they cannot work together.
    """
    from kepo.data.prepare import PrepareSettings

    size, longest = options["size"], options["longest_side"]
    return PrepareSettings(
        split=options["split"],
        image_disjoint=options["image_disjoint"],
        train=_count(options, "train"),
        validation=_count(options, "validation"),
        test=_count(options, "test"),
        size=384 if size is None and longest is None else size,
        longest_side=longest,
        seed=options["seed"],
    )


def _count(options: Mapping[str, Any], name: str) -> int | None:
    text = options[name].strip().lower()
    if text == "all":
        return None
    if not text.isdecimal():
        raise ConfigError(
            f"--{name} {options[name]!r} is no whole number of questions per modality; give one, or 'all'"
        )
    return int(text)


def run(source: Source, options: Mapping[str, Any]) -> None:
    """Prepares `source` with the shared options of a command (`locals()`), and says what came out."""
    from rich.console import Console

    from kepo.data.prepare import prepare

    command = shlex.join(["kepo", *sys.argv[1:]])
    prepared = prepare(
        source,
        settings_from(options),
        options["out"],
        workers=options["workers"],
        overwrite=options["overwrite"],
        command=command,
        bar=True,
    )
    _show(Console(), prepared)


def _show(console: Console, prepared: Prepared) -> None:
    from rich.table import Table

    splits, rows = prepared.card["splits"], prepared.card["rows"]
    if not prepared.made:
        text = "Nothing to do: it was prepared from the same files with the same settings already."
        if rows["unusable"]:
            text += " Images were not looked at again; --overwrite does, should missing ones be there by now."
        console.print(text)
    table = Table("modality", *(f"{split} (of)" for split in splits))
    for column in table.columns[1:]:
        column.justify = "right"
    modalities = sorted({modality for split in splits.values() for modality in split["modalities"]})
    for modality in modalities:
        counts = (split["modalities"].get(modality, {"questions": 0})["questions"] for split in splits.values())
        table.add_row(modality, *map(str, counts))
    table.add_section()
    table.add_row("all", *(f"{split['questions']} ({split['available']})" for split in splits.values()))
    console.print(table)
    for split in splits:
        few = [short for short in prepared.card["shortfalls"] if short["split"] == split]
        if few:
            listed = ", ".join(f"{short['modality']} {short['taken']}" for short in few)
            text = f"{split}: fewer than the {few[0]['asked']} questions asked for, so all were taken: {listed}"
            console.print(text, style="yellow", highlight=False, soft_wrap=True)
    console.print(
        f"{rows['total']} rows: {rows['usable']} usable, {rows['unusable']} not (unusable.jsonl)", highlight=False
    )
    console.print(f"data set and card: {prepared.folder}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def omnimedvqa(
    out: Out,
    root: Annotated[
        Path | None, typer.Option(help="Folder with Images/ and, unless split files are given, QA_information/.")
    ] = None,
    split_file: Annotated[
        list[Path] | None,
        typer.Option(help="JSON list of image, problem, solution, instead of QA_information/; may be repeated."),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Leave images out: split files alone, for the text.")
    ] = True,
    modality: Annotated[str | None, typer.Option(help="Of split files whose names do not tell it.")] = None,
    split: Split = None,
    image_disjoint: ImageDisjoint = None,
    train: Train = "600",
    test: Test = "300",
    validation: Validation = "100",
    size: Size = None,
    longest_side: LongestSide = None,
    seed: Seed = 42,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """OmniMedVQA as published, or the split files of its users.

    Stopped by Ctrl-C or a crash, the same command goes on where it was.
    """
    options = locals()
    from kepo.data.omnimedvqa import omnimedvqa_source
    from kepo.data.split_files import split_file_source

    if split_file:
        run(split_file_source(split_file, root, images=images, modality=modality), options)
        return
    if root is None:
        raise ConfigError("--root is missing: name the folder that holds QA_information/ and Images/")
    if modality is not None or not images:
        raise ConfigError("--modality and --no-images are for split files (--split-file); remove them")
    run(omnimedvqa_source(root), options)
