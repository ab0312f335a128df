"""OmniMedVQA (arXiv 2402.09181) as published: `QA_information/Open-access/*.json` beside `Images/`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kepo.data.images import ImageRoot, read_images
from kepo.data.schema import Place, claim_id, options_of, resolve_answer
from kepo.errors import DataError
from kepo.types import Question

MODALITIES: tuple[str, ...] = ("MRI", "CT", "X-Ray", "Ultrasound", "Dermoscopy", "Fundus", "OCT", "Microscopy")
"""The eight modalities of the open-access part, by the names used here."""

QUESTION_FOLDER = Path("QA_information") / "Open-access"

# Keys are the published strings up to a parenthesis, in lower case and letters only.
_CANONICAL: Mapping[str, str] = {
    "mr": "MRI",
    "mri": "MRI",
    "magneticresonanceimaging": "MRI",
    "ct": "CT",
    "computedtomography": "CT",
    "xray": "X-Ray",
    "ultrasound": "Ultrasound",
    "dermoscopy": "Dermoscopy",
    "fundus": "Fundus",
    "fundusphotography": "Fundus",
    "oct": "OCT",
    "opticalcoherencetomography": "OCT",
    "microscopy": "Microscopy",
    "microscopyimages": "Microscopy",
}


def canonical_modality(raw: str) -> str | None:
    """One of `MODALITIES` for a published string such as "MR (Mag-netic Resonance Imaging)"; None if unknown."""
    return _CANONICAL.get(re.sub(r"[^a-z]", "", raw.partition("(")[0].lower()))


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
    files = sorted((root / QUESTION_FOLDER).glob("*.json"))
    if not files:
        raise DataError(f"{root}: no file matches {QUESTION_FOLDER}/*.json; give the folder that OmniMedVQA unpacks to")
    images = ImageRoot(root)
    questions: list[Question] = []
    first_file: dict[str, Path] = {}
    for file in files:
        seen: dict[str, int] = {}
        for number, row in enumerate(_rows(file), start=1):
            place = Place(str(file), number)
            question = _question(row, place, images)
            claim_id(question.id, seen, place, "question_id")
            if question.id in first_file:
                place.refuse("question_id", f"{question.id!r} is also in {first_file[question.id]}; ids must be unique")
            questions.append(question)
        first_file.update(dict.fromkeys(seen, file))
    return questions


def _rows(file: Path) -> list[Any]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not JSON ({error}); fetch the file again") from error
    if not isinstance(rows, list):
        raise DataError(f"{file}: a list of rows was expected, not {type(rows).__name__}; fetch the file again")
    return rows


def _question(row: Any, place: Place, root: ImageRoot) -> Question:
    if not isinstance(row, Mapping):
        raise DataError(f"{place.source}, row {place.row}: it is {type(row).__name__}, not a record with columns")
    raw_modality = _field(row, "modality_type", place)
    modality = canonical_modality(raw_modality)
    if modality is None:
        place.refuse("modality_type", f"{raw_modality!r} is none of {', '.join(MODALITIES)}; remove the row")
    options = options_of({key: value for key, value in row.items() if key != "options"}, place)
    if not options:
        place.refuse("option_A", "is missing; every question of OmniMedVQA has options")
    # Published answers are texts, so an answer "B" beside the option text "B" is no letter.
    answer = resolve_answer(_field(row, "gt_answer", place), options, place, "gt_answer", letters=False)
    path = _field(row, "image_path", place)
    return Question(
        id=_field(row, "question_id", place),
        text=_field(row, "question", place),
        answer=answer,
        options=options,
        images=read_images({"image": path}, root, lambda _, problem: place.refuse("image_path", problem)),
        modality=modality,
        task=_field(row, "question_type", place),
        metadata={"dataset": _field(row, "dataset", place)},
    )


def _field(row: Mapping[str, Any], name: str, place: Place) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        place.refuse(name, f"{value!r} is not text, or empty; mend the row")
    return value.strip()
