from __future__ import annotations

import pytest

from kepo.data.dataset import default_completion, option_as_reasoning
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
