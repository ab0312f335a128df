"""VQA-RAD and SLAKE: rows with all columns of the published files, and rows that cannot be used."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kepo.data.readers.published import published_source
from kepo.data.sources import Source, Unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question

RAD: dict[str, Any] = {
    "qid": "0",
    "phrase_type": "freeform",
    "qid_linked_id": "03f451ca-de62-4617-9679-e836026a7642",
    "image_case_url": "https://medpix.nlm.nih.gov/case?id=48d0f38a",
    "image_name": "synpic54610.jpg",
    "image_organ": "HEAD",
    "evaluation": "not evaluated",
    "question": "Are regions of the brain infarcted?",
    "question_rephrase": "NULL",
    "question_relation": "NULL",
    "question_frame": "NULL",
    "question_type": "PRES",
    "answer": "Yes",
    "answer_type": "CLOSED",
}
SLAKE: dict[str, Any] = {
    "img_id": 1,
    "img_name": "xmlab1/source.jpg",
    "question": "Does the picture contain a liver?",
    "answer": "Yes",
    "q_lang": "en",
    "location": "Abdomen",
    "modality": "MRI",
    "answer_type": "CLOSED",
    "base_type": "vqa",
    "content_type": "Organ",
    "triple": ["vhead", "_", "_"],
    "qid": 10,
}


def rad_folder(folder: Path, *rows: Any, file: str = "VQA_RAD Dataset Public.json") -> Path:
    images = folder / "VQA_RAD Image Folder"
    images.mkdir(parents=True, exist_ok=True)
    Image.new("L", (20, 16), 90).save(images / "synpic54610.jpg")
    (folder / file).write_text(json.dumps(rows), encoding="utf-8")
    return folder


def slake_folder(folder: Path, **files: list[Any]) -> Path:
    (folder / "imgs" / "xmlab1").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (9, 90, 200)).save(folder / "imgs" / "xmlab1" / "source.jpg")
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


def parted(source: Source) -> tuple[list[Question], list[Unusable]]:
    rows = list(source.rows)
    return [r for r in rows if isinstance(r, Question)], [r for r in rows if isinstance(r, Unusable)]


def rad(folder: Path, *rows: Any, **choice: Any) -> tuple[list[Question], list[Unusable]]:
    return parted(published_source("vqa-rad", rad_folder(folder, *rows), **choice))


def test_a_closed_question_of_vqa_rad_is_multiple_choice(tmp_path: Path) -> None:
    (question,), bad = rad(tmp_path, RAD)
    assert not bad
    assert question == Question(
        id="vqa-rad-0",
        text="Are regions of the brain infarcted?",
        answer="A",
        options=("Yes", "No"),
        images=(tmp_path / "VQA_RAD Image Folder" / "synpic54610.jpg",),
        modality="CT or MRI",
        task="Presence",
        metadata={
            "answer_type": "CLOSED",
            "question_type": "PRES",
            "image_organ": "HEAD",
            "phrase_type": "freeform",
            "split": "train",
            "dataset": "VQA-RAD",
            "image": "synpic54610.jpg",
            "file": "VQA_RAD Dataset Public.json",
            "row": 1,
        },
    )


def test_spellings_that_the_published_file_has(tmp_path: Path) -> None:
    # Trailing blanks, numbers as answers, two types in one cell, ids as numbers.
    rows = [
        {**RAD, "qid": 1, "answer": "no ", "answer_type": "CLOSED ", "image_organ": "CHEST"},
        {**RAD, "qid": 2, "answer": 4, "answer_type": "OPEN", "question_type": "COUNT", "image_organ": "ABD"},
        {**RAD, "qid": 3, "answer": "Left", "question_type": "POS, PRES", "phrase_type": "test_para"},
    ]
    (closed, counted, sided), bad = rad(tmp_path, *rows)
    assert not bad
    assert (closed.answer, closed.modality) == ("B", "X-Ray")
    assert (counted.answer, counted.options, counted.modality, counted.task) == ("4", (), "CT", "Count")
    assert (sided.answer, sided.options, sided.task, sided.metadata["split"]) == ("Left", (), "Position", "test")


def test_closed_only_lists_what_it_leaves_out(tmp_path: Path) -> None:
    rows = [RAD, {**RAD, "qid": 1, "answer_type": "OPEN", "answer": "stroke"}, {**RAD, "qid": 2, "answer": "Left"}]
    good, bad = rad(tmp_path, *rows, closed_only=True)
    assert [q.id for q in good] == ["vqa-rad-0"]
    assert [(u.row, u.field, u.value) for u in bad] == [(2, "answer_type", "OPEN"), (3, "answer", "Left")]
    assert "open question" in bad[0].reason
    assert "neither yes nor no" in bad[1].reason


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({**RAD, "answer": ""}, "answer", "missing or empty"),
        ({**RAD, "answer": ["Yes"]}, "answer", "not text"),
        ({**RAD, "question": None}, "question", "missing"),
        ({**RAD, "answer_type": "MAYBE"}, "answer_type", "neither OPEN nor CLOSED"),
        ({**RAD, "answer_type": None}, "answer_type", "missing"),
        ({**RAD, "image_organ": "LEG"}, "image_organ", "none of HEAD, CHEST, ABD"),
        ({**RAD, "image_name": "../../etc/passwd"}, "image_name", "outside the image root"),
        ({**RAD, "image_name": "/etc/passwd"}, "image_name", "outside the image root"),
        ({**RAD, "image_name": "a\0b.jpg"}, "image_name", "no name that a file can have"),
        ({**RAD, "image_name": "x" * 5000}, "image_name", "no name that a file can have"),
        ({**RAD, "image_name": None}, "image_name", "missing"),
        ({**RAD, "qid": True}, "qid", "not text"),
        ({key: value for key, value in RAD.items() if key != "qid"}, "qid", "missing"),
        (["no", "record"], "", "not a record"),
        (None, "", "not a record"),
    ],
)
def test_a_row_that_cannot_be_used_is_listed(row: Any, field: str, reason: str, tmp_path: Path) -> None:
    good, bad = rad(tmp_path, {**RAD, "qid": 77}, row)
    assert len(good) == 1
    assert (bad[0].source, bad[0].row, bad[0].field) == ("VQA_RAD Dataset Public.json", 2, field)
    assert reason in bad[0].reason
    assert len(bad[0].value) <= 80


def test_an_id_that_is_there_twice_is_listed(tmp_path: Path) -> None:
    good, bad = rad(tmp_path, RAD, RAD)
    assert (len(good), bad[0].field, bad[0].row) == (1, "qid", 2)


def test_a_link_out_of_the_image_folder_is_refused(tmp_path: Path) -> None:
    folder = rad_folder(tmp_path / "rad", {**RAD, "image_name": "link.jpg"})
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (folder / "VQA_RAD Image Folder" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    good, bad = parted(published_source("vqa-rad", folder))
    assert not good
    assert bad[0].field == "image_name"


def test_the_two_files_that_baselines_use_are_split_by_their_names(tmp_path: Path) -> None:
    rad_folder(tmp_path, RAD, file="trainset.json")
    rad_folder(tmp_path, {**RAD, "qid": 5}, file="testset.json")
    (tmp_path / "VQA_RAD Image Folder").rename(tmp_path / "images")
    good, bad = parted(published_source("vqa-rad", tmp_path))
    assert not bad
    assert [(q.id, q.metadata["split"]) for q in good] == [("vqa-rad-0", "train"), ("vqa-rad-5", "test")]


def test_slake_in_its_own_splits(tmp_path: Path) -> None:
    rows = {
        "train": [SLAKE, {**SLAKE, "qid": 11, "answer_type": "OPEN", "answer": "Liver", "modality": "X-Ray"}],
        "validate": [{**SLAKE, "qid": 12, "answer": "No", "modality": "CT"}],
        "test": [{**SLAKE, "qid": 13, "q_lang": "zh", "question": "图中有肝脏吗？", "answer": "有"}],
    }
    source = published_source("slake", slake_folder(tmp_path, **rows))
    assert (source.license_of("SLAKE"), source.split_given) == ("CC BY 4.0", True)
    assert [file.name for file in source.files] == ["train.json", "validate.json", "test.json"]
    good, bad = parted(source)
    assert not bad
    assert [(q.metadata["split"], q.modality, q.answer_text) for q in good] == [
        ("train", "MRI", "Yes"),
        ("train", "X-Ray", "Liver"),
        ("validation", "CT", "No"),
        ("test", "MRI", "有"),
    ]
    assert [bool(q.options) for q in good] == [True, False, True, False]
    assert {q.task for q in good} == {"Organ"}
    assert good[0].images == (tmp_path / "imgs" / "xmlab1" / "source.jpg",)
    assert good[0].metadata["location"] == "Abdomen"


def test_slake_in_one_language_lists_the_other(tmp_path: Path) -> None:
    rows = [SLAKE, {**SLAKE, "qid": 11, "q_lang": "zh"}, {k: v for k, v in SLAKE.items() if k != "q_lang"}]
    good, bad = parted(published_source("slake", slake_folder(tmp_path, train=rows), language="en"))
    assert len(good) == 1
    assert Counter((u.field, u.reason) for u in bad) == {("q_lang", "not 'en', and only that was asked for"): 2}


def test_a_modality_that_is_none_is_listed(tmp_path: Path) -> None:
    good, bad = parted(published_source("slake", slake_folder(tmp_path, train=[{**SLAKE, "modality": "Photo"}])))
    assert not good
    assert (bad[0].field, bad[0].value) == ("modality", "Photo")


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no VQA_RAD Dataset Public\.json or trainset\.json, testset\.json"):
        published_source("vqa-rad", tmp_path)
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(DataError, match="no image folder imgs"):
        published_source("slake", tmp_path)
    with pytest.raises(DataError, match="no such file"):
        published_source("slake", tmp_path, questions=[tmp_path / "test.json"])
    (tmp_path / "part1.json").write_text("[]")
    with pytest.raises(DataError, match="split is not known"):
        published_source("slake", tmp_path, questions=[tmp_path / "part1.json"])
    with pytest.raises(ConfigError, match="English only"):
        published_source("vqa-rad", tmp_path, language="zh")


@pytest.mark.parametrize("text", ["{not json", '{"a": 1}', "\udcff", "[" * 100_000])
def test_a_file_that_is_no_json_list_stops(text: str, tmp_path: Path) -> None:
    folder = slake_folder(tmp_path, train=[])
    (folder / "train.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"train\.json"):
        list(published_source("slake", folder).rows)


def test_questions_and_images_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = slake_folder(tmp_path / "a", train=[SLAKE])
    source = published_source("slake", tmp_path, questions=[folder / "train.json"], images=folder / "imgs")
    assert len(parted(source)[0]) == 1
