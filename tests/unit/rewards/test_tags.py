"""One reader of tags: reasoning that the prompt opened, that is cut off, or that a model marks in its own way."""

from __future__ import annotations

import pytest

from kepo.evaluation.asking import OrderedQuestion
from kepo.evaluation.scoring import score_completion
from kepo.evaluation.settings import Completion, EvaluationSettings
from kepo.rewards import answer_format, choice_accuracy, exact_match, math_accuracy, think_format
from kepo.rewards.answers import completion_text
from kepo.rewards.tags import opens_reasoning, reasoning_span
from kepo.types import Question

OPTIONS = ["MRI", "CT"]
ENDED = "Seen: MRI.\n</think>\n<answer>A</answer>"
CUT = "The answer may be <answer>A</answer>, but A"
LATER = "<think>First <answer>B</answer>, no.</think> <answer>A</answer>"


@pytest.mark.parametrize(
    ("text", "opened", "accuracy", "formatted"),
    [
        (ENDED, True, 1.0, 1.0),
        (ENDED, None, 1.0, 1.0),
        (ENDED, False, 1.0, 0.0),  # the prompt did not open the reasoning, and neither did the completion
        (f"<think>{ENDED}", True, 1.0, 1.0),  # repeats the tag
        (f"<think>{ENDED}", False, 1.0, 1.0),
        (CUT, True, 0.0, 0.0),
        (f"<think>{CUT}", None, 0.0, 0.0),
        ("<think>x <answer>A</answer>", False, 1.0, 0.0),  # the last that it says
        ("<think>x <answer>A</answer> or else", False, 0.0, 0.0),
        ("<think>x <answer>A", False, 0.0, 0.0),
        ("<answer>A</answer>", True, 1.0, 0.0),
        ("<answer>A</answer>", False, 1.0, 0.0),
        ("</think><answer>A</answer>", True, 1.0, 0.0),  # no reasoning
        (LATER, None, 1.0, 0.0),
        ("<think>The answer is <answer>A</answer></think> It is B.", None, 0.0, 0.0),
        ("◁think▷Seen: MRI.◁/think▷<answer>A</answer>", False, 1.0, 1.0),
        ("[THINK]Seen: MRI.[/THINK]<answer>A</answer>", False, 1.0, 1.0),
    ],
)
def test_accuracy_and_format(text: str, opened: bool | None, accuracy: float, formatted: float) -> None:
    known = {} if opened is None else {"reasoning_opened": [opened]}
    assert choice_accuracy([text], ["A"], [OPTIONS], **known) == [accuracy]
    assert think_format([text], **known) == [formatted]


@pytest.mark.parametrize("text", ["so A", "A", "It is MRI"])
def test_cut_reasoning_has_no_plain_answer_either(text: str) -> None:
    assert choice_accuracy([text], ["A"], [OPTIONS], ["plain"], [True]) == [0.0]
    assert choice_accuracy([f"x</think> {text}"], ["A"], [OPTIONS], ["plain"], [True]) == [1.0]
    assert exact_match(["A"], ["A"], [True]) == [0.0]
    assert math_accuracy(["Maybe 42"], ["42"], reasoning_opened=[True]) == [0.0]
    assert math_accuracy(["Maybe 41</think> 42"], ["42"], reasoning_opened=[True]) == [1.0]


def test_formats_say_nothing_about_plain_rows() -> None:
    assert think_format(["A"], ["plain"]) == answer_format(["A"], ["plain"]) == [None]


def test_an_answer_alone_may_follow_reasoning_that_the_prompt_opened() -> None:
    assert answer_format([ENDED, "<answer>A</answer>"], reasoning_opened=[True, True]) == [1.0, 0.0]
    assert answer_format([ENDED], reasoning_opened=[False]) == [0.0]


def test_reasoning_that_was_parsed_out_of_a_message_is_put_back() -> None:
    message = [{"role": "assistant", "reasoning_content": "Seen: MRI.", "content": "<answer>A</answer>"}]
    assert think_format([message]) == [1.0]
    assert completion_text(message, True) == "<think>Seen: MRI.</think>\n<answer>A</answer>"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (Completion(ENDED, 9, True, True), ("A", True, True, True)),
        (Completion(CUT, 9, False, True), (None, False, False, None)),
        (Completion(ENDED, 9, True), ("A", True, True, True)),  # a server: its template is not known
    ],
)
def test_evaluation_reads_the_same(completion: Completion, expected: tuple[object, ...]) -> None:
    question = Question(id="q", text="?", answer="A", options=tuple(OPTIONS))
    row = score_completion(OrderedQuestion(question, 0), completion, EvaluationSettings())
    assert (row["predicted"], row["correct"], row["formatted"], row["consistent"]) == expected
    assert row["completion"] == completion.text


def test_consistency_tells_values_with_signs_apart() -> None:
    question = Question(id="q", text="?", answer="A", options=("<5 mm", "5 mm"))
    row = score_completion(
        OrderedQuestion(question, 0),
        Completion("<think>it measures < 5 mm</think><answer>A</answer>", 9, True),
        EvaluationSettings(),
    )
    assert row["consistent"] is True


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [("x<think>\n", True), ("x<think>\n\n</think>\n\n", False), ("<think> </think> please", False), ("", False)],
)
def test_opens_reasoning(prompt: str, opened: bool) -> None:
    assert opens_reasoning(prompt) is opened


def test_the_span_of_other_tags() -> None:
    text = "◁think▷ab◁/think▷c"
    assert text[slice(*reasoning_span(text))] == "ab"
