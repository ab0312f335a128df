"""OmniMedVQA (arXiv 2402.09181) as published: `QA_information/Open-access/*.json` beside `Images/`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kepo.data.images import ImageRoot, read_images
from kepo.data.schema import Place, RowError, claim_id, options_of, resolve_answer
from kepo.data.sources import Source, Unusable, unusable
from kepo.errors import DataError
from kepo.types import Question

MODALITIES: tuple[str, ...] = ("MRI", "CT", "X-Ray", "Ultrasound", "Dermoscopy", "Fundus", "OCT", "Microscopy")
"""The eight modalities of the open-access part, by the names used here."""

QUESTION_FOLDER = Path("QA_information") / "Open-access"

# Keys are the published strings up to a parenthesis, in lower case and letters only.
_CANONICAL: Mapping[str, str] = {
    "mr": "MRI",
    "mri": "MRI",
    "magneticresonance": "MRI",
    "magneticresonanceimaging": "MRI",
    "ct": "CT",
    "ctscan": "CT",
    "computedtomography": "CT",
    "xray": "X-Ray",
    "radiography": "X-Ray",
    "us": "Ultrasound",
    "ultrasound": "Ultrasound",
    "ultrasonography": "Ultrasound",
    "dermoscopy": "Dermoscopy",
    "dermatoscopy": "Dermoscopy",
    "fundus": "Fundus",
    "fundusphotography": "Fundus",
    "oct": "OCT",
    "opticalcoherencetomography": "OCT",
    "microscopy": "Microscopy",
    "microscopyimages": "Microscopy",
}

# Terms of collections whose images are part of OmniMedVQA, as their publishers state them; keys as the modalities'.
_LICENCES: Mapping[str, str] = {
    "breakhis": "CC BY 4.0",
    "crck": "CC BY 4.0",
    "fitzpatrickk": "CC BY-NC-SA 3.0",
    "isic": "CC BY-NC 4.0",
    "mura": "Stanford research use agreement, non-commercial",
    "octxray": "CC BY 4.0",
    "padufes": "CC BY 4.0",
    "radimagenet": "RadImageNet research agreement, non-commercial",
}
NOTES: tuple[str, ...] = (
    "Questions: OmniMedVQA (arXiv 2402.09181). Each of the collections that its images come from has its own terms; "
    "the licences named here are a help, not legal advice, and the publishers' own pages decide.",
)


def canonical_modality(raw: str) -> str | None:
    """One of `MODALITIES` for a published string such as "MR (Mag-netic Resonance Imaging)"; None if unknown."""
    return _CANONICAL.get(_letters(raw.partition("(")[0]))


def licence_of(dataset: str) -> str:
    """The licence of a collection's images, "unknown" where it is not known here."""
    return _LICENCES.get(_letters(dataset), "unknown")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def load_omnimedvqa(root: str | Path) -> list[Question]:
    """All questions of the open-access part, file by file in the order of their names.

    Args:
        root: The folder that holds `QA_information` and `Images`.

    Returns:
        Questions whose images are paths (not opened here) and whose metadata names the source `dataset`.

    Raises:
        DataError: the folder is not laid out so, or a row cannot be used. Nothing is dropped silently.
    """
    root = Path(root)
    questions = []
    for _, _, outcome in _outcomes(root, question_files(root), str):
        if isinstance(outcome, RowError):
            raise outcome
        questions.append(outcome)
    return questions


def omnimedvqa_source(root: str | Path) -> Source:
    """The open-access part for `kepo prepare`: rows that cannot be used are listed instead of raised.

    Args:
        root: The folder that holds `QA_information` and `Images`; images may be missing.

    Raises:
        DataError: the folder is not laid out so. While the rows are read: a file is no JSON list, which would hide how
            many of its rows are lost.
    """
    root = Path(root)
    files = question_files(root)
    datasets = {file.stem for file in files}
    licences = {dataset: licence_of(dataset) for dataset in sorted(datasets)}
    return Source("OmniMedVQA", _tolerant(root, files), tuple(files), licences, NOTES)


def question_files(root: Path) -> list[Path]:
    """The files of the open-access part, by name.

    Raises:
        DataError: there is none.
    """
    files = sorted((root / QUESTION_FOLDER).glob("*.json"))
    if not files:
        raise DataError(f"{root}: no file matches {QUESTION_FOLDER}/*.json; give the folder that OmniMedVQA unpacks to")
    return files


def _tolerant(root: Path, files: Sequence[Path]) -> Iterator[Question | Unusable]:
    for place, row, outcome in _outcomes(root, files, lambda file: file.name):
        if isinstance(outcome, RowError):
            yield unusable(outcome, row)
        else:
            origin = {"image": row["image_path"], "file": place.source, "row": place.row}
            yield replace(outcome, metadata={**outcome.metadata, **origin})


def _outcomes(
    root: Path, files: Sequence[Path], shown: Callable[[Path], str]
) -> Iterator[tuple[Place, Any, Question | RowError]]:
    """(where, row, what became of it) for every row; `shown` names a file in messages."""
    images = ImageRoot(root)
    first_file: dict[str, str] = {}
    for file in files:
        seen: dict[str, int] = {}
        for number, row in enumerate(list_of_rows(file), start=1):
            place = Place(shown(file), number)
            try:
                question = _question(row, place, images)
                claim_id(question.id, seen, place, "question_id")
                if question.id in first_file:
                    place.refuse(
                        "question_id",
                        f"{question.id!r} is also in {first_file[question.id]}; ids must be unique",
                        "is already the id of a row in another file",
                    )
            except RowError as error:
                yield place, row, error
            else:
                yield place, row, question
        first_file.update(dict.fromkeys(seen, shown(file)))


def list_of_rows(file: Path) -> list[Any]:
    """The rows of a JSON file that holds a list.

    Raises:
        DataError: it holds something else, or is no JSON.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{file}: a list of rows was expected, not {type(rows).__name__}; fetch the file again")
    return rows


def _question(row: Any, place: Place, root: ImageRoot) -> Question:
    if not isinstance(row, Mapping):
        place.refuse("", f"it is {type(row).__name__}, not a record with columns", "is not a record with columns")
    raw_modality = text_field(row, "modality_type", place)
    modality = canonical_modality(raw_modality)
    if modality is None:
        problem = f"is none of {', '.join(MODALITIES)}"
        place.refuse("modality_type", f"{raw_modality!r} {problem}; remove the row", problem)
    options = options_of({key: value for key, value in row.items() if key != "options"}, place)
    if not options:
        place.refuse("option_A", "is missing; every question of OmniMedVQA has options")
    # Published answers are texts, so an answer "B" beside the option text "B" is no letter.
    answer = resolve_answer(text_field(row, "gt_answer", place), options, place, "gt_answer", letters=False)
    return Question(
        id=text_field(row, "question_id", place),
        text=text_field(row, "question", place),
        answer=answer,
        options=options,
        images=image_at(text_field(row, "image_path", place), root, place, "image_path"),
        modality=modality,
        task=text_field(row, "question_type", place),
        metadata={"dataset": text_field(row, "dataset", place)},
    )


def image_at(name: str, root: ImageRoot, place: Place, field: str) -> tuple[Any, ...]:
    """The one image of a row, as a path below `root`; RowError where the path leaves it."""
    return read_images({"image": name}, root, lambda _, problem, reason: place.refuse(field, problem, reason))


def text_field(row: Mapping[str, Any], name: str, place: Place) -> str:
    """The trimmed text of a column that must have one; RowError where it has not."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        place.refuse(name, f"{value!r} is not text, or empty; mend the row", "is not text, or empty")
    return value.strip()
