"""`kepo prepare medmnist`, `vqa-rad`, `slake` and `table`: data sets beside OmniMedVQA."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kepo.cli.prepare import (
    ImageDisjoint,
    LongestSide,
    Out,
    Overwrite,
    Seed,
    Size,
    Split,
    Test,
    Train,
    Validation,
    Workers,
    app,
    run,
)
from kepo.errors import ConfigError

_Root = Annotated[Path, typer.Option("--root", help="The folder that the data set unpacks to.")]
_Questions = Annotated[
    list[Path] | None, typer.Option("--questions", help="JSON file instead of those in --root; may be repeated.")
]
_Images = Annotated[Path | None, typer.Option("--images", help="Image folder instead of the one in --root.")]
_ClosedOnly = Annotated[
    bool,
    typer.Option("--closed-only", help="Leave out, and list, what does not become multiple choice with yes and no."),
]


@app.command()
def medmnist(
    out: Out,
    npz: Annotated[
        list[Path] | None, typer.Option(help="A file such as pathmnist.npz or pathmnist_224.npz; may be repeated.")
    ] = None,
    download: Annotated[
        list[str] | None, typer.Option(help="A set to fetch, such as pathmnist, or 'all'; may be repeated.")
    ] = None,
    pixels: Annotated[int, typer.Option(help="Side of the images to fetch: 28, 64, 128 or 224.")] = 28,
    download_to: Annotated[Path, typer.Option(help="Folder that fetched files are kept in.")] = Path("medmnist"),
    options_per_question: Annotated[
        int, typer.Option("--options", help="Options per question: the right one, and others of the set.")
    ] = 4,
    unpack_to: Annotated[
        Path | None,
        typer.Option(help="Folder for the unpacked arrays, kept. Default: beside --out, removed at the end."),
    ] = None,
    split: Split = None,
    image_disjoint: ImageDisjoint = None,
    train: Train = "all",
    test: Test = "all",
    validation: Validation = "all",
    size: Size = None,
    longest_side: LongestSide = None,
    seed: Seed = 42,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """The 2-D sets of MedMNIST as multiple-choice questions, in their own splits."""
    options = locals()
    from kepo.data.medmnist import medmnist_source
    from kepo.data.medmnist_download import download_medmnist
    from kepo.data.medmnist_sets import MEDMNIST_SETS

    if not npz and not download:
        raise ConfigError("no data was named: give files with --npz FILE, or sets to fetch with --download NAME")
    names = list(MEDMNIST_SETS) if download == ["all"] else download or []
    fetched = download_medmnist(names, download_to, pixels) if names else []
    with _kept_until_done(out, unpack_to) as folder:
        run(medmnist_source([*(npz or []), *fetched], folder, seed, options_per_question), options)


@app.command()
def vqa_rad(
    out: Out,
    root: _Root = Path(),
    questions: _Questions = None,
    images: _Images = None,
    closed_only: _ClosedOnly = False,
    split: Split = None,
    image_disjoint: ImageDisjoint = None,
    train: Train = "all",
    test: Test = "all",
    validation: Validation = "all",
    size: Size = None,
    longest_side: LongestSide = None,
    seed: Seed = 42,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """VQA-RAD as published. Its own split shares images: with --no-image-disjoint it is kept as it is."""
    options = locals()
    from kepo.data.vqa_json import VqaChoice, vqa_rad_source

    run(vqa_rad_source(root, VqaChoice(closed_only), questions or (), images), options)


@app.command()
def slake(
    out: Out,
    root: _Root = Path(),
    questions: _Questions = None,
    images: _Images = None,
    closed_only: _ClosedOnly = False,
    language: Annotated[str | None, typer.Option(help="Only questions in 'en' or 'zh'.")] = None,
    split: Split = None,
    image_disjoint: ImageDisjoint = None,
    train: Train = "all",
    test: Test = "all",
    validation: Validation = "all",
    size: Size = None,
    longest_side: LongestSide = None,
    seed: Seed = 42,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """SLAKE as published, in its own splits."""
    options = locals()
    from kepo.data.vqa_json import VqaChoice, slake_source

    run(slake_source(root, VqaChoice(closed_only, language), questions or (), images), options)


@app.command()
def table(
    file: Annotated[Path, typer.Argument(help="A .csv, .tsv, .jsonl, .json or .parquet file.")],
    out: Out,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=COLUMN",
            help="Where a field stands: question, answer, options or option_A, option_B, ..., image, id, modality, "
            "task, dataset, split. Fields with a column of their own name need none. May be repeated.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="One value for all rows; may be repeated."),
    ] = None,
    answer: Annotated[
        str, typer.Option(help="How answers are written: letter, text, index (from 0), or auto: letter or text.")
    ] = "auto",
    option_separator: Annotated[
        str | None, typer.Option(help="Between options that stand in one cell. Default: they are a JSON list.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder that image paths are relative to. Default: that of FILE.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the images, for the data card.")] = "unknown",
    delimiter: Annotated[
        str | None, typer.Option(help="Between the cells of a CSV file. Default: a comma; in .tsv a tab.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of a CSV or TSV file.")] = "utf-8",
    split: Split = None,
    image_disjoint: ImageDisjoint = None,
    train: Train = "all",
    test: Test = "all",
    validation: Validation = "all",
    size: Size = None,
    longest_side: LongestSide = None,
    seed: Seed = 42,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Any table, by saying which column holds what."""
    options = locals()
    from kepo.data.records import TableFile
    from kepo.data.table import TableMap, table_source

    table_map = TableMap(_pairs(column, "--column"), _pairs(set_, "--set"), answer, option_separator)  # type: ignore[arg-type]
    with _kept_until_done(out, None) as folder:
        run(table_source(TableFile(file, delimiter, encoding), table_map, image_root, folder, licence), options)


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given or []:
        name, separator, value = text.partition("=")
        if not (separator and name and value):
            raise ConfigError(f"{option} {text!r} is not of the form FIELD=...")
        if name in pairs:
            raise ConfigError(f"{option}: {name} is given twice, as {pairs[name]!r} and as {value!r}; keep one of them")
        pairs[name] = value
    return pairs


@contextmanager
def _kept_until_done(out: Path, chosen: Path | None) -> Iterator[Path]:
    """A folder for what is unpacked: `chosen`, which is kept, or one beside `out` that only a failure leaves there."""
    if chosen is not None:
        yield chosen
        return
    out = out.absolute()
    folder = out.with_name(f".{out.name}.unpacked")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
