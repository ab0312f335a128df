"""`kepo prepare SOURCE`: from a data set on disk to a folder that is trained and evaluated on.

A command returns the `Source` that its own options name; the options that all commands share are added by `_command`,
which reads signatures, so annotations are not postponed here.
"""

import inspect
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kepo.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.data.prepare import Prepared
    from kepo.data.sources import Source

app = typer.Typer(
    help="Split a data set, draw samples, resize images, and write a data set folder with a data card.",
    no_args_is_help=True,
)


def _option(help: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar)


_Count = Annotated[str, _option("Questions per modality.", metavar="N|all")]
_SPLIT = (
    "stratified: by modality and question type. paper: by modality, question by question. given: as the source says. "
    "Default: given where there is one, else stratified."
)
_DISJOINT = "Keep all questions about one image in one split. Default: yes, except for --split paper."


def _shared(
    *,
    out: Annotated[Path, _option("Folder to write; it appears whole or not at all.")],
    split: Annotated[str | None, _option(_SPLIT)] = None,
    image_disjoint: Annotated[bool | None, _option(_DISJOINT, "--image-disjoint/--no-image-disjoint")] = None,
    train: _Count = "all",
    test: _Count = "all",
    validation: Annotated[str, _option("The same, out of the training questions; 0: none.", metavar="N|all")] = "all",
    size: Annotated[int | None, _option("Images become N x N pixels. Default: 384.")] = None,
    longest_side: Annotated[int | None, _option("Instead: at most N pixels on the longer side, shape kept.")] = None,
    seed: Annotated[int, _option("Of split and samples.")] = 42,
    workers: Annotated[int | None, _option("Processes. Default: one per core.")] = None,
    overwrite: Annotated[bool, _option("Replace a folder that was prepared otherwise.", "--overwrite")] = False,
) -> None:
    """The options of every command; never called."""


def _command(name: str, **defaults: str) -> Callable[[Callable[..., "Source"]], Callable[..., None]]:
    """Makes a command `kepo prepare NAME` of a function that returns what is to be prepared.

    The function's own options come first; it may also take `seed`, and `scratch`, a folder beside the result for what
    is unpacked, which only a failure leaves there. `defaults` are other defaults of the shared options.
    """
    shared = {
        key: option.replace(default=defaults.get(key, option.default))
        for key, option in inspect.signature(_shared).parameters.items()
    }

    def made(source: Callable[..., "Source"]) -> Callable[..., None]:
        taken = inspect.signature(source).parameters

        @wraps(source)
        def run(**options: Any) -> None:
            out = options["out"].absolute()
            scratch = out.with_name(f".{out.name}.unpacked")
            given = {key: options[key] for key in taken if key != "scratch"}
            _prepare(source(**given, **({"scratch": scratch} if "scratch" in taken else {})), options)
            # A folder that was named is kept, be it this one.
            if options.get("unpack_to") is None:
                shutil.rmtree(scratch, ignore_errors=True)

        own = (option for key, option in taken.items() if key not in ("scratch", *shared))
        parameters = [*(option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in own), *shared.values()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in parameters}
        app.command(name)(run)
        return run

    return made


def _prepare(source: "Source", options: Mapping[str, Any]) -> None:
    """Prepares `source` with the shared options of a command, and says what came out."""
    from rich.console import Console

    from kepo.data.prepare import PrepareSettings, prepare

    size, longest = options["size"], options["longest_side"]
    given = {name: options[name] for name in ("split", "image_disjoint", "seed", "longest_side")}
    counts: dict[str, Any] = {name: _count(options, name) for name in ("train", "validation", "test")}
    settings = PrepareSettings(**given, **counts, size=384 if size is None and longest is None else size)
    how = {name: options[name] for name in ("workers", "overwrite")}
    command = shlex.join(["kepo", *sys.argv[1:]])
    _show(Console(), prepare(source, settings, options["out"], **how, command=command, bar=True))


def _count(options: Mapping[str, Any], name: str) -> int | None:
    text = options[name].strip().lower()
    if text == "all":
        return None
    if not text.isdecimal():
        raise ConfigError(f"--{name} {options[name]!r} is no whole number of questions per modality, or 'all'")
    return int(text)


def _show(console: "Console", prepared: "Prepared") -> None:
    from rich.table import Column, Table

    splits, rows = prepared.card["splits"], prepared.card["rows"]
    if not prepared.made:
        again = " Images were not opened again; --overwrite does so, should missing ones be there by now."
        text = "Nothing to do: it was prepared from the same files with the same settings already."
        console.print(text + again * bool(rows["unusable"]))
    table = Table("modality", *(Column(f"{split} (of)", justify="right") for split in splits))
    for modality in sorted({modality for split in splits.values() for modality in split["modalities"]}):
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
    text = f"{rows['total']} rows: {rows['usable']} usable, {rows['unusable']} not (unusable.jsonl)"
    console.print(text, highlight=False)
    console.print(f"data set and card: {prepared.folder}", highlight=False, soft_wrap=True, markup=False)


_SPLIT_FILE = "JSON list of image, problem, solution, instead of QA_information/; may be repeated."
_UNPACK_TO = "Folder for the unpacked arrays, kept. Default: beside --out, removed at the end."


@_command("omnimedvqa", train="600", test="300", validation="100")
def omnimedvqa(
    root: Annotated[Path | None, _option("Folder with Images/ and QA_information/ (split files: Images/).")] = None,
    split_file: Annotated[list[Path] | None, _option(_SPLIT_FILE)] = None,
    images: Annotated[bool, _option("Leave images out (split files only).", "--images/--no-images")] = True,
    modality: Annotated[str | None, _option("Of split files whose names do not tell it.")] = None,
) -> "Source":
    """OmniMedVQA as published, or the split files of its users.

    Stopped by Ctrl-C or a crash, the same command goes on where it was.
    """
    from kepo.data.readers.published import omnimedvqa_source, split_file_source

    if split_file:
        return split_file_source(split_file, root, images=images, modality=modality)
    if root is None:
        raise ConfigError("--root is missing: name the folder that holds QA_information/ and Images/")
    if modality is not None or not images:
        raise ConfigError("--modality and --no-images are for split files (--split-file); remove them")
    return omnimedvqa_source(root)


@_command("medmnist")
def medmnist(
    seed: int,
    scratch: Path,
    npz: Annotated[list[Path] | None, _option("A file such as pathmnist_224.npz; may be repeated.")] = None,
    download: Annotated[list[str] | None, _option("A set to fetch, or 'all'; may be repeated.")] = None,
    pixels: Annotated[int, _option("Side of the images to fetch: 28, 64, 128 or 224.")] = 28,
    download_to: Annotated[Path, _option("Folder that fetched files are kept in.")] = Path("medmnist"),
    options: Annotated[int, _option("Options per question: the correct one, and others of the set.")] = 4,
    unpack_to: Annotated[Path | None, _option(_UNPACK_TO)] = None,
) -> "Source":
    """The 2-D sets of MedMNIST as multiple-choice questions, in their own splits."""
    from kepo.data.readers.medmnist import download_medmnist, medmnist_sets, medmnist_source

    if not npz and not download:
        raise ConfigError("no data was named: give files with --npz FILE, or sets to fetch with --download NAME")
    names = list(medmnist_sets()) if download == ["all"] else download or []
    fetched = download_medmnist(names, download_to, pixels) if names else []
    return medmnist_source([*(npz or []), *fetched], unpack_to or scratch, seed, options)


_Root = Annotated[Path, _option("The folder that the data set unpacks to.")]
_Questions = Annotated[list[Path] | None, _option("JSON file instead of those in --root; may be repeated.")]
_Images = Annotated[Path | None, _option("Image folder instead of the one in --root.")]
_CLOSED = "Leave out, and list, what does not become multiple choice with yes and no."
_ClosedOnly = Annotated[bool, _option(_CLOSED, "--closed-only")]


@_command("vqa-rad")
def vqa_rad(
    root: _Root = Path(), questions: _Questions = None, images: _Images = None, closed_only: _ClosedOnly = False
) -> "Source":
    """VQA-RAD as published. Its own split shares images: with --no-image-disjoint it is kept as it is."""
    from kepo.data.readers.published import published_source

    return published_source("vqa-rad", root, questions or (), images, closed_only)


@_command("slake")
def slake(
    root: _Root = Path(),
    questions: _Questions = None,
    images: _Images = None,
    closed_only: _ClosedOnly = False,
    language: Annotated[str | None, _option("Only questions in 'en' or 'zh'.")] = None,
) -> "Source":
    """SLAKE as published, in its own splits."""
    from kepo.data.readers.published import published_source

    return published_source("slake", root, questions or (), images, closed_only, language)


_COLUMN = (
    "Where a field stands: question, answer, options or option_A, option_B, ..., image, id, modality, task, dataset, "
    "split. Fields with a column of their own name need none. A dotted path leads into records and lists. May be "
    "repeated."
)
_ANSWER = (
    "How answers are written: letter, text, index (from 0), index_from_1, index_found (from 0 or 1), letter_or_text, "
    "or auto: letter or text, and what could be both is listed."
)


@_command("table")
def table(
    scratch: Path,
    file: Annotated[list[Path], typer.Argument(help="One or more .csv, .tsv, .jsonl, .json or .parquet files.")],
    preset: Annotated[str | None, _option("Layout of the rows, such as r1-v (docs/data.md lists them).")] = None,
    column: Annotated[list[str] | None, _option(_COLUMN, metavar="FIELD=COLUMN")] = None,
    set_: Annotated[list[str] | None, _option("One value for all rows.", "--set", metavar="FIELD=VALUE")] = None,
    answer: Annotated[str, _option(_ANSWER)] = "auto",
    option_separator: Annotated[str | None, _option("Between options in one cell. Default: a JSON list.")] = None,
    image_root: Annotated[Path | None, _option("Folder of the image paths. Default: that of FILE.")] = None,
    license_: Annotated[str | None, _option("Of the images, for the data card.", "--license", "--licence")] = None,
    delimiter: Annotated[str | None, _option("Between cells. Default: in .csv a comma, in .tsv a tab.")] = None,
    encoding: Annotated[str, _option("Of a CSV or TSV file.")] = "utf-8",
) -> "Source":
    """Any table, by the name of its layout or by saying which column holds what."""
    from kepo.data.readers.layouts import check_overlooked
    from kepo.data.readers.presets import Preset, load_preset
    from kepo.data.readers.questions import table_source
    from kepo.data.readers.rows import TableFile
    from kepo.data.readers.table import TableMap

    tables = [TableFile(one, delimiter, encoding) for one in file]
    said = TableMap(_pairs(column, "--column"), _pairs(set_, "--set"), answer, option_separator)  # type: ignore[arg-type]
    if preset is None and not column:
        for one in tables:
            check_overlooked(one.path, one.columns())
    layout = Preset(said) if preset is None else load_preset(preset)
    mapped = said if preset is None else said.over(layout.map)
    license = license_ or layout.license
    return table_source(tables, mapped, image_root, scratch, license=license, name=layout.title, notes=layout.notes)


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
