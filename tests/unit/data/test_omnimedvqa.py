"""OmniMedVQA as published: odd spellings, rows that cannot be used, and real images."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kepo.data import MODALITIES, check_images, load_omnimedvqa, to_dataset
from kepo.data.omnimedvqa import canonical_modality
from kepo.errors import DataError

ROW: dict[str, Any] = {
    "dataset": "Chest CT Scan",
    "question_id": "Chest CT Scan_0001",
    "question_type": "Disease Diagnosis",
    "question": "What is seen?",
    "gt_answer": "Tumour",
    "image_path": "Images/Chest CT Scan/a (1).png",
    "option_A": "Cyst",
    "option_B": "Tumour.",
    "option_C": "Stone",
    "option_D": "Nothing",
    "modality_type": "CT(Computed Tomography)",
}


def write(root: Path, *rows: Any, name: str = "Chest CT Scan") -> Path:
    folder = root / "QA_information" / "Open-access"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(list(rows)))
    return root


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("MR (Mag-netic Resonance Imaging)", "MRI"),
        ("MRI", "MRI"),
        ("CT(Computed Tomography)", "CT"),
        ("X-Ray", "X-Ray"),
        ("ultrasound", "Ultrasound"),
        ("Dermoscopy", "Dermoscopy"),
        ("Fundus Photography", "Fundus"),
        ("OCT (Optical Coherence Tomography", "OCT"),
        ("Microscopy Images", "Microscopy"),
        ("Endoscopy", None),
        ("", None),
    ],
)
def test_canonical_modality(raw: str, name: str | None) -> None:
    assert canonical_modality(raw) == name
    assert name is None or name in MODALITIES


def test_a_row(tmp_path: Path) -> None:
    (question,) = load_omnimedvqa(write(tmp_path, ROW))
    assert question.id == "Chest CT Scan_0001"
    assert question.text == "What is seen?"
    assert question.options == ("Cyst", "Tumour.", "Stone", "Nothing")
    assert question.answer == "B"
    assert question.images == (tmp_path / "Images" / "Chest CT Scan" / "a (1).png",)
    assert (question.modality, question.task) == ("CT", "Disease Diagnosis")
    assert question.metadata == {"dataset": "Chest CT Scan"}


def test_fewer_options(tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if key not in ("option_C", "option_D")}
    (question,) = load_omnimedvqa(write(tmp_path, row))
    assert question.options == ("Cyst", "Tumour.")


def test_answers_are_texts_even_where_they_look_like_letters(tmp_path: Path) -> None:
    row = {**ROW, "option_A": "B", "option_B": "A", "option_C": "AB", "option_D": "O", "gt_answer": "A"}
    (question,) = load_omnimedvqa(write(tmp_path, row))
    assert question.answer == "B"


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"gt_answer": "Fracture"}, "gt_answer", "'Fracture' is not among the options"),
        ({"gt_answer": "B"}, "gt_answer", "'B' is not among the options"),
        ({"gt_answer": None}, "gt_answer", "missing or empty"),
        ({"option_C": "tumour"}, "option_[A-D]", "options B and C read the same"),
        ({"option_B": ""}, "option_B", "is missing, but there is an option_C"),
        ({"modality_type": "Endoscopy"}, "modality_type", "'Endoscopy' is none of MRI, CT, X-Ray"),
        ({"question": " "}, "question", "missing or empty"),
        ({"question_id": [5]}, "question_id", r"\[5\] is not text"),
        ({"image_path": "../secret.png"}, "image_path", "lies outside the image root"),
        ({"image_path": "/etc/passwd"}, "image_path", "lies outside the image root"),
        ({f"option_{letter}": None for letter in "ABCD"}, "option_A", "every question must have options"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, changes: dict[str, Any], field: str, says: str) -> None:
    write(tmp_path, ROW, {**ROW, "question_id": "two", **changes})
    with pytest.raises(DataError, match=rf"Chest CT Scan\.json, row 2, field '{field}': .*{says}"):
        load_omnimedvqa(tmp_path)


def test_ids_are_unique_in_and_across_files(tmp_path: Path) -> None:
    write(tmp_path, ROW, {**ROW, "question_id": "two"})
    write(tmp_path, {**ROW, "question_id": "two"}, name="Other")
    with pytest.raises(DataError, match=r"Other\.json, row 1, field 'question_id': 'two' is also in .*Chest CT Scan"):
        load_omnimedvqa(tmp_path)
    write(tmp_path, ROW, ROW)
    with pytest.raises(DataError, match=r"row 2, field 'question_id': .* is already the id of row 1"):
        load_omnimedvqa(tmp_path)


def test_folders_and_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file matches QA_information/Open-access/\*\.json"):
        load_omnimedvqa(tmp_path)
    file = write(tmp_path, "text") / "QA_information" / "Open-access" / "Chest CT Scan.json"
    with pytest.raises(DataError, match="row 1: it is 'text', not a record"):
        load_omnimedvqa(tmp_path)
    file.write_text("{}")
    with pytest.raises(DataError, match="a list of rows was expected, not dict"):
        load_omnimedvqa(tmp_path)
    file.write_text("[")
    with pytest.raises(DataError, match=r"Chest CT Scan\.json: not JSON"):
        load_omnimedvqa(tmp_path)


def test_real_questions(mini_omnimedvqa: Path) -> None:
    questions = load_omnimedvqa(mini_omnimedvqa)
    assert len(questions) == 3877
    assert Counter(question.modality for question in questions) == {
        "MRI": 421,
        "CT": 532,
        "X-Ray": 1050,
        "Ultrasound": 297,
        "Dermoscopy": 671,
        "Fundus": 622,
        "OCT": 37,
        "Microscopy": 247,
    }
    assert len({question.id for question in questions}) == 3877
    assert all(question.answer in question.letters for question in questions)
    some = questions[::200]
    check_images(some)
    dataset = to_dataset(some, "think")
    for question, row in zip(some, dataset, strict=True):
        (image,) = row["images"]
        image.load()
        assert image.mode == "RGB"
        assert row["options"]["ABCD".index(row["answer"])] == row["solution"]
        assert row["solution"] == question.answer_text
        assert question.text in row["prompt"][0]["content"]
