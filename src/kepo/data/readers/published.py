"""Data sets as they unpack: folders of JSON lists beside folders of images, each read by its preset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

from kepo.data.images import ImageRoot
from kepo.data.omnimedvqa import NOTES, QUESTION_FOLDER, license_of
from kepo.data.readers.presets import Preset, preset
from kepo.data.readers.rows import TableFile
from kepo.data.readers.table import read_rows, read_tables
from kepo.data.schema import Place
from kepo.data.sources import Source, Unusable, strict
from kepo.errors import ConfigError, DataError
from kepo.types import Question


def load_omnimedvqa(root: str | Path) -> list[Question]:
    """All questions of OmniMedVQA's open-access part, file by file in the order of their names.

    Args:
        root: The folder that holds `QA_information` and `Images`.

    Returns:
        Questions whose images are paths (not opened here) and whose metadata names the source `dataset`.

    Raises:
        DataError: the folder is not laid out so, or a row cannot be used. Nothing is dropped silently.
    """
    files = question_files(Path(root))
    return strict(_omnimedvqa(Path(root), files, origin=False), files)


def omnimedvqa_source(root: str | Path) -> Source:
    """OmniMedVQA's open-access part for `kepo prepare`: rows that cannot be used are listed instead of raised.

    Args:
        root: The folder that holds `QA_information` and `Images`; images may be missing.

    Raises:
        DataError: the folder is not laid out so. While the rows are read: a file is no JSON list, which would hide how
            many of its rows are lost.
    """
    files = question_files(Path(root))
    return Source("OmniMedVQA", _omnimedvqa(Path(root), files, origin=True), tuple(files), license_of, NOTES)


def question_files(root: Path) -> list[Path]:
    """The files of OmniMedVQA's open-access part, by name.

    Raises:
        DataError: there is none.
    """
    files = sorted((root / QUESTION_FOLDER).glob("*.json"))
    if not files:
        raise DataError(f"{root}: no file matches {QUESTION_FOLDER}/*.json; give the folder that OmniMedVQA unpacks to")
    return files


def _omnimedvqa(root: Path, files: Sequence[Path], *, origin: bool) -> Iterator[Question | Unusable]:
    lettered = {f"option_{letter}": f"option_{letter}" for letter in ascii_uppercase}
    table_map = preset("omnimedvqa").map
    # Not resolved file by file: a row that lacks a column is a problem of that row.
    table_map = replace(table_map, columns={**table_map.columns, **lettered})
    images, seen = ImageRoot(root), dict[str, Place]()
    for file in files:
        yield from read_rows(TableFile(file), table_map, images, seen=seen, origin=origin)


def published_source(
    name: str,
    root: Path,
    *,
    questions: Sequence[Path] = (),
    images: Path | None = None,
    closed_only: bool = False,
    language: str | None = None,
) -> Source:
    """The questions of VQA-RAD ("vqa-rad") or SLAKE ("slake"), in their own splits.

    Args:
        name: The preset.
        root: The folder that the data set unpacks to.
        questions: JSON files instead of those in `root`.
        images: Image folder instead of that in `root`.
        closed_only: Leave out what does not become multiple choice with yes and no.
        language: `q_lang` of the questions to use ("en", "zh"); None: all.

    Raises:
        ConfigError: a language is chosen, and the data set has but one.
        DataError: the folder is not laid out so; while rows are read: a file that is no JSON list.
    """
    layout = preset(name)
    table_map = replace(layout.map, closed_only=closed_only)
    if language is not None:
        if "q_lang" not in table_map.metadata:
            raise ConfigError(f"language {language!r}: {layout.title} is in English only")
        table_map = replace(table_map, where={"q_lang": language})
    tables = [TableFile(file) for file in questions or _question_files(layout, root)]
    maps = []
    for table in tables:
        # Not resolved by the columns of the table: a row that lacks a column is a problem of that row.
        maps.append(table_map.with_split_of(table.path))
        if "split" not in (*maps[-1].columns, *maps[-1].constants):
            raise DataError(
                f"{table.path}: its name is not train, validate or test, so its split is not known; rename it"
            )
    folder = images or _image_folder(layout, root)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path")
    notes = [*layout.notes, "Closed questions with the answer yes or no are multiple choice with the options Yes, No."]
    if not closed_only:
        notes.append("All other questions are open: they have no options, and their answer is a text.")
    return Source(
        name=layout.title or name,
        rows=read_tables(tables, maps, ImageRoot(folder), None),
        files=tuple(table.path for table in tables),
        license_of=lambda dataset: layout.license,
        notes=tuple(notes),
        split_given=True,
        options={"closed_only": closed_only, "language": language},
    )


def _question_files(layout: Preset, root: Path) -> list[Path]:
    for names in layout.question_files:
        found = [root / name for name in names if (root / name).is_file()]
        if found:
            return found
    listed = " or ".join(", ".join(names) for names in layout.question_files)
    raise DataError(f"{root}: there is no {listed}; give the folder that {layout.title} unpacks to, or the files")


def _image_folder(layout: Preset, root: Path) -> Path:
    for name in layout.image_folders:
        if (root / name).is_dir():
            return root / name
    listed = " or ".join(layout.image_folders)
    raise DataError(f"{root}: there is no image folder {listed}; put it there, or give the folder of the images")
