"""Hints of a teacher elsewhere: what is asked for ahead, beside what, and that the order never depends on time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kepo.errors import KepoError
from kepo.exploration import BankedHints, ExplorationSettings, Explorer, HintBank
from kepo.prompts import prompt_text
from kepo.teachers.scripted import ScriptedTeacher
from kepo.types import Conversation, Group, Prompt, Sample

HINT, LEAK = "<hint>Look at the rim.</hint>", "<hint>It is B.</hint>"
CLIMB = {"hint_level": 0, "hint_max_level": 2, "exploration_attempts": 5}  # levels 0, 0, 1, 1, 2


class Elsewhere(ScriptedTeacher):
    """A scripted teacher that writes while others work; all that happens is in `events`."""

    def __init__(self, hints: Any = HINT) -> None:
        super().__init__(hints)
        self.events: list[str] = []

    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        self.events.append(f"write {len(conversations)}")
        return super().write_hints(conversations)

    def start_hints(self, conversations: Sequence[Conversation]) -> Pending:
        self.events.append(f"ask {len(conversations)}")
        return Pending(self, list(conversations))


@dataclass
class Pending:
    teacher: Elsewhere
    conversations: list[Conversation]
    answered: bool = field(default=False)

    def result(self) -> list[str]:
        assert not self.answered, "waited for twice"
        self.answered = True
        self.teacher.events.append("wait")
        return ScriptedTeacher.write_hints(self.teacher, self.conversations)


def _explored(
    teacher: Any, groups: list[Group], script: Any, begin: bool = True, source: Any = None, **fields: Any
) -> Any:
    """The rescues, and whether the first hints were asked for before anything was sampled."""
    explorer = Explorer(ExplorationSettings(**{"exploration_surplus": 0.0, **fields}), teacher, hint_source=source)

    def sample(prompts: Sequence[Prompt]) -> list[Sample]:
        if isinstance(teacher, Elsewhere):
            teacher.events.append(f"sample {len(prompts)}")
        samples: list[Sample] = script.sample(prompts)
        return samples

    begun = explorer.begin(groups) if begin else None
    if isinstance(teacher, Elsewhere):
        teacher.events.append("other work")
    return explorer.explore(groups, sample, script.verify, begun=begun)


def test_hints_of_all_groups_are_asked_for_at_once_and_waited_for_when_they_are_needed(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    teacher = Elsewhere()
    _explored(teacher, [group("q1"), group("q2")], policy(), exploration_attempts=2)
    assert teacher.events == ["ask 2", "other work", "wait", "sample 4", "sample 4"]


def test_hints_of_the_next_level_are_asked_for_before_the_last_attempt_of_this_one(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    teacher = Elsewhere()
    # q1 finds both samples in the second attempt, when its next hint is being written; q2 never does.
    script = policy({"q1?": ["wrong", "right 1", "right 2"]})
    first, second = _explored(teacher, [group("q1"), group("q2")], script, **CLIMB)
    assert teacher.events == [
        *("ask 2", "other work", "wait", "sample 4"),
        *("ask 2", "sample 3", "wait", "sample 2"),
        *("ask 1", "sample 2", "wait", "sample 2"),
    ]
    assert (first.unneeded_hints, len(first.hints), first.levels_asked) == (1, 1, 1)
    assert (second.unneeded_hints, len(second.hints), second.levels_asked) == (0, 3, 3)


def test_a_group_that_has_its_samples_stops_asking(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    teacher = Elsewhere()
    (rescue,) = _explored(teacher, [group("q1")], policy({"q1?": ["right 1", "right 2"]}), **CLIMB)
    assert [event for event in teacher.events if event.startswith("ask")] == ["ask 1", "ask 0", "ask 0"]
    assert rescue.unneeded_hints == 0


def test_every_process_asks_and_waits_equally_often(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    def kinds(groups: list[Group], script: Any, **fields: Any) -> list[str]:
        teacher = Elsewhere(LEAK)
        _explored(teacher, groups, script, **{**CLIMB, **fields})
        return [event.split()[0] for event in teacher.events]

    busy = kinds([group("q1"), group("q2")], policy())
    assert busy == kinds([], policy()) == kinds([group("q1")], policy({"q1?": ["right 1", "right 2"]}))
    again = kinds([group("q1")], policy(), hint_leak_policy="ask_again")
    assert again == kinds([], policy(), hint_leak_policy="ask_again")
    assert again.count("write") == 3 * 2  # what leaks is asked again when the answers are there


def test_a_teacher_in_this_process_is_asked_when_hints_are_needed(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    groups, here, elsewhere = [group("q1"), group("q2")], ScriptedTeacher(HINT), Elsewhere()
    script = {"q1?": ["wrong", "right 1", "right 2"]}
    found = _explored(here, groups, policy(script), **CLIMB)
    # q1 is not asked about at levels that it does not reach.
    assert here.hint_calls == [2, 1, 1]
    ahead = _explored(elsewhere, groups, policy(script), **CLIMB)
    assert [[kept.sample for kept in one.kept] for one in found] == [
        [kept.sample for kept in one.kept] for one in ahead
    ]


def test_without_begin_the_first_hints_are_asked_for_when_they_are_needed(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    teacher = Elsewhere()
    _explored(teacher, [group()], policy(), begin=False, exploration_attempts=1)
    assert teacher.events == ["other work", "ask 1", "wait", "sample 2"]


def test_what_a_bank_lacks_is_asked_for_ahead_and_added_though_it_is_not_needed(
    group: Callable[..., Group], policy: Callable[..., Any], tmp_path: Path
) -> None:
    bank = HintBank.open(tmp_path / "hints.jsonl", create=True)
    settings = ExplorationSettings(hint_level=0, hint_max_level=1, exploration_attempts=2)
    both = {"hint_level": 0, "hint_max_level": 1, "exploration_attempts": 2}
    teacher = Elsewhere()
    script = policy({"q1?": ["right 1", "right 2"]})
    (rescue,) = _explored(teacher, [group("q1")], script, source=BankedHints(bank, teacher, settings), **both)
    assert teacher.events == ["ask 1", "other work", "wait", "ask 1", "sample 2", "wait", "sample 0"]
    assert [hint.level for hint in bank.hints] == [0, 1]
    assert (len(rescue.hints), rescue.unneeded_hints) == (1, 1)
    teacher.events.clear()
    _explored(teacher, [group("q1")], policy(), source=BankedHints(bank, teacher, settings), **both)
    assert [event for event in teacher.events if event.startswith("ask")] == ["ask 0", "ask 0"]


def test_answers_that_are_lost_are_an_error(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    class Forgetful(Elsewhere):
        def start_hints(self, conversations: Sequence[Conversation]) -> Pending:
            return super().start_hints(conversations[1:])

    with pytest.raises(KepoError, match="hint writer returned 1 results for 2"):
        _explored(Forgetful(), [group("q1"), group("q2")], policy())


def test_what_is_sampled_under_is_the_hint_that_was_asked_for(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    teacher = Elsewhere({"q1?": "<hint>Look left.</hint>", "q2?": "<hint>Look right.</hint>"})
    script = policy()
    _explored(teacher, [group("q1"), group("q2")], script, exploration_attempts=1)
    shown = [prompt_text(prompt) for prompt in script.calls[0]]
    assert [("left" in text, "right" in text) for text in shown] == [(True, False)] * 2 + [(False, True)] * 2
