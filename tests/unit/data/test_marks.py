"""Marks of other tools in the texts of rows, with and without a preset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kepo.data import DataArguments, load_questions
from kepo.data.readers.marks import answer_in_tags, option_text, without_letters, without_placeholders
from kepo.data.readers.table import TableMap
from kepo.data.readers.texts import options_in
from kepo.data.schema import Place
from kepo.errors import DataError


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("<image>How many?", "How many?"),
        ("<image>\n<image>\nHow many?", "How many?"),
        ("How many?\n<image>", "How many?"),
        ("<|vision_start|><|image_pad|><|vision_end|>How many?", "How many?"),
        ("<start_of_image> How many?", "How many?"),
        ("What is it? <image 1>", "What is it?"),
        ("<image 1> What is it?", "What is it?"),
        ("<image 1> shows what?", "image 1 shows what?"),
        ("Compare <image 1> and <image_2>.", "Compare image 1 and image 2."),
        ("Is the first <image> or the second <image> larger?", "Is the first image 1 or the second image 2 larger?"),
        ("a < b > c, <img src='x'>", "a < b > c, <img src='x'>"),
        ("kept  as\n\n\n\nit is", "kept  as\n\n\n\nit is"),
    ],
)
def test_places_for_images(given: str, text: str) -> None:
    assert without_placeholders(given) == text


def test_an_option_that_is_an_image_is_named() -> None:
    assert [option_text(text) for text in ("<image 2>", "cat", "a cat <image>")] == ["image 2", "cat", "a cat"]


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("<answer> 3 </answer>", "3"),
        ("<think>2? <answer>2</answer></think> <ANSWER>\n3</ANSWER>", "3"),
        ("<think>two</think>\n3", "3"),
        ("<answer>3", "3"),
        ("3 < 4", "3 < 4"),
    ],
)
def test_answers_in_tags(given: str, answer: str) -> None:
    assert answer_in_tags(given) == answer


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["A. x", "B. y"], ("x", "y")),
        (["(A) x", "(B) y"], ("x", "y")),
        (["a) x", "b) y"], ("x", "y")),
        (["A：x", "B、y"], ("x", "y")),
        (["A. x", "y"], ("A. x", "y")),
        (["A. x", "C. y"], ("A. x", "C. y")),
        (["B. cereus", "A. fumigatus"], ("B. cereus", "A. fumigatus")),
        (["A scan", "B scan"], ("A scan", "B scan")),
        (["A.", "B."], ("A.", "B.")),
    ],
)
def test_letters_of_options_go_if_all_have_them(given: list[str], options: tuple[str, ...]) -> None:
    assert without_letters(given) == options


def rows_of(folder: Path, *rows: dict[str, Any], **settings: Any) -> list[Any]:
    Image.new("L", (9, 9)).save(folder / "a.png")
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_questions(DataArguments(data_path=str(folder / "t.jsonl"), **settings))


@pytest.mark.parametrize("settings", [{}, {"data_columns": {"question": "question"}}])
@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["A. x", "B. y"], "B", "B"),
        (["A. x", "B. y"], "B. y", "B"),
        (["A. x", "B. y"], "y", "B"),
        (["x", "y"], "(B) y", "B"),
        (["x", "y"], "<answer> B: y </answer>", "B"),
        (["x", "A. y"], "A. y", "B"),
        ("['x', \"it's y\"]", "it's y", "B"),
        ("['x y' 'y z']", "y z", "B"),
        ('["x", "y"]', "b", "B"),
        ({"label": ["A", "B"], "text": ["x", "y"]}, "B", "B"),
        ({"A": "x", "B": "y", "C": None}, "B", "B"),
        ([{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "B", "B"),
    ],
)
def test_options_and_answers_of_rows(settings: Any, options: Any, answer: str, letter: str, tmp_path: Path) -> None:
    row = {"question": "<image>What?", "options": options, "answer": answer, "image": "a.png"}
    (question,) = rows_of(tmp_path, row, **settings)
    assert (question.text, question.answer, len(question.options)) == ("What?", letter, 2)
    assert not any(text.startswith(("A. x", "B. ")) for text in question.options)


@pytest.mark.parametrize("settings", [{}, {"data_columns": {"question": "question"}}])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"options": ["A. x", "B. x"]}, "options A and B read the same"),
        ({"answer": "A. y"}, "'A. y' is not among the options"),
        ({"options": "[__import__('os').getcwd()]"}, "one text that is no JSON list"),
        ({"question": "<image>What?"}, "'image': is missing, but the question has a place for it"),
        ({"question": "<image>"}, "'question': is missing or empty"),
    ],
)
def test_rows_that_are_refused(settings: Any, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        rows_of(tmp_path, {"question": "What?", "options": ["x", "y"], "answer": "B", **changes}, **settings)


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("What?\nA. x\nB. y\nAnswer with the option's letter from the given choices directly.", "What?", ("x", "y")),
        ("What?\nChoices:\n(A) x\n(B) y", "What?", ("x", "y")),
        ("What?\nA) x, or B) z\nB) y", "What?", ("x, or B) z", "y")),
        ("What? A)x, B)y", "What?", ("x", "y")),
        ("Who?\nA. Smith wrote it.", "Who?\nA. Smith wrote it.", ()),
        ("What?\nA. x\nC. y", "What?\nA. x\nC. y", ()),
        ("What?\nA. x\nB. y\nIt was late.", "What?\nA. x\nB. y\nIt was late.", ()),
    ],
)
def test_options_in_the_text_of_a_question(text: str, question: str, options: tuple[str, ...]) -> None:
    assert options_in(text, Place("t", 1)) == (question, options)


def test_a_map_of_options_keeps_what_separates_them() -> None:
    row = {"q": "What?", "o": "x; y", "a": "y"}
    table_map = TableMap({"question": "q", "options": "o", "answer": "a"}, option_separator=";")
    assert table_map.row(row, Place("t", 1))["options"] == ("x", "y")
    assert table_map.row({**row, "o": "['x; y', 'y']"}, Place("t", 1))["options"] == ("x; y", "y")
