"""VQA-RAD (doi 10.1038/sdata.2018.251) and SLAKE (arXiv 2102.09542) as published: JSON lists beside image folders.

Closed questions with a yes or a no become multiple choice; all others stay open questions, with their answer as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kepo.data.images import ImageRoot
from kepo.data.omnimedvqa import canonical_modality, image_at
from kepo.data.records import Record, json_rows
from kepo.data.schema import Place, RowError, claim_id, question_from_row
from kepo.data.sources import Source, Unusable, unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question

YES_NO = ("Yes", "No")

_SPLIT_OF_FILE = {
    "train": "train",
    "trainset": "train",
    "validate": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
    "testset": "test",
}
_RAD_TASKS = {
    "ABN": "Abnormality",
    "ATRIB": "Attribute",
    "ATTRIB": "Attribute",
    "COLOR": "Color",
    "COUNT": "Count",
    "MODALITY": "Modality Recognition",
    "ORGAN": "Organ",
    "OTHER": "Other",
    "PLANE": "Plane",
    "POS": "Position",
    "PRES": "Presence",
    "SIZE": "Size",
}
# The file names no modality; these are what the paper says the images of each organ are.
_RAD_MODALITIES = {"HEAD": "CT or MRI", "CHEST": "X-Ray", "ABD": "CT"}


@dataclass(frozen=True, slots=True)
class VqaChoice:
    """Which questions of such a data set to use.

    Attributes:
        closed_only: Leave out what does not become multiple choice.
        language: `q_lang` of the questions to use ("en", "zh"); None: all.
    """

    closed_only: bool = False
    language: str | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one of the two data sets names its things; `read` fills task, modality and metadata of a row."""

    title: str
    licence: str
    question_files: tuple[tuple[str, ...], ...]
    image_folders: tuple[str, ...]
    image_column: str
    read: Callable[[Record, Place], dict[str, Any]]
    notes: tuple[str, ...]


def vqa_rad_source(root: Path, choice: VqaChoice, questions: Sequence[Path] = (), images: Path | None = None) -> Source:
    """The questions of VQA-RAD.

    Test questions are those whose `phrase_type` begins with "test", all others are for training; files named `trainset`
    and `testset` are split by their names.

    Args:
        root: The folder that holds `VQA_RAD Dataset Public.json` (or `trainset.json`, `testset.json`) and
            `VQA_RAD Image Folder` (or `images`).
        choice: Which questions.
        questions: JSON files instead of those in `root`.
        images: Image folder instead of that in `root`.

    Raises:
        ConfigError: a language is chosen.
        DataError: the folder is not laid out so; while rows are read: a file that is no JSON list.
    """
    if choice.language not in (None, "en"):
        raise ConfigError(f"language {choice.language!r}: VQA-RAD is in English only")
    return _source(_RAD, root, choice, questions, images)


def slake_source(root: Path, choice: VqaChoice, questions: Sequence[Path] = (), images: Path | None = None) -> Source:
    """The questions of SLAKE, in its own splits.

    Args:
        root: The folder that holds `train.json`, `validate.json` (or `validation.json`), `test.json` and `imgs`.
        choice: Which questions.
        questions: JSON files instead of those in `root`, by the same names.
        images: Image folder instead of that in `root`.

    Raises:
        DataError: the folder is not laid out so; while rows are read: a file that is no JSON list.
    """
    for file in questions:
        if file.stem.lower() not in _SPLIT_OF_FILE:
            raise DataError(f"{file}: its name is not train, validate or test, so its split is not known; rename it")
    return _source(_SLAKE, root, choice, questions, images)


def _source(layout: _Layout, root: Path, choice: VqaChoice, questions: Sequence[Path], images: Path | None) -> Source:
    files = tuple(questions) or _question_files(layout, root)
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: there is no such file; check the path")
    folder = images or _image_folder(layout, root)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path")
    notes = [*layout.notes, "Closed questions with the answer yes or no are multiple choice with the options Yes, No."]
    if not choice.closed_only:
        notes.append("All other questions are open: they have no options, and their answer is a text.")
    return Source(
        name=layout.title,
        rows=_rows(layout, files, ImageRoot(folder), choice),
        files=files,
        licences={layout.title: layout.licence},
        notes=tuple(notes),
        split_given=True,
        options=asdict(choice),
    )


def _question_files(layout: _Layout, root: Path) -> tuple[Path, ...]:
    for names in layout.question_files:
        found = tuple(root / name for name in names if (root / name).is_file())
        if found:
            return found
    listed = " or ".join(", ".join(names) for names in layout.question_files)
    raise DataError(f"{root}: there is no {listed}; give the folder that {layout.title} unpacks to, or the files")


def _image_folder(layout: _Layout, root: Path) -> Path:
    for name in layout.image_folders:
        if (root / name).is_dir():
            return root / name
    listed = " or ".join(layout.image_folders)
    raise DataError(f"{root}: there is no image folder {listed}; put it there, or give the folder of the images")


def _rows(
    layout: _Layout, files: tuple[Path, ...], images: ImageRoot, choice: VqaChoice
) -> Iterator[Question | Unusable]:
    seen: dict[str, int] = {}
    for file in files:
        for number, row in json_rows(file):
            if isinstance(row, Unusable):
                yield row
                continue
            place = Place(file.name, number)
            try:
                question = _question(layout, row, place, images, choice)
                claim_id(question.id, seen, place, "qid")
                yield question
            except RowError as error:
                yield unusable(error, row)


def _question(layout: _Layout, row: Record, place: Place, images: ImageRoot, choice: VqaChoice) -> Question:
    _check_chosen(row, place, choice)
    known = layout.read(row, place)
    name = _cell(row, layout.image_column, place)
    described = {"dataset": layout.title, "image": name, "file": place.source, "row": place.row}
    question = question_from_row(
        {
            "id": f"{layout.title.lower()}-{_cell(row, 'qid', place)}",
            "question": row.get("question"),
            "answer": row.get("answer"),
            "options": YES_NO if _is_yes_no(row) else None,
            **known,
            "metadata": {**known["metadata"], **described},
        },
        source=place.source,
        index=place.row,
        image_root=None,
    )
    return replace(question, images=image_at(name, images, place, layout.image_column))


def _check_chosen(row: Record, place: Place, choice: VqaChoice) -> None:
    if choice.language is not None and row.get("q_lang") != choice.language:
        place.refuse("q_lang", f"not in the chosen language {choice.language!r}")
    kind = _cell(row, "answer_type", place).upper()
    if kind not in ("OPEN", "CLOSED"):
        place.refuse("answer_type", "is neither OPEN nor CLOSED")
    if not choice.closed_only:
        return
    if kind == "OPEN":
        place.refuse("answer_type", "an open question, and only closed ones were asked for")
    if not _is_yes_no(row):
        place.refuse("answer", "a closed question that is answered by neither yes nor no, so its options are not known")


def _is_yes_no(row: Record) -> bool:
    closed = str(row.get("answer_type")).strip().upper() == "CLOSED"
    return closed and str(row.get("answer")).strip().rstrip(".").casefold() in ("yes", "no")


def _cell(row: Record, column: str, place: Place) -> str:
    """The text or number in `column`, as trimmed text."""
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        place.refuse(column, "is missing, empty or not a text")
    return str(value).strip()


def _kept(row: Record, columns: Sequence[str]) -> dict[str, Any]:
    """The columns that describe the question, as they are."""
    return {column: row[column] for column in columns if row.get(column) not in (None, "", "NULL")}


def _read_rad(row: Record, place: Place) -> dict[str, Any]:
    organ = _cell(row, "image_organ", place).upper()
    if organ not in _RAD_MODALITIES:
        place.refuse("image_organ", f"is none of {', '.join(_RAD_MODALITIES)}")
    # A question of two types, "PRES, POS", counts with the first.
    code = _cell(row, "question_type", place).split(",")[0].strip()
    split = _SPLIT_OF_FILE.get(Path(place.source).stem.lower())
    if split is None:
        split = "test" if _cell(row, "phrase_type", place).startswith("test") else "train"
    kept = _kept(row, ("answer_type", "question_type", "image_organ", "phrase_type"))
    return {
        "task": _RAD_TASKS.get(code.upper(), code),
        "modality": _RAD_MODALITIES[organ],
        "metadata": {**kept, "split": split},
    }


def _read_slake(row: Record, place: Place) -> dict[str, Any]:
    modality = canonical_modality(_cell(row, "modality", place))
    if modality is None:
        place.refuse("modality", "is no known modality")
    split = _SPLIT_OF_FILE[Path(place.source).stem.lower()]
    kept = _kept(row, ("answer_type", "content_type", "location", "base_type", "q_lang"))
    return {"task": _cell(row, "content_type", place), "modality": modality, "metadata": {**kept, "split": split}}


_RAD = _Layout(
    title="VQA-RAD",
    licence="CC0 1.0",
    question_files=(("VQA_RAD Dataset Public.json",), ("trainset.json", "testset.json")),
    image_folders=("VQA_RAD Image Folder", "images"),
    image_column="image_name",
    read=_read_rad,
    notes=(
        "Modalities come from the organ, as the paper describes the images: chest X-rays, abdominal CTs, and head "
        "images that are CT or MRI without saying which.",
        "The published split is by question: images of test questions are in the training questions too.",
    ),
)
_SLAKE = _Layout(
    title="SLAKE",
    licence="CC BY 4.0",
    question_files=(("train.json", "validate.json", "validation.json", "test.json"),),
    image_folders=("imgs",),
    image_column="img_name",
    read=_read_slake,
    notes=("Question types are SLAKE's content types.",),
)
