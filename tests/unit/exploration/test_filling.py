"""Filling a bank: what is lacking, what is asked, in which batches, and going on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kepo.errors import ConfigError, KepoError
from kepo.exploration.bank import HintBank
from kepo.exploration.bank_summary import summarize
from kepo.exploration.filling import FillSettings, fill, hint_quotas
from kepo.prompts import HINT_LEVELS, prompt_text
from kepo.teachers.scripted import ScriptedTeacher
from kepo.types import Group

CLEAN, LEAK = "<hint>Look at the rim.</hint>", "<hint>It is B.</hint>"


@pytest.fixture
def bank(tmp_path: Path) -> HintBank:
    return HintBank.open(tmp_path / "hints.jsonl", create=True)


def _fill(bank: HintBank, groups: list[Group], teacher: Any, settings: FillSettings, **calls: Any) -> int:
    """Fill the bank; how many hints it lacked before."""
    wanted = hint_quotas(bank, groups, "scripted", settings)
    fill(bank, wanted, groups.__getitem__, teacher, settings, **calls)
    return sum(one.lacking for one in wanted)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"levels": 0}, "levels is 0; give 1 to 3"),
        ({"levels": 4}, "levels is 4; give 1 to 3"),
        ({"per_question": 0}, "per_question is 0; give a whole number of at least 1"),
        ({"hint_retries": -1}, "hint_retries is -1; give a whole number of at least 0"),
        ({"batch_size": 0}, "batch_size is 0; give a whole number of at least 1"),
        ({"hint_leak_policy": "never"}, "hint_leak_policy is 'never'; use one of allow, strip"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FillSettings(**fields)


def test_every_level_of_every_question_gets_its_hints(bank: HintBank, group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher([f"<hint>way {i}</hint>" for i in range(12)])
    settings = FillSettings(levels=3, per_question=2, batch_size=4)
    assert _fill(bank, [group("q1"), group("q2")], teacher, settings) == 12
    assert teacher.hint_calls == [4, 4, 4]
    assert [(hint.question, hint.level, hint.index) for hint in bank.hints] == [
        (question, level, index) for question in ("q1", "q2") for level in range(3) for index in range(2)
    ]
    asked = [prompt_text(conversation) for conversation in teacher.hint_conversations]
    assert [next(n for n, wish in enumerate(HINT_LEVELS) if wish in text) for text in asked] == [0, 0, 1, 1, 2, 2] * 2


def test_a_finished_bank_lacks_nothing_and_more_is_only_added(bank: HintBank, group: Callable[..., Group]) -> None:
    groups = [group("q1")]
    assert _fill(bank, groups, ScriptedTeacher(CLEAN), FillSettings(levels=2)) == 2
    silent = ScriptedTeacher(CLEAN)
    assert _fill(bank, groups, silent, FillSettings(levels=2)) == 0
    assert silent.hint_calls == []
    assert _fill(bank, groups, ScriptedTeacher(CLEAN), FillSettings(levels=3, per_question=2)) == 1 + 1 + 2


def test_hints_of_another_teacher_do_not_count(bank: HintBank, group: Callable[..., Group]) -> None:
    _fill(bank, [group()], ScriptedTeacher(CLEAN), FillSettings(levels=1))
    assert [one.lacking for one in hint_quotas(bank, [group()], "other", FillSettings(levels=1))] == [1]


def test_questions_that_are_asked_alike_and_those_without_answer(bank: HintBank, group: Callable[..., Group]) -> None:
    alike = group("q2", prompt=group("q1").prompt)
    wanted = hint_quotas(bank, [group("q1"), alike, group("q3", answer=" ")], "scripted", FillSettings(levels=2))
    assert [(one.place, one.level) for one in wanted] == [(0, 0), (0, 1)]


def test_a_stopped_run_keeps_whole_batches_and_goes_on(bank: HintBank, group: Callable[..., Group]) -> None:
    groups = [group(f"q{i}") for i in range(4)]
    settings = FillSettings(levels=1, per_question=2, batch_size=4)

    class Stopped(ScriptedTeacher):
        def write_hints(self, conversations: Any) -> list[str]:
            if self.hint_calls:
                raise KeyboardInterrupt
            return super().write_hints(conversations)

    with pytest.raises(KeyboardInterrupt):
        _fill(bank, groups, Stopped(CLEAN), settings)
    assert [hint.question for hint in HintBank.open(bank.path).hints] == ["q0", "q0", "q1", "q1"]
    teacher = ScriptedTeacher(CLEAN)
    assert _fill(HintBank.open(bank.path), groups, teacher, settings) == 4
    assert teacher.hint_calls == [4]


def test_asking_again_replaces_leaks_up_to_its_retries(bank: HintBank, group: Callable[..., Group]) -> None:
    # Two hints wanted. Round 1: a leak and a clean one. Round 2: a leak. Round 3: a clean one.
    teacher = ScriptedTeacher([LEAK, "<hint>One way.</hint>", "<hint>The answer is B.</hint>", "<hint>Two.</hint>"])
    settings = FillSettings(levels=1, per_question=2, hint_leak_policy="ask_again", hint_retries=2)
    _fill(bank, [group()], teacher, settings)
    assert teacher.hint_calls == [2, 1, 1]
    assert [hint.text for hint in bank.hints] == ["It is B.", "One way.", "The answer is B.", "Two."]
    again = teacher.hint_conversations[3]
    assert again[-2] == {"role": "assistant", "content": "<hint>The answer is B.</hint>"}
    assert _fill(bank, [group()], teacher, settings) == 0


def test_a_teacher_that_always_leaks_is_not_asked_for_ever(bank: HintBank, group: Callable[..., Group]) -> None:
    settings = FillSettings(levels=1, per_question=2, hint_leak_policy="ask_again", hint_retries=1)
    teacher = ScriptedTeacher(LEAK)
    _fill(bank, [group()], teacher, settings)
    assert teacher.hint_calls == [2, 2]
    assert _fill(bank, [group()], teacher, settings) == 0


def test_other_policies_leave_leaks_to_the_reader(bank: HintBank, group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher(LEAK)
    _fill(bank, [group()], teacher, FillSettings(levels=1, per_question=2, hint_leak_policy="reject"))
    assert teacher.hint_calls == [2]
    assert [(hint.text, hint.leaks) for hint in bank.hints] == [("It is B.", ("letter",))] * 2


def test_empty_answers_are_asked_for_again_by_the_next_run(bank: HintBank, group: Callable[..., Group]) -> None:
    settings = FillSettings(levels=1, per_question=2)
    assert _fill(bank, [group()], ScriptedTeacher(["", CLEAN]), settings) == 2
    assert _fill(bank, [group()], ScriptedTeacher(CLEAN), settings) == 1


def test_seeds_differ_between_batches_and_between_the_first_and_later_hints(
    bank: HintBank, group: Callable[..., Group]
) -> None:
    seeds: list[int] = []
    groups = [group("q1"), group("q2")]
    for per_question in (1, 2):
        settings = FillSettings(levels=1, per_question=per_question, batch_size=1)
        _fill(bank, groups, ScriptedTeacher(CLEAN), settings, seed=seeds.append)
    assert len(set(seeds)) == len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_progress_counts_the_hints_that_were_asked_for(bank: HintBank, group: Callable[..., Group]) -> None:
    steps: list[int] = []
    settings = FillSettings(levels=3, per_question=2, batch_size=4)
    _fill(bank, [group()], ScriptedTeacher(CLEAN), settings, advance=steps.append)
    assert steps == [4, 2]


def test_a_writer_that_loses_an_answer_is_refused(bank: HintBank, group: Callable[..., Group]) -> None:
    class Forgetful(ScriptedTeacher):
        def write_hints(self, conversations: Any) -> list[str]:
            return []

    with pytest.raises(KepoError, match="0 results for 3 requests"):
        _fill(bank, [group()], Forgetful(), FillSettings())


def test_the_summary_counts_level_by_level(bank: HintBank, group: Callable[..., Group]) -> None:
    other = "<hint>Follow the border, and compare its colour with that of healthy skin.</hint>"
    answers = [LEAK, "<hint>Not melanoma.</hint>", CLEAN, CLEAN, other, "<hint></hint>"]
    _fill(bank, [group()], ScriptedTeacher(answers), FillSettings(levels=2, per_question=3, batch_size=9))
    counts = summarize(bank.hints)
    assert list(counts) == ["level 0", "level 1", "all"]
    assert counts["level 0"] == {
        "questions": 1, "hints": 3, "usable: with a text, no leak": 1, "questions with a usable one": 1,
        "without a hint in the answer": 0, "naming the letter": 1, "naming the answer": 1, "duplicates": 0,
        "words, median": 3,
    }  # fmt: skip
    second = counts["level 1"]
    assert second["usable: with a text, no leak"] == 2
    assert second["without a hint in the answer"] == second["duplicates"] == 1
    assert second["words, median"] == 8  # 4 and 12 words; the answer without a hint does not count
    assert [counts["all"][name] for name in list(counts["all"])[:4]] == [1, 6, 3, 1]
    assert list(summarize(bank.find(bank.hints[0].content_hash))) == ["level 0"]
    assert summarize([]) == {}
