"""Prompts are built as messages: nothing in a question or a hint can break them, and the original stays as it was."""

from __future__ import annotations

import copy

import pytest

from kepo.prompts import (
    HINT_LEVELS,
    PROMPT_STYLES,
    PromptStyle,
    build_prompt,
    hint_request,
    hint_request_again,
    hinted_prompt,
    prompt_text,
    question_in,
    question_text,
    style_of,
)
from kepo.types import Question

NASTY = "Is {answer} {0} %s \\n <hint> 'quoted' \"twice\"?"
CHOICE = Question(id="q", text=NASTY, answer="B", options=("MRI {x}", "CT"))
OPEN = Question(id="q", text="2 + 2?", answer="4")


def test_the_question_is_followed_by_its_lettered_options() -> None:
    assert question_text(CHOICE) == f"{NASTY}\nA) MRI {{x}}\nB) CT"
    assert question_text(OPEN) == "2 + 2?"


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_a_nasty_question_passes_through_untouched(style: str) -> None:
    [message] = build_prompt(CHOICE, style)
    assert message["role"] == "user"
    assert message["content"].startswith(question_text(CHOICE))
    assert ("<think>" in message["content"]) == (style == "think")
    assert ("<answer>" in message["content"]) == (style != "plain")


def test_the_instruction_asks_for_a_letter_only_where_there_are_options() -> None:
    assert "letter" in build_prompt(CHOICE, "answer")[0]["content"]
    assert "letter" not in build_prompt(OPEN, "answer")[0]["content"]


def test_an_unknown_style_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="think, answer, plain"):
        build_prompt(OPEN, "loud")


def test_the_prompt_of_the_student_never_holds_the_answer() -> None:
    question = Question(id="q", text="Which?", answer="B", options=("one", "two"))
    for style in PROMPT_STYLES:
        text = build_prompt(question, style)[0]["content"]
        assert "right answer" not in text.lower()
        assert text.count("two") == 1


@pytest.mark.parametrize("level", range(len(HINT_LEVELS)))
def test_the_teacher_sees_prompt_images_and_ground_truth(level: int) -> None:
    image = object()
    prompt = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": NASTY}]}]
    before = copy.copy(prompt[0]["content"])
    [message] = hint_request(prompt, "B", ["MRI", "CT"], level)
    assert message["content"][0]["image"] is image
    assert message["content"][1]["text"] == NASTY
    assert "B) CT" in message["content"][2]["text"]
    assert HINT_LEVELS[level] in message["content"][2]["text"]
    assert prompt[0]["content"] == before


def test_a_hint_level_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"0\.\.2"):
        hint_request("prompt", "4", level=3)


def test_an_open_answer_and_a_text_prompt_become_a_conversation() -> None:
    [message] = hint_request("2 + 2?", "4")
    assert message["content"].startswith("2 + 2?")
    assert "4" in message["content"]


def test_asking_again_shows_what_leaked() -> None:
    request = hint_request("2 + 2?", "4")
    again = hint_request_again(request, "it is 4")
    assert again[:1] == request
    assert again[1] == {"role": "assistant", "content": "<hint>it is 4</hint>"}
    assert again[2]["role"] == "user"


@pytest.mark.parametrize("prompt", ["text {x}", build_prompt(CHOICE), [{"role": "system", "content": "be brief"}]])
def test_a_hint_is_added_and_the_original_is_left_alone(prompt: object) -> None:
    before = copy.deepcopy(prompt)
    hinted = hinted_prompt(prompt, "look {here}\nand %d there")
    assert "look {here}\nand %d there" in prompt_text(hinted)
    assert "do not mention" in prompt_text(hinted)
    assert prompt == before
    assert prompt_text(prompt) in prompt_text(hinted)


def test_the_hint_goes_to_the_last_user_message() -> None:
    prompt = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "well"},
        {"role": "user", "content": "last"},
    ]
    hinted = hinted_prompt(prompt, "psst")
    assert hinted[:2] == prompt[:2]
    assert "psst" in hinted[2]["content"]


def test_images_are_named_in_readable_text() -> None:
    prompt = [{"role": "user", "content": [{"type": "image", "image": None}, {"type": "text", "text": "what?"}]}]
    assert prompt_text(prompt) == "user: [image] what?"


@pytest.mark.parametrize("style", PROMPT_STYLES)
@pytest.mark.parametrize("options", [(), ("MRI", "CT")])
def test_style_and_question_are_found_in_a_prompt(style: PromptStyle, options: tuple[str, ...]) -> None:
    answer = "A" if options else "brain"
    prompt = build_prompt(Question(id="q", text="What is it?", answer=answer, options=options), style)
    text = str(prompt[0]["content"])
    expected = None if style == "plain" else style
    assert style_of(prompt) == style_of(text) == expected
    assert question_in(text, options) == "What is it?"
    assert style_of([{"role": "user", "content": [{"type": "text", "text": text}]}]) == expected


def test_a_prompt_in_other_words_has_no_style() -> None:
    own = "Answer inside <answer> </answer>: what is it?"
    assert style_of(own) is None
    assert question_in(own, ("MRI", "CT")) == own
    assert style_of([{"role": "system", "content": "Be short."}]) is None
