"""A whole preparation: what comes out, what is listed as unusable, and what an interruption leaves behind."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

from kepo.data import DataArguments, check_images, load_questions
from kepo.data.prepare import PrepareSettings, pipeline, prepare
from kepo.data.readers.published import omnimedvqa_source
from kepo.data.sources import Source, Unusable
from kepo.errors import ConfigError, DataError
from kepo.prompts import build_prompt
from kepo.types import Question
from tests.omnimedvqa_folder import picture, row, whole_folder, write_rows

FEW = PrepareSettings(train=6, validation=2, test=3, size=16)
ALL = PrepareSettings(train=None, validation=0, test=None, size=16)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def unusable_of(folder: Path) -> list[Unusable]:
    return [Unusable(**json.loads(line)) for line in (folder / "unusable.jsonl").read_text().splitlines()]


def test_a_folder_that_training_and_evaluation_load(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    prepared = prepare(omnimedvqa_source(root), FEW, tmp_path / "out", command="kepo prepare ...")
    assert prepared.made
    assert sorted(os.listdir(prepared.folder)) == sorted(
        ["README.md", "card.json", "dataset_dict.json", "images", "test", "train", "unusable.jsonl", "validation"]
    )
    published = {question.id: question for question in load_questions(DataArguments(data_path=str(root)))}
    # A fifth of 20 questions per modality and a tenth of the rest are 4 and 2; 3 and 2 of them are asked for.
    sizes = {"train": 12, "validation": 4, "test": 6}
    seen: set[str] = set()
    for split, size in sizes.items():
        below = load_questions(DataArguments(data_path=str(tmp_path / "out" / split)))
        assert below == load_questions(DataArguments(data_path=str(tmp_path / "out"), data_split=split))
        assert len(below) == size
        check_images(below)
        for question in below:
            original = published[question.id]
            assert (question.text, question.options, question.answer) == (
                original.text,
                original.options,
                original.answer,
            )
            assert (question.modality, question.task) == (original.modality, original.task)
            assert question.metadata["dataset"] == original.metadata["dataset"]
            assert root / question.metadata["image"] == original.images[0]
            with Image.open(question.images[0]) as image:
                assert (image.size, image.mode) == ((16, 16), "RGB")
            assert "A) Cyst" in str(build_prompt(question, "think"))
        assert seen.isdisjoint(question.id for question in below)
        seen |= {question.id for question in below}
    assert len(os.listdir(tmp_path / "out" / "images")) == 22
    assert json.loads((tmp_path / "out" / "card.json").read_text()) == prepared.card
    assert sorted(os.listdir(tmp_path)) == ["data", "out"]


def test_the_same_call_again_touches_nothing(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    prepare(omnimedvqa_source(root), FEW, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    shutil.rmtree(root / "Images")
    again = prepare(omnimedvqa_source(root), FEW, tmp_path / "out")
    assert not again.made
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == before


def test_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data", 160)
    prepare(omnimedvqa_source(root), ALL, tmp_path / "one", workers=1)
    prepare(omnimedvqa_source(root), ALL, tmp_path / "two", workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_every_row_is_usable_or_listed(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    outside = picture(tmp_path / "outside.png", 99)
    (root / "Images" / "link.png").symlink_to(outside)
    short = picture(root / "Images" / "short.png", 98, 200)
    short.write_bytes(short.read_bytes()[:500])
    bad: list[tuple[Any, str, str]] = [
        (row(100, image_path="../outside.png"), "image_path", "lies outside the image root"),
        (row(101, image_path=str(outside)), "image_path", "lies outside the image root"),
        (row(102, image_path="Images/link.png"), "image_path", "lies outside the image root"),
        (row(103, image_path="Images/none.png"), "image", "does not exist"),
        (row(104, image_path="Images/short.png"), "image", "is truncated or damaged"),
        (row(105, gt_answer="Fracture"), "gt_answer", "is not among the options"),
        (row(106, gt_answer="cyst", option_B="CYST."), "option_D", "two options read the same"),
        (row(0), "question_id", "is already the id of a row in another file"),
        (row(108, modality_type="Endoscopy"), "modality_type", "is none of MRI, CT, X-Ray, Ultrasound"),
        ("text", "", "is not a record with columns"),
        (row(110, image_path="Images/" + "a" * 300), "image_path", "is no name that a file can have"),
        (row(111, image_path="Images\0/a.png"), "image_path", "is no name that a file can have"),
        (row(112, image_path="\ud800/a.png"), "image_path", "is no name that a file can have"),
        (row(113, image_path="Images/Scans/1.png", question="\ud800"), "question", "holds characters that are no text"),
    ]
    write_rows(root, [one for one, _, _ in bad], "Zoo")
    prepared = prepare(omnimedvqa_source(root), ALL, tmp_path / "out")
    listed = unusable_of(tmp_path / "out")
    assert [(one.source, one.row) for one in listed] == [("Zoo.json", number) for number in range(1, len(bad) + 1)]
    for one, (_, field, reason) in zip(listed, bad, strict=True):
        assert one.field == field
        assert one.reason.startswith(reason)
    assert listed[3].value == "Images/none.png"
    assert listed[5].value == "Fracture"
    assert prepared.card["rows"] == {"total": 54, "usable": 40, "unusable": 14, "left_out": 0}
    assert {"field": "image_path", "reason": "lies outside the image root", "rows": 3} in prepared.card["unusable"]
    assert sum(one["rows"] for one in prepared.card["unusable"]) == 14


def test_the_same_picture_under_two_names_is_on_one_side(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    for number in range(20):
        shutil.copy(root / f"Images/Scans/{number}.png", root / f"Images/Scans/{number + 200}.png")
    write_rows(root, [row(number + 200) for number in range(20)], "Copies")
    card = prepare(omnimedvqa_source(root), ALL, tmp_path / "out").card
    assert (card["images"]["names"], card["images"]["contents"], card["images"]["repeated"]) == (60, 40, 20)
    assert card["images"]["shared_images"]["train and test"] == {"images": 0, "test_questions": 0}
    assert len(os.listdir(tmp_path / "out" / "images")) == 40
    settings = PrepareSettings(split="paper", train=None, validation=0, test=None, size=16)
    card = prepare(omnimedvqa_source(root), settings, tmp_path / "paper").card
    assert card["settings"]["image_disjoint"] is False
    sides = {
        split: load_questions(DataArguments(data_path=str(tmp_path / "paper" / split))) for split in ("train", "test")
    }
    names = {split: Counter(question.images[0].name for question in questions) for split, questions in sides.items()}
    shared = names["train"].keys() & names["test"].keys()
    assert shared
    assert card["images"]["shared_images"]["train and test"] == {
        "images": len(shared),
        "test_questions": sum(names["test"][name] for name in shared),
    }


def test_a_file_that_is_no_list_stops_it_before_anything_is_made(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    file = write_rows(root, [], "Zoo")
    for text, says in (("{}", "a list of rows was expected"), ("[", "not JSON"), ("[" * 100_000, "not JSON")):
        file.write_text(text)
        with pytest.raises(DataError, match=says):
            prepare(omnimedvqa_source(root), FEW, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_nothing_usable_is_an_error_with_the_most_frequent_reason(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(number) for number in range(3)])
    with pytest.raises(
        DataError, match=r"'image' does not exist \(3 rows; the first is row 1 of Scans\.json: Images/Sc"
    ):
        prepare(omnimedvqa_source(tmp_path), FEW, tmp_path / "out")
    write_rows(tmp_path, [])
    with pytest.raises(DataError, match="The files hold no rows"):
        prepare(omnimedvqa_source(tmp_path), FEW, tmp_path / "out")


@pytest.mark.parametrize("stage", ["hash_images", "write_images", "save_splits", "render"])
def test_stopped_at_any_stage_it_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    root = whole_folder(tmp_path / "data")
    prepare(omnimedvqa_source(root), FEW, tmp_path / "whole")
    real = getattr(pipeline, stage)

    def stop(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, stage, stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(omnimedvqa_source(root), FEW, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.partial").is_dir()
    prepare(omnimedvqa_source(root), FEW, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert not (tmp_path / ".out.partial").exists()


def test_a_partial_folder_goes_on_with_other_settings_and_keeps_nothing_of_the_old(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    prepare(omnimedvqa_source(root), PrepareSettings(train=2, validation=1, test=1, size=16), tmp_path / "whole")
    source = omnimedvqa_source(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "render", lambda card: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(source, FEW, tmp_path / "out")
    prepare(omnimedvqa_source(root), PrepareSettings(train=2, validation=1, test=1, size=16), tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_other_options_of_the_reader_are_another_folder(tmp_path: Path) -> None:
    rows = [question(number, picture(tmp_path / f"{number}.png", number)) for number in range(9)]
    prepare(Source("X", rows, (), options={"images": True}), ALL, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"images was True, is now False"):
        prepare(Source("X", rows, (), options={"images": False}), ALL, tmp_path / "out")


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    out = tmp_path / "out"
    prepare(omnimedvqa_source(root), FEW, out)
    other = PrepareSettings(train=6, validation=2, test=3, size=16, seed=7)
    with pytest.raises(ConfigError, match=r"prepared otherwise \(seed was 42, is now 7\)"):
        prepare(omnimedvqa_source(root), other, out)
    before = files_of(out)
    write_rows(root, [row(number) for number in range(19)])
    with pytest.raises(ConfigError, match=r"prepared otherwise \(other files\)"):
        prepare(omnimedvqa_source(root), FEW, out)
    assert files_of(out) == before
    assert prepare(omnimedvqa_source(root), other, out, overwrite=True).card["seed"] == 7
    assert sorted(os.listdir(tmp_path)) == ["data", "out"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("out", "file"):
        with pytest.raises(ConfigError, match="no folder that kepo prepare made"):
            prepare(omnimedvqa_source(root), FEW, tmp_path / name, overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_two_at_once_is_an_error(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    (tmp_path / ".out.partial").mkdir()
    with FileLock(tmp_path / ".out.partial" / "lock"), pytest.raises(ConfigError, match="by another process"):
        prepare(omnimedvqa_source(root), FEW, tmp_path / "out")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    root = whole_folder(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        prepare(omnimedvqa_source(root), FEW, tmp_path / "file" / "out")


def question(number: int, image: Path, **changes: Any) -> Question:
    values = {"modality": "CT", "task": "Finding", "metadata": {"dataset": "x"}, **changes}
    return Question(id=f"q{number}", text=f"{number}?", answer="a lung", images=(str(image),), **values)


def test_open_questions_of_a_source_with_a_given_split(tmp_path: Path) -> None:
    sides = ["train"] * 8 + ["test"] * 2 + ["dev", "train"]
    images = [picture(tmp_path / f"{number}.png", number) for number in range(len(sides))]
    shutil.copy(images[8], images[11])
    rows = [
        question(number, image, metadata={"dataset": "x", "split": side})
        for number, (image, side) in enumerate(zip(images, sides, strict=True))
    ]
    source = Source("Given", [*rows, rows[0]], (), {"x": "CC0"}.__getitem__, ("A note.",), split_given=True)
    card = prepare(source, ALL, tmp_path / "out").card
    assert card["rows"] == {"total": 13, "usable": 11, "unusable": 2, "left_out": 1}
    assert {split: part["questions"] for split, part in card["splits"].items()} == {
        "train": 8,
        "validation": 0,
        "test": 2,
    }
    assert [(one.source, one.row, one.field, one.value) for one in unusable_of(tmp_path / "out")] == [
        ("Given", 11, "split", "dev"),
        ("Given", 12, "split", "train"),
        ("Given", 13, "id", "q0"),
    ]
    assert card["splits"]["test"]["options"] == {"open": 2}
    assert card["splits"]["test"]["chance"] is None
    assert card["licenses"] == {"x": "CC0"}
    assert not (tmp_path / "out" / "validation").exists()
    text = (tmp_path / "out" / "README.md").read_text()
    assert "A note." in text
    assert "Listed there too are 1 usable rows that were left out" in text
    (first, _) = load_questions(DataArguments(data_path=str(tmp_path / "out" / "test")))
    assert (first.answer, first.options) == ("a lung", ())
    stratified = PrepareSettings(split="stratified", train=None, test=None, size=16)
    assert prepare(source, stratified, tmp_path / "again").card["rows"]["usable"] == 12


def test_a_given_split_that_is_not_there(tmp_path: Path) -> None:
    source = Source("X", [], ())
    with pytest.raises(ConfigError, match="X does not say which split a question is in"):
        prepare(source, PrepareSettings(split="given"), tmp_path / "out")
