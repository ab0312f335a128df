"""Reading hints out of the teacher's answers, and what becomes of a hint that leaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kepo.errors import KepoError
from kepo.exploration import ExplorationSettings
from kepo.exploration.hints import TeacherHints, parse_hint
from kepo.prompts import hint_request
from kepo.teachers.scripted import ScriptedTeacher
from kepo.types import Group


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ("<hint>Look at the rim.</hint>", "Look at the rim."),
        ("Sure!\n<hint>\nLook\n\nat the rim.\n</hint> Good luck.", "Look\n\nat the rim."),
        ("<HINT>Look</Hint>", "Look"),
        ("<hint >Look</hint >", "Look"),
        ("<hint>Look at\nthe rim", "Look at\nthe rim"),
        ("Look at\nthe rim", "Look at\nthe rim"),
        ("Look at the rim</hint>", "Look at the rim"),
        ("<hint>first</hint><hint>second</hint>", "first"),
        ("I write it inside <hint> </hint>: <hint>Look</hint>", "Look"),
        ("<hint><hint>Look</hint></hint>", "Look"),
        ("<think>It is B. <hint>draft</hint></think><hint>Look</hint>", "Look"),
        ("<think>It is B.</think>\nLook", "Look"),
        ("It is B.</think><hint>Look</hint>", "Look"),
        ("<think>It is B, cut off", ""),
        ("◁think▷It is B.◁/think▷<hint>Look</hint>", "Look"),
        ("[THINK]It is B, cut off", ""),
        ("<think>" * 5000, ""),
        ("<think>It is B, never closed <hint>Look</hint>", "Look"),
        ("<hint></hint>", ""),
        ("<hint>\n \n</hint> It is B.", ""),
        ("", ""),
        (" \n", ""),
        (r"""<hint>{question} {0} {{x}} \frac{1}{2} \1 100% "a" 'b' <b></hint>""", None),
    ],
)
def test_parse_hint(raw: str, hint: str | None) -> None:
    inside = raw.removeprefix("<hint>").removesuffix("</hint>")
    assert parse_hint(raw) == (inside if hint is None else hint)


def _settings(policy: str, **fields: int) -> ExplorationSettings:
    return ExplorationSettings(hint_leak_policy=policy, **fields)


LEAKING = "<hint>Look at the rim. It is B.</hint>"


@pytest.mark.parametrize(
    ("policy", "shown"),
    [("allow", "Look at the rim. It is B."), ("strip", "Look at the rim."), ("reject", "")],
)
def test_leak_policies_that_ask_once(policy: str, shown: str, group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher(LEAKING)
    ((hint,),) = TeacherHints(teacher, _settings(policy, hint_level=2))([group()], 2)
    assert (hint.text, hint.leaks, hint.raw, hint.level) == (shown, ("letter",), LEAKING, 2)
    assert teacher.hint_calls == [1]


def test_the_teacher_is_shown_prompt_and_answer(group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher("<hint>Look</hint>")
    one = group()
    TeacherHints(teacher, _settings("reject", hint_level=0))([one], 0)
    assert teacher.hint_conversations == [hint_request(one.prompt, "B", one.options, 0)]


def test_ask_again_asks_until_a_hint_is_clean_and_says_what_was_wrong(group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher([LEAKING, "<hint>Look at the rim.</hint>"])
    one = group()
    (hints,) = TeacherHints(teacher, _settings("ask_again"))([one], 1)
    assert [(hint.text, hint.leaks) for hint in hints] == [("", ("letter",)), ("Look at the rim.", ())]
    assert teacher.hint_calls == [1, 1, 0], "the number of calls may not depend on what the teacher says"
    first, second = teacher.hint_conversations
    assert second[: len(first)] == first
    assert second[len(first)] == {"role": "assistant", "content": LEAKING}
    assert "gives the answer away" in second[-1]["content"]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]


def test_ask_again_keeps_the_form_of_a_prompt_with_images(group: Callable[..., Group]) -> None:
    image = {"type": "image", "image": object()}
    prompt = [{"role": "user", "content": [image, {"type": "text", "text": "q1?"}]}]
    teacher = ScriptedTeacher([LEAKING, "<hint>Look at the rim.</hint>"])
    TeacherHints(teacher, _settings("ask_again"))([group(prompt=prompt)], 1)
    again = teacher.hint_conversations[1]
    assert again[0]["content"][0] is image
    assert [message["content"][-1]["type"] for message in again] == ["text", "text", "text"]


def test_ask_again_repeats_a_request_that_ends_with_words_of_the_assistant(group: Callable[..., Group]) -> None:
    prompt = [{"role": "user", "content": "q1?"}, {"role": "assistant", "content": "<think>"}]
    teacher = ScriptedTeacher(LEAKING)
    TeacherHints(teacher, _settings("ask_again", hint_retries=1))([group(prompt=prompt)], 1)
    assert teacher.hint_conversations[0] == teacher.hint_conversations[1]


def test_ask_again_gives_up_after_its_retries(group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher(LEAKING)
    (hints,) = TeacherHints(teacher, _settings("ask_again", hint_retries=1))([group()], 1)
    assert [hint.text for hint in hints] == ["", ""]
    assert teacher.hint_calls == [1, 1]


def test_ask_again_repeats_the_request_after_an_empty_answer(group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher(["", "<hint>Look</hint>"])
    (hints,) = TeacherHints(teacher, _settings("ask_again"))([group()], 1)
    assert [(hint.text, hint.leaks) for hint in hints] == [("", ()), ("Look", ())]
    assert teacher.hint_conversations[0] == teacher.hint_conversations[1]


def test_only_the_groups_that_need_it_are_asked_about_again(group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher({"q1?": "<hint>Look</hint>", "q2?": LEAKING})
    hints = TeacherHints(teacher, _settings("ask_again"))([group("q1"), group("q2")], 1)
    assert [len(tried) for tried in hints] == [1, 3]
    assert teacher.hint_calls == [2, 1, 1]


@pytest.mark.parametrize("answer", [None, "", "  "])
def test_a_group_without_ground_truth_is_never_asked_about(answer: str | None, group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher("<hint>Look</hint>")
    hints = TeacherHints(teacher, _settings("ask_again"))([group(answer=answer), group("q2")], 1)
    assert [len(tried) for tried in hints] == [0, 1]
    assert teacher.hint_calls == [1, 0, 0]


def test_a_hint_writer_that_loses_an_answer_is_refused(group: Callable[..., Group]) -> None:
    class Forgetful:
        def write_hints(self, conversations: object) -> list[str]:
            return []

    with pytest.raises(KepoError, match="0 results for 1 requests"):
        TeacherHints(Forgetful(), _settings("reject"))([group()], 1)
