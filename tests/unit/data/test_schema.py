"""Rows that become questions, and rows that are refused with file, row and field."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kepo.data import load_table
from kepo.data.images import ImageRoot
from kepo.data.schema import Place, question_from_row, resolve_answer
from kepo.errors import DataError

ROW: dict[str, Any] = {"question": "What is it?", "options": ["Cyst", "Tumour", "Stone"], "answer": "B"}
PLACE = Place("file.jsonl", 3)


def build(**changes: Any):
    row = {key: value for key, value in {**ROW, **changes}.items() if value is not ...}
    return question_from_row(row, Place("folder/questions.jsonl", 7), ImageRoot(Path("/images")))


def test_a_full_row() -> None:
    question = build(
        id="q1", images=["a.png", "sub/b.png"], modality="CT", task="Diagnosis", metadata={"view": [1, None]}, extra=5
    )
    assert question.id == "q1"
    assert question.text == "What is it?"
    assert question.options == ("Cyst", "Tumour", "Stone")
    assert question.answer == "B"
    assert question.answer_text == "Tumour"
    assert question.images == (Path("/images/a.png"), Path("/images/sub/b.png"))
    assert (question.modality, question.task, question.metadata) == ("CT", "Diagnosis", {"view": [1, None]})


def test_the_least_a_row_can_be() -> None:
    question = question_from_row({"text": " 1+1? ", "answer": 2}, Place("sums.jsonl", 4), None)
    assert (question.id, question.text, question.answer, question.options) == ("sums-4", "1+1?", "2", ())
    assert (question.images, question.modality, question.task, question.metadata) == ((), None, None, {})


def test_lettered_columns_are_options() -> None:
    question = build(options=..., option_A="Cyst", option_B="Tumour", option_C=None, option_D="", answer="tumour.")
    assert (question.options, question.answer) == (("Cyst", "Tumour"), "B")


def test_metadata_may_be_json_text() -> None:
    assert build(metadata='{"a": [1]}').metadata == {"a": [1]}
    assert build(metadata="").metadata == {}
    assert build(metadata={"pair": (1, 2)}).metadata == {"pair": [1, 2]}


def test_empty_optional_columns_are_none() -> None:
    question = build(id="", modality="", task=None, images=[], image=None)
    assert (question.id, question.modality, question.task, question.images) == ("questions-7", None, None, ())


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("B", ("Cyst", "Tumour"), "B"),
        ("b", ("Cyst", "Tumour"), "B"),
        (" B. ", ("Cyst", "Tumour"), "B"),
        ("(b)", ("Cyst", "Tumour"), "B"),
        ("B)", ("Cyst", "Tumour"), "B"),
        ("Tumour", ("Cyst", "Tumour"), "B"),
        ("tumour", ("Cyst", "Tumour"), "B"),
        ("TUMOUR.", ("Cyst", "Tumour"), "B"),
        ("tumour", ("Cyst", "Tumour."), "B"),
        ("left  lung", ("Right lung", "Left lung"), "B"),
        ("pH", ("PH", "pH"), "B"),
        ("A", ("A", "B"), "A"),
        ("(A)", ("B", "A"), "A"),
        ("AB", ("A", "B", "AB"), "C"),
        ("2", ("1", "2"), "B"),
    ],
)
def test_resolve_answer(answer: str, options: tuple[str, ...], letter: str) -> None:
    assert resolve_answer(answer, options, PLACE) == letter


def test_an_answer_known_to_be_text_is_not_read_as_a_letter() -> None:
    assert resolve_answer("A", ("B", "A"), PLACE, letters=False) == "B"
    with pytest.raises(DataError, match="'C' is not among the options"):
        resolve_answer("C", ("x", "y", "z"), PLACE, letters=False)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"question": ""}, "question", "missing or empty"),
    ({"question": "  "}, "question", "missing or empty"),
    ({"question": ...}, "question", "missing or empty"),
    ({"question": None, "text": ""}, "text", "missing or empty"),
    ({"question": ["a"]}, "question", r"\['a'\] is not text"),
    ({"answer": ...}, "answer", "missing or empty"),
    ({"answer": ""}, "answer", "missing or empty"),
    ({"answer": True}, "answer", "True is not text"),
    (
        {"answer": "D"},
        "answer",
        r"'D' is not among the options A\) 'Cyst', B\) 'Tumour', C\) 'Stone'; give a letter or",
    ),
    ({"answer": "Tumor"}, "answer", "'Tumor' is not among the options"),
    (
        {"answer": "A", "options": ["Cyst", "x", " CYST. "]},
        "options",
        r"options A and C read the same \('Cyst', 'CYST\.'\)",
    ),
    ({"answer": "B", "options": ["Cyst", "Cyst"]}, "options", "options A and B read the same"),
    ({"answer": "B", "options": ["5 mm", "5mm"]}, "options", "options A and B read the same"),
    ({"answer": "B", "options": ["10⁵", "10^5"]}, "options", "options A and B read the same"),
    ({"answer": "B", "options": ["Na⁺", "Na+"]}, "options", "options A and B read the same"),
    ({"image": "data:image/png;base64,iVBORw0KGgo"}, "image", "base64 text, not a path"),
    ({"image": "/9j/4AAQSkZJRgABAQAAAQABAAD" + "A" * 3000}, "image", "base64 text, not a path"),
    ({"options": ..., "option_A": "x", "option_B": "X."}, "option_B", "options A and B read the same"),
    ({"answer": 1, "options": ["1", "2", "3"]}, "answer", "1 is the text of option A, and may be the index of another"),
    ({"answer": 3.0, "options": [1, 2, 3]}, "answer", r"text of option C, .*; write \(C\) for that option, or say how"),
    ({"answer": float("nan")}, "answer", "missing or empty"),
    ({"answer": "nan"}, "answer", "missing or empty"),
    ({"question": float("nan")}, "question", "missing or empty"),
    ({"options": ["Cyst", float("nan")]}, "options", "missing or empty"),
    (
        {"answer": "A", "options": ["B", "A"]},
        "answer",
        r"letter of option A \('B'\) and the text of option B; write \(A\)",
    ),
    ({"options": ["Cyst"]}, "options", r"only one option \('Cyst'\); give at least 2, or none for an open question"),
    ({"options": [str(n) for n in range(27)]}, "options", "27 options; there are letters for 26"),
    ({"options": ["Cyst", ""]}, "options", "missing or empty"),
    ({"options": ["Cyst", None]}, "options", "missing or empty"),
    ({"options": "Cyst, Tumour"}, "options", "'Cyst, Tumour' is not a list of texts"),
    ({"options": {"A": "Cyst"}}, "options", "is not a list of texts"),
    ({"options": ..., "option_A": "Cyst"}, "option_A", "only one option"),
    ({"options": ..., "option_A": "x", "option_C": "y"}, "option_B", "is missing, but there is an option_C"),
    ({"metadata": "{"}, "metadata", "'{' cannot be kept as JSON"),
    ({"metadata": [1]}, "metadata", r"\[1\] is not a record"),
    ({"metadata": {"x": {1}}}, "metadata", "cannot be kept as JSON: .*set"),
    ({"id": ["x"]}, "id", r"\['x'\] is not text"),
    ({"image": 5}, "image", "5 is not an image; give a path, a PIL image"),
    ({"images": [None]}, "images", "None is not an image"),
    ({"image": "a.png", "images": ["a.png"]}, "image", "there is an 'images' column too"),
    ({"image": "../a.png"}, "image", r"'../a.png' lies outside the image root /images; move it there"),
    ({"images": ["ok.png", "a/../../b.png"]}, "images", "'a/../../b.png' lies outside the image root"),
    ({"image": ".."}, "image", "'..' lies outside the image root"),
    ({"image": "/etc/passwd"}, "image", "'/etc/passwd' lies outside the image root"),
    ({"image": {"path": "/etc/passwd", "bytes": None}}, "image", "'/etc/passwd' lies outside the image root"),
    ({"image": {"bytes": b"no image", "path": "a.png"}}, "image", "the stored image is not an image that Pillow can"),
]


@pytest.mark.parametrize(("changes", "field", "says"), REFUSED)
def test_refused_rows_name_file_row_and_field(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(DataError, match=rf"^folder/questions\.jsonl, row 7, field '{field}': .*{says}"):
        build(**changes)


def test_a_path_without_an_image_root() -> None:
    with pytest.raises(DataError, match=r"row 1, field 'image': 'a.png' is a path, but no image root was given"):
        question_from_row({**ROW, "image": "a.png"}, Place("x", 1), None)


def test_a_row_that_is_no_record() -> None:
    with pytest.raises(DataError, match=r"^x, row 2: it is \[1\], not a record"):
        question_from_row([1], Place("x", 2), None)  # type: ignore[arg-type]


def test_ids_must_be_unique(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text("\n".join(json.dumps({**ROW, "id": name}) for name in "ab") + "\n\n\n")
    assert [question.id for question in load_table(file)] == ["a", "b"]
    file.write_text(file.read_text() + json.dumps({**ROW, "id": "a"}))
    with pytest.raises(
        DataError, match=r"f\.jsonl, row 5, field 'id': 'a' is already the id of row 1; ids must be unique"
    ):
        load_table(file)


def test_links_may_not_lead_out_of_the_image_root(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "a.png").touch()
    (inside / "b.png").touch()
    (inside / "out.png").symlink_to(outside / "a.png")
    (inside / "folder").symlink_to(outside)
    (inside / "in.png").symlink_to(inside / "b.png")

    def image(name: str):
        return question_from_row({**ROW, "image": name}, Place("x", 1), ImageRoot(inside)).images[0]

    assert image("in.png") == inside / "b.png"
    assert image(str(inside / "b.png")) == inside / "b.png"
    for name in ("out.png", "folder/a.png"):
        with pytest.raises(DataError, match=rf"field 'image': the image '{name}' lies outside the image root"):
            image(name)


def test_the_image_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    question = question_from_row({**ROW, "image": "a.png"}, Place("x", 1), ImageRoot(tmp_path / "link"))
    assert question.images == (tmp_path / "real" / "a.png",)


@pytest.mark.parametrize("nothing", [None, "", "  ", float("nan"), "nan", "NaN"])
def test_nothing_is_nothing_in_every_field(nothing: Any) -> None:
    fields = ("id", "modality", "task", "metadata", "image", "images")
    question = build(
        **dict.fromkeys(fields, nothing), options=..., option_A="x", option_B="y", option_C=nothing, answer="y"
    )
    assert (question.modality, question.task, question.metadata, question.images) == (None, None, {}, ())
    assert question.options == ("x", "y")
    assert question.id == "questions-7"
    assert build(options=nothing, answer="y").options == ()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (3, "3"),
        (2**60 + 1, str(2**60 + 1)),
        (float("inf"), "inf"),
        (np.float32(3.0), "3"),
        (3.0, "3"),
        (3.5, "3.5"),
        (Decimal("3.0"), "3"),
        (np.int64(3), "3"),
        (np.float64(3.0), "3"),
        ("3.0", "3.0"),
    ],
)
def test_whole_numbers_stay_whole(answer: Any, text: str) -> None:
    assert build(options=None, answer=answer).answer == text


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        (128, ["64", "128", "256"], "B"),
        ("1", ["1", "2", "3"], "A"),
        (1, ["0", "1", "2"], "B"),
        (2.5, ["1.5", "2.5"], "B"),
    ],
)
def test_numbers_that_mean_one_option_only(answer: Any, options: list[str], letter: str) -> None:
    assert build(answer=answer, options=options).answer == letter
