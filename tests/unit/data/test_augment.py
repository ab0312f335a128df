from __future__ import annotations

import logging

import pytest

from kepo.data.dataset import default_completion, option_as_reasoning
from kepo.data.option_order import movable_options
from kepo.data.split import shuffle_options
from kepo.errors import ConfigError
from kepo.types import Question

QUESTION = Question(id="q", text="Which?", answer="B", options=("one", "two", "three", "four"))
OPEN = Question(id="o", text="2 + 2?", answer="4")


def test_copies_keep_the_right_text_and_move_its_letter() -> None:
    originals = [QUESTION, OPEN]
    questions = shuffle_options(originals, 20, seed=0)
    assert questions[:2] == originals
    assert len(questions) == 22
    assert len({question.id for question in questions}) == 22
    copies = questions[2:]
    assert all(copy.answer_text == "two" for copy in copies)
    assert all(sorted(copy.options) == sorted(QUESTION.options) for copy in copies)
    assert {copy.answer for copy in copies} == set("ABCD")


def test_the_seed_decides_and_no_copies_is_the_default() -> None:
    assert shuffle_options([QUESTION], 3, seed=1) == shuffle_options([QUESTION], 3, seed=1)
    assert shuffle_options([QUESTION], 3, seed=1) != shuffle_options([QUESTION], 3, seed=2)
    assert shuffle_options([QUESTION], 0, seed=1) == [QUESTION]
    with pytest.raises(ConfigError, match="option_shuffles is -1"):
        shuffle_options([QUESTION], -1, seed=1)


def test_the_right_option_stands_in_for_written_reasoning() -> None:
    target = default_completion(option_as_reasoning(QUESTION), "think")
    assert target == "<think>two</think>\n<answer>B</answer>"


@pytest.mark.parametrize(
    ("options", "movable"),
    [
        (["CT", "MRI", "PET"], 3),
        (["CT", "MRI", "None of the above"], 2),
        (["CT", "MRI", "Both", "Neither."], 2),
        (["肺炎", "肺癌", "以上都不是"], 2),
        (["x", "y", "Ninguna de las anteriores"], 2),
        (["x", "y", "Keine der oben genannten"], 2),
        (["x", "y", "Aucune des réponses ci-dessus"], 2),
        (["x", "y", "上記のいずれでもない"], 2),
        (["x", "y", "위의 모두"], 2),
        (["x", "y", "جميع ما سبق"], 2),
        (["x", "y", "全部正确"], 2),
        (["x", "y", "どれも正しくない"], 2),
        (["first", "second", "third"], 3),
        (["1 and 2", "2 and 3", "1"], 3),
        (["none", "mild", "severe"], 3),
        (["Both", "left", "right"], 3),
        (["A", "B", "AB", "O"], 4),
        (["Hepatitis A", "Hepatitis B", "Vitamin A and C"], 3),
        (["above the liver", "below it", "beside it"], 3),
    ],
)
def test_options_that_refer_to_others_stay(options: list[str], movable: int) -> None:
    assert movable_options(options) == list(range(movable))


@pytest.mark.parametrize(
    "options",
    [
        ["CT", "MRI", "Both A and B"],
        ["CT", "MRI", "both (a) & (b)", "PET"],
        ["CT", "MRI", "A, B and C"],
        ["CT", "MRI", "PET", "A, B, and C"],
        ["CT", "MRI", "PET", "the first two"],
        ["CT", "MRI", "PET", "options 1 and 2"],
        ["CT", "MRI", "PET", "Sowohl A als auch B"],
        ["CT", "MRI", "PET", "same as A"],
        ["CT", "MRI", "PET", "أ و ب"],
        ["CT", "MRI", "Only A"],
        ["CT", "MRI", "Neither A nor B"],
        ["CT", "MRI", "A和B"],
        ["CT", "None of the above", "MRI"],
        ["CT", "None of the above"],
    ],
)
def test_questions_whose_options_name_others_keep_their_order(options: list[str]) -> None:
    assert movable_options(options) is None


def test_what_cannot_be_shuffled_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    both = Question(id="both", text="Which?", answer="C", options=("one", "two", "Both A and B"))
    none = Question(id="none", text="Which?", answer="C", options=("one", "two", "None of the above"))
    with caplog.at_level(logging.WARNING):
        questions = shuffle_options([QUESTION, both, none], 4, seed=0)
    assert "1 of 3 questions keep the order of their options" in caplog.text
    assert len(questions) == 3 + 4 + 4
    copies = [question for question in questions if question.id.startswith("none~")]
    assert {copy.options[2] for copy in copies} == {"None of the above"}
    assert {copy.answer for copy in copies} == {"C"}
    assert len({copy.options for copy in copies}) == 2
