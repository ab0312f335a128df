"""Split files of `image, problem, solution`: options inside the text, a letter in tags, modality in the name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kepo.data.readers.published import omnimedvqa_source
from kepo.data.readers.split_files import split_file_source
from kepo.data.readers.texts import options_in
from kepo.data.schema import Place, RowError
from kepo.data.sources import Source, Unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question
from tests.omnimedvqa_folder import row, write_rows

PLACE = Place("CT.json", 1)
ROW = {
    "image": "Images/RadImageNet/normal/a.png",
    "problem": "What is it? A)CT, B)MRI., C)X-ray",
    "solution": "<answer> B </answer>",
}


def write(folder: Path, *rows: Any, name: str = "CT") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(list(rows)))
    return file


def outcomes(source: Source) -> tuple[list[Question], list[Unusable]]:
    rows = list(source.rows)
    return [one for one in rows if isinstance(one, Question)], [one for one in rows if isinstance(one, Unusable)]


@pytest.mark.parametrize(
    ("problem", "question", "options"),
    [
        ("What? A)CT, B)MRI", "What?", ("CT", "MRI")),
        ("What? A) CT.,  B) MRI., C) None.", "What?", ("CT.", "MRI.", "None.")),
        ("What?\nA)CT\nB)MRI", "What?", ("CT", "MRI")),
        ("What? A)CT B)MRI", "What?", ("CT", "MRI")),
        ("Is it (type A) or not? A)Yes, it is, B)No", "Is it (type A) or not?", ("Yes, it is", "No")),
        (
            "What? A)Scan (PET), B)Spin (type C), C)Joint (ACJ OA).",
            "What?",
            ("Scan (PET)", "Spin (type C)", "Joint (ACJ OA)."),
        ),
        ("What? A)Scan (PET, B)Spin", "What?", ("Scan (PET", "Spin")),
        ("What? A)One, (B), two, B)Three", "What?", ("One, (B), two", "Three")),
    ],
)
def test_options_inside_the_text(problem: str, question: str, options: tuple[str, ...]) -> None:
    assert options_in(problem, PLACE) == (question, options)


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        ("What? A)CT, B)MRI, D)X-ray", "not lettered in order"),
        ("What? A)CT, B), C)X-ray", "not lettered in order, or one is empty"),
        ("A)CT, B)MRI", "has options but no question"),
    ],
)
def test_texts_without_usable_options(problem: str, says: str) -> None:
    with pytest.raises(RowError, match=f"row 1, field 'question': .*{says}"):
        options_in(problem, PLACE)


@pytest.mark.parametrize("problem", ["What is it?", "What is it? A)CT"])
def test_texts_without_options_stay_as_they_are(problem: str) -> None:
    assert options_in(problem, PLACE) == (problem, ())


def test_a_row(tmp_path: Path) -> None:
    source = split_file_source([write(tmp_path, ROW)], tmp_path)
    ((question,), unusable) = outcomes(source)
    assert not unusable
    assert question == Question(
        id="CT-00001",
        text="What is it?",
        answer="B",
        options=("CT", "MRI.", "X-ray"),
        images=(tmp_path / "Images/RadImageNet/normal/a.png",),
        modality="CT",
        metadata={"dataset": "RadImageNet", "image": ROW["image"], "file": "CT.json", "row": 1},
    )
    assert not source.split_given
    assert source.license_of("RadImageNet") == "RadImageNet research agreement, non-commercial"
    ((bare,), _) = outcomes(split_file_source([write(tmp_path, ROW)], None, images=False))
    assert bare.images == ()


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("<answer> B </answer>", "B"),
        ("<answer>b</answer>", "B"),
        ("<think>...</think><answer>(C)</answer>", "C"),
        ("B.", "B"),
        ("<answer> mri </answer>", "B"),
    ],
)
def test_solutions(tmp_path: Path, solution: str, answer: str) -> None:
    ((question,), _) = outcomes(split_file_source([write(tmp_path, {**ROW, "solution": solution})], tmp_path))
    assert question.answer == answer


def test_a_letter_is_a_letter_even_where_options_read_like_letters(tmp_path: Path) -> None:
    rows = write(tmp_path, {**ROW, "problem": "Which blood group? A)B, B)A, C)AB", "solution": "<answer> A </answer>"})
    ((question,), _) = outcomes(split_file_source([rows], tmp_path))
    assert (question.answer, question.answer_text) == ("A", "B")


@pytest.mark.parametrize(
    ("changes", "field", "reason", "value"),
    [
        ({"solution": "<answer> D </answer>"}, "solution", "is not among the options", "<answer> D </answer>"),
        ({"solution": None}, "solution", "is missing or empty", "None"),
        ({"problem": "What?"}, "problem", "has no options of the form 'A)..., B)...'", "What?"),
        ({"image": "../a.png"}, "image", "lies outside the image root", "../a.png"),
        ({"image": ""}, "image", "is missing or empty", ""),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], field: str, reason: str, value: str) -> None:
    questions, unusable = outcomes(split_file_source([write(tmp_path, ROW, {**ROW, **changes}, 7)], tmp_path))
    assert len(questions) == 1
    assert unusable[0] == Unusable("CT.json", 2, field, reason, value)
    assert unusable[1] == Unusable("CT.json", 3, "", "is not a record with columns", "7")


def test_modality_and_side_by_the_names(tmp_path: Path) -> None:
    names = ["CT(Computed Tomography)_test", "MR (Mag-netic Resonance Imaging)_train", "Fundus_Photography_val"]
    source = split_file_source([write(tmp_path, ROW, name=name) for name in names], tmp_path)
    assert source.split_given
    questions, _ = outcomes(source)
    assert [(one.modality, one.metadata["split"]) for one in questions] == [
        ("CT", "test"),
        ("MRI", "train"),
        ("Fundus", "validation"),
    ]
    twice = [write(tmp_path / side, ROW, name="MR") for side in ("train", "test")]
    questions, _ = outcomes(split_file_source(twice, tmp_path))
    assert [(one.id, one.metadata["split"]) for one in questions] == [
        ("train/MR-00001", "train"),
        ("test/MR-00001", "test"),
    ]
    source = split_file_source([twice[0], write(tmp_path, ROW, name="X_Ray")], tmp_path)
    assert not source.split_given
    assert all("split" not in one.metadata for one in outcomes(source)[0])


def test_a_name_without_modality(tmp_path: Path) -> None:
    file = write(tmp_path, ROW, name="Disease Diagnosis_test")
    _, (unusable,) = outcomes(split_file_source([file], tmp_path))
    assert (unusable.field, unusable.reason) == ("modality", "is not told by the name of the file")
    ((question,), _) = outcomes(split_file_source([file], tmp_path, modality="ultrasound"))
    assert question.modality == "Ultrasound"


def test_published_rows_tell_type_and_collection(tmp_path: Path) -> None:
    published = row(1, image_path=ROW["image"], question="What is it?", dataset="Atlas")
    write_rows(tmp_path, [published, 5, {"image_path": 3}])
    source = split_file_source([write(tmp_path, ROW, name="all_test")], tmp_path)
    ((question,), _) = outcomes(source)
    assert (question.modality, question.task, question.metadata["dataset"]) == ("MRI", "Modality Recognition", "Atlas")
    assert [file.name for file in source.files] == ["all_test.json", "Scans.json"]


def test_settings_and_files_that_cannot_work(tmp_path: Path) -> None:
    file = write(tmp_path, ROW)
    with pytest.raises(ConfigError, match="--root is missing"):
        split_file_source([file], None)
    with pytest.raises(ConfigError, match="no split file"):
        split_file_source([], tmp_path)
    with pytest.raises(ConfigError, match="'PET' is none of MRI, CT"):
        split_file_source([file], tmp_path, modality="PET")
    with pytest.raises(ConfigError, match=r"CT\.json was given twice"):
        split_file_source([file, file], tmp_path)
    with pytest.raises(DataError, match="there is no such file"):
        split_file_source([tmp_path / "none.json"], tmp_path)
    file.write_text("{}")
    with pytest.raises(DataError, match="a list of rows was expected"):
        list(split_file_source([file], tmp_path).rows)


def test_real_split_files(mini_omnimedvqa: Path) -> None:
    files = sorted((mini_omnimedvqa.parent / "omnimedvqa_questions").glob("*.json"))
    if not files:
        pytest.skip("the split files are not beside the test data")
    total = sum(len(json.loads(file.read_text())) for file in files)
    questions, unusable = outcomes(split_file_source(files, None, images=False))
    assert total == 640
    assert len(questions) + len(unusable) == total
    assert not unusable
    assert Counter(question.modality for question in questions) == dict.fromkeys(
        ("MRI", "CT", "X-Ray", "Ultrasound", "Dermoscopy", "Fundus", "OCT", "Microscopy"), 80
    )
    assert Counter(len(question.options) for question in questions) == {4: 579, 2: 61}
    # No mark of an option is left in a text.
    assert not [one for one in questions if any(f" {letter})" in one.text for letter in "ABCD")]
    assert len({question.id for question in questions}) == 640


def test_the_published_layout_lists_what_strict_reading_refuses(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(0), row(1, gt_answer=None), row(0), row(2, option_A="")])
    questions, unusable = outcomes(omnimedvqa_source(tmp_path))
    assert [one.metadata for one in questions] == [
        {"dataset": "Scans", "image": "Images/Scans/0.png", "file": "Scans.json", "row": 1}
    ]
    assert unusable == [
        Unusable("Scans.json", 2, "gt_answer", "is missing or empty", "None"),
        Unusable("Scans.json", 3, "question_id", "is already the id of another row", "Scans_0000"),
        Unusable("Scans.json", 4, "option_A", "is missing, but there is one of a later letter", ""),
    ]
