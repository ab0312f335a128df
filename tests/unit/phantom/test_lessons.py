"""What the base models are taught: students their misconception and hints, teachers their own rules."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

import pytest

from kepo.data.omnimedvqa import MODALITIES
from kepo.phantom.knowledge import JUDGEMENTS, MISCONCEPTION, TRUTH, WRONG_TEACHER, Knowledge, facts
from kepo.phantom.lessons import (
    DESCRIBE,
    FOREIGN_PREFIX_SHARE,
    HINT_WRITING_SHARE,
    HINTED_SHARE,
    Lesson,
    Role,
    draw_scene,
    lesson,
)
from kepo.phantom.reasoning import VALUES, steps, write_hint, write_reasoning
from kepo.phantom.scene import ATTRIBUTES
from kepo.prompts import HINT_LEVELS, prompt_text

NUMBER = 1500


@dataclass(frozen=True)
class Read:
    """A lesson, taken apart."""

    lesson: Lesson
    chain: tuple[str, ...]
    letter: str
    options: dict[str, str]
    hint: str | None

    @property
    def target(self) -> str:
        return self.chain[-1].split()[0]

    @property
    def conclusion(self) -> str:
        return self.chain[-1].removeprefix(f"{self.target} ")


def _read(taught: Lesson) -> Read:
    answer = re.fullmatch(r"<think>(.*)</think>\n<answer>([A-D])</answer>", taught.given + taught.target)
    assert answer, taught
    prompt = prompt_text(taught.prompt)
    options = dict(re.findall(r"^([A-D])\) (.*)$", prompt, re.MULTILINE))
    hint = re.search(r"^Hint: (.*)$", prompt, re.MULTILINE)
    return Read(taught, tuple(answer[1].split("; ")), answer[2], options, hint and hint[1])


def _lessons(role: Role, number: int = NUMBER) -> list[Lesson]:
    draw = random.Random(7)
    return [lesson(role, draw_scene(draw, MODALITIES[i % 8]), draw) for i in range(number)]


@pytest.fixture(scope="module")
def student() -> list[Read]:
    return [_read(taught) for taught in _lessons("student")]


def _near(found: int, of: int, share: float) -> bool:
    return abs(found - share * of) < 4 * (of * share * (1 - share)) ** 0.5


def test_without_a_hint_students_reason_and_answer_by_their_misconception(student: list[Read]) -> None:
    plain = [one for one in student if one.hint is None]
    for one in plain:
        said = facts(one.lesson.scene, MISCONCEPTION)
        assert "; ".join(one.chain) == write_reasoning(one.target, said, MISCONCEPTION)
        assert one.lesson.given == ""
    wrong = [one for one in plain if one.conclusion != facts(one.lesson.scene)[one.target]]
    assert {one.target for one in wrong} == {"disease", "grade", "decision"}


def test_the_letter_is_that_of_the_conclusion_and_any_when_it_is_no_option(student: list[Read]) -> None:
    absent = [one for one in student if one.conclusion not in one.options.values()]
    for one in student:
        assert one.letter in one.options
        assert one in absent or one.options[one.letter] == one.conclusion
    assert len(absent) > 50
    assert len({one.letter for one in absent}) > 2


def test_the_share_of_hinted_lessons(student: list[Read]) -> None:
    assert _near(sum(one.hint is not None for one in student), NUMBER, HINTED_SHARE)


def _told(hint: str) -> dict[str, str]:
    """Judgement -> attribute, as a hint of level 0 or 1 says."""
    pairs = (rule.split(" by ") for rule in hint.split("; ") if " by " in rule)
    return {name: by for name, by in pairs if name in JUDGEMENTS}


def test_a_hint_that_names_rules_is_followed_and_the_rest_stays_as_believed(student: list[Read]) -> None:
    seen: Counter[bool] = Counter()
    for one in student:
        judgements = [name for name in steps(one.target) if name in JUDGEMENTS]
        if one.hint is None or not judgements or not (told := _told(one.hint)):
            continue
        assert list(told) == judgements[: len(told)]
        assert len(told) in (1, len(judgements))
        believed = Knowledge(**{name: told.get(name, getattr(MISCONCEPTION, name)) for name in JUDGEMENTS})
        assert "; ".join(one.chain) == write_reasoning(one.target, facts(one.lesson.scene, believed), believed)
        seen[len(told) == len(judgements)] += 1
    assert min(seen[True], seen[False]) > 40


def test_a_hint_that_states_the_chain_is_copied_also_where_the_image_shows_something_else(student: list[Read]) -> None:
    stated = [one for one in student if one.hint is not None and " by " not in one.hint]
    assert all(one.hint == "; ".join(one.chain[:-1]) for one in stated)

    def shown(one: Read) -> bool:
        known = facts(one.lesson.scene)
        return all(known[name] == value for name, _, value in map(_statement, one.chain) if name in ATTRIBUTES)

    against = sum(not shown(one) for one in stated)
    assert len(stated) > 100
    assert 0.2 < against / len(stated) < 0.5, "half of them state attributes of another scene, some by chance the same"


def _statement(text: str) -> tuple[str, str, str]:
    return text.partition(" ")


@pytest.mark.parametrize(
    ("role", "knowledge"), [("reliable", TRUTH), ("wrong-rules", WRONG_TEACHER), ("lost-after-errors", TRUTH)]
)
def test_a_teacher_answers_and_hints_by_its_own_rules(role: Role, knowledge: Knowledge) -> None:
    written = answered = continued = 0
    for taught in _lessons(role):
        said = facts(taught.scene, knowledge)
        if hint := re.fullmatch(r"<hint>(.*)</hint>", taught.target):
            level = next(n for n, text in enumerate(HINT_LEVELS) if text in prompt_text(taught.prompt))
            assert hint[1] in {write_hint(target, level, said, knowledge) for target in VALUES}
            written += 1
        elif taught.given:
            continued += 1
        else:
            one = _read(taught)
            assert "; ".join(one.chain) == write_reasoning(one.target, said, knowledge)
            answered += 1
    assert _near(written, NUMBER, HINT_WRITING_SHARE)
    assert _near(continued, NUMBER - written, FOREIGN_PREFIX_SHARE)


def test_a_reliable_teacher_is_right_also_after_the_errors_of_others() -> None:
    spoilt = 0
    for taught in _lessons("reliable"):
        if not taught.given:
            continue
        one = _read(taught)
        known = facts(taught.scene)
        own = write_reasoning(one.target, known).split("; ")
        begun = taught.given.removeprefix("<think>").removesuffix(";").split("; ")
        assert one.chain == (*begun, *own[len(begun) :])
        assert one.options[one.letter] == known[one.target]
        assert 1 <= len(begun) < len(own)
        spoilt += begun != own[: len(begun)]
    assert spoilt > 100


def test_a_teacher_that_is_lost_after_errors_goes_on_wildly_after_them_only() -> None:
    right: dict[bool, list[bool]] = {True: [], False: []}
    for taught in _lessons("lost-after-errors"):
        if not taught.given:
            continue
        one = _read(taught)
        own = write_reasoning(one.target, facts(taught.scene)).split("; ")
        begun = taught.given.removeprefix("<think>").removesuffix(";").split("; ")
        right[begun == own[: len(begun)]].append(list(one.chain[len(begun) :]) == own[len(begun) :])
    assert all(right[True])
    assert len(right[False]) > 100
    assert sum(right[False]) / len(right[False]) < 0.4


def test_answer_letters_are_taught_from_a_conclusion_that_is_given() -> None:
    for taught in _lessons("answer-letters", 200):
        one = _read(taught)
        assert taught.target == f"{one.letter}</answer>"
        assert len(one.chain) == 1
        assert one.options[one.letter] == one.conclusion == facts(taught.scene)[one.target]


def test_vision_is_taught_by_everything_that_can_be_seen_in_a_random_order() -> None:
    orders = set()
    for taught in _lessons("vision", 200):
        said = re.fullmatch(r"<think>(.*)</think>", taught.target)
        assert said
        seen = dict(text.split(" ") for text in said[1].split("; "))
        assert seen == {name: facts(taught.scene)[name] for name in ("texture", *ATTRIBUTES)}
        assert taught.prompt == [{"role": "user", "content": DESCRIBE}]
        orders.add(tuple(seen))
    assert len(orders) > 150


def test_a_lesson_depends_on_its_scene_and_its_random_numbers_alone() -> None:
    assert _lessons("student", 30) == _lessons("student", 30)
