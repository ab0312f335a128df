"""Finding the answer in a completion."""

from __future__ import annotations

import pytest

from kepo.rewards import extract_answer, predicted_letter
from kepo.rewards.answers import after_reasoning, completion_text, normalized

OPTIONS = ("Cyst", "Tumour", "Stone", "Normal")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>B</answer>", "B"),
        ("<answer> B </answer>", "B"),
        ("<ANSWER>B</Answer>", "B"),
        ("<answer >B</answer >", "B"),
        ("<answer>\nB)\nTumour\n</answer>", "B)\nTumour"),
        ("<think>x</think><answer>B</answer>", "B"),
        ("<think>x</think>\n<answer>B</answer> trailing words", "B"),
        ("<answer>A</answer> no, <answer>B</answer>", "B"),
        ("<answer><answer>B</answer></answer>", "B"),
        ("<think>x</think><answer>B", "B"),
        ("<answer>A</answer> wait <answer>B", "B"),
        ("<answer>A</answer><answer>", "A"),
        ("<think><answer>B</answer></think>", "B"),
        ("<think>I must write <answer> tags</think> <answer>C</answer>", "C"),
        ("<think>I must write <answer> tags</think> so it is C", None),
        ("<answer>x < 3</answer>", "x < 3"),
        ("<answer>{} %s \\1</answer>", "{} %s \\1"),
        ("<think>x</think><|begin_of_box|>B<|end_of_box|>", "B"),
        ("<think><|begin_of_box|>A<|end_of_box|></think> B", None),
        ("<answer>C</answer><|begin_of_box|>B<|end_of_box|>", "C"),
        ("<answer></answer>", None),
        ("<answer>  \n </answer>", None),
        ("<answer>A</answer> then <answer></answer>", None),
        ("<answer>", None),
        ("B</answer>", None),
        ("answer: B", None),
        ("<answers>B</answers>", None),
        ("", None),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([], ""),
        ([{"role": "assistant", "content": "one"}], "one"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant"}], ""),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "ab"),
        ([{"role": "assistant", "content": [{"type": "image"}, {"type": "text", "text": "b"}]}], "b"),
        ([{"role": "assistant", "content": "one"}, {"role": "assistant", "content": "two"}], "one\ntwo"),
    ],
)
def test_completion_text(completion: object, text: str) -> None:
    assert completion_text(completion) == text


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("<think>x</think><answer>B</answer>", "B", "B"),
        ("<answer>tumour</answer>", "B", "B"),
        ("<answer>A or B</answer>", None, None),
        ("<answer>neither</answer> B", None, None),
        ("B", None, "B"),
        ("The answer is B.", None, "B"),
        ("A or C? Hmm.\nThe answer is B.", None, "B"),
        ("The answer is B.\nI am quite sure.", None, "B"),
        ("<think>(A) looks wrong, (C) too</think>\nB", None, "B"),
        ("<think>(A) looks wrong", None, None),
        ("So \\boxed{B}.\nI am sure.", None, "B"),
        ("\\boxed{A or B}\nC", None, None),
        ("no idea", None, None),
        ("", None, None),
        ("<think>B</think>", None, None),
    ],
)
def test_predicted_letter(text: str, strict: str | None, lenient: str | None) -> None:
    assert predicted_letter(text, OPTIONS) == strict
    assert predicted_letter(text, OPTIONS, strict=False) == lenient


def test_after_reasoning() -> None:
    assert after_reasoning("<think>a</think> b </THINK> c ") == "c"
    assert after_reasoning(" c ") == "c"


@pytest.mark.parametrize(
    "text", ["Left lung", " left  LUNG.", '"left lung"', "left\nlung !", "'left lung.'", "ｌｅｆｔ lung"]
)
def test_normalized(text: str) -> None:
    assert normalized(text) == "left lung"


def test_normalized_keeps_what_matters() -> None:
    assert normalized("-5.0") == "-5.0"
    assert normalized("3.") == "3"
    assert normalized("...") == ""
