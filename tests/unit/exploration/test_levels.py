"""Climbing through the levels of hints: which level an attempt has, which hint it uses, who is asked and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kepo.errors import ConfigError
from kepo.exploration import ExplorationSettings, Explorer
from kepo.exploration.explorer import hint_of_attempt
from kepo.exploration.hints import HintAnswers, HintSource
from kepo.prompts import HINT_LEVELS, prompt_text
from kepo.teachers.scripted import ScriptedTeacher
from kepo.types import Conversation, Group, Hint, Prompt, Sample


@pytest.mark.parametrize(
    ("first", "last", "attempts", "levels"),
    [
        (0, 2, 3, (0, 1, 2)),
        (0, 2, 5, (0, 0, 1, 1, 2)),
        (0, 2, 7, (0, 0, 0, 1, 1, 2, 2)),
        (1, 2, 5, (1, 1, 1, 2, 2)),
        (1, 1, 3, (1, 1, 1)),
        (2, None, 2, (2, 2)),
    ],
)
def test_attempts_climb_evenly(first: int, last: int | None, attempts: int, levels: tuple[int, ...]) -> None:
    settings = ExplorationSettings(hint_level=first, hint_max_level=last, exploration_attempts=attempts)
    assert settings.attempt_levels == levels
    assert settings.hint_calls_per_level * len(settings.levels) == len(set(levels))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hint_level": 0, "hint_max_level": 3}, ["hint_max_level is 3", "give 0 to 2"]),
        ({"hint_level": 1, "hint_max_level": 0}, ["hint_max_level is 0", "give 1 to 2"]),
        ({"hint_max_level": True}, ["hint_max_level", "True", "whole number"]),
        (
            {"hint_level": 0, "hint_max_level": 2, "exploration_attempts": 2},
            ["exploration_attempts", "2", "3 levels", "at least 3"],
        ),
    ],
)
def test_levels_that_cannot_be_climbed_are_refused(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        ExplorationSettings(**fields)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_asking_again_makes_calls_at_every_level() -> None:
    settings = ExplorationSettings(hint_level=0, hint_max_level=2, hint_leak_policy="ask_again", hint_retries=2)
    assert settings.hint_calls_per_level == 3


def _hints(*levels: int, **texts: str) -> list[Hint]:
    return [Hint(texts.get(f"t{place}", f"{place}"), level=level) for place, level in enumerate(levels)]


@pytest.mark.parametrize(
    ("hints", "used"),
    [
        (_hints(0, 1, 2), ["0", "0", "1", "1", "2", "2"]),
        (_hints(0, 0, 1, 2, 2), ["0", "1", "2", "2", "3", "4"]),
        (_hints(1), [None, None, "0", "0", "0", "0"]),
        (_hints(2), [None, None, None, None, "0", "0"]),
        # Level 1 has none that can be used: its attempts go on with the next hints of level 0.
        (_hints(0, 0, 0, 1, 2, t3=""), ["0", "1", "2", "0", "4", "4"]),
        ([], [None] * 6),
    ],
)
def test_the_highest_level_that_is_reached_and_has_hints_in_turn(hints: Sequence[Hint], used: list[str | None]) -> None:
    levels = (0, 0, 1, 1, 2, 2)
    found = [hint_of_attempt(hints, levels, attempt) for attempt in range(1, 7)]
    assert [None if hint is None else hint.text for hint in found] == used


def _by_level(conversation: Conversation) -> str:
    """A teacher whose hint says its level."""
    text = prompt_text(conversation)
    return f"<hint>rung {next(level for level, wish in enumerate(HINT_LEVELS) if wish in text)}</hint>"


def test_a_group_climbs_until_a_level_works_and_the_stronger_ones_are_not_asked_for(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["wrong", "wrong", "right 1", "right 2"], "q2?": ["right 1", "right 2"]})
    teacher = ScriptedTeacher(_by_level)
    explorer = Explorer(ExplorationSettings(hint_level=0, hint_max_level=2, exploration_attempts=3), teacher)
    first, second = explorer.explore([group("q1"), group("q2")], script.sample, script.verify)
    assert teacher.hint_calls == [2, 1, 0]  # at level 1 only q1 is left, at level 2 nobody
    assert [kept.hint.level for kept in first.kept if kept.hint] == [1, 1]
    assert [kept.hint.level for kept in second.kept if kept.hint] == [0, 0]
    assert [hint.level for hint in first.hints] == [0, 1]
    assert (first.levels_asked, second.levels_asked) == (2, 1)
    shown = [prompt_text(prompt) for call in script.calls for prompt in call if "q1?" in prompt_text(prompt)]
    assert [text.split("rung ")[1][0] for text in shown] == ["0", "0", "1", "1"]


def test_a_group_waits_without_sampling_for_the_first_level_that_has_a_hint(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1", "right 2"]})

    def only_strong(conversation: Conversation) -> str:
        return _by_level(conversation) if HINT_LEVELS[2] in prompt_text(conversation) else "<hint>It is B.</hint>"

    explorer = Explorer(
        ExplorationSettings(hint_level=0, hint_max_level=2, exploration_attempts=3, hint_leak_policy="reject"),
        ScriptedTeacher(only_strong),
    )
    (rescue,) = explorer.explore([group()], script.sample, script.verify)
    assert [len(prompts) for prompts in script.calls] == [0, 0, 2]
    assert (rescue.attempts, rescue.kept[0].attempt, rescue.leaked_hints) == (1, 3, 2)


@pytest.mark.parametrize("leak_policy", ["reject", "ask_again"])
def test_a_process_without_groups_makes_the_same_calls(
    leak_policy: str, group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    settings = ExplorationSettings(
        hint_level=0, hint_max_level=2, exploration_attempts=4, hint_leak_policy=leak_policy, hint_retries=1
    )
    for groups, script in [
        ([], policy()),
        ([group()], policy()),
        ([group()], policy({"q1?": ["right 1", "right 2"]})),
        ([group(answer=None)], policy()),
    ]:
        teacher = ScriptedTeacher("<hint>It is B.</hint>")
        Explorer(settings, teacher).explore(groups, script.sample, script.verify)
        assert len(teacher.hint_calls) == settings.hint_calls_per_level * 3 == (6 if leak_policy == "ask_again" else 3)
        assert len(script.calls) == 4


def test_several_hints_of_one_level_are_used_in_turn(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    class Three(HintSource):
        early = False

        def begin(self, groups: Sequence[Group], level: int) -> HintAnswers:
            return lambda: [tuple(Hint(f"way {i}", level=level) for i in range(3)) for _ in groups]

    script = policy()
    Explorer(ExplorationSettings(exploration_attempts=4), hint_source=Three()).explore(
        [group()], script.sample, script.verify
    )
    first_of_each = [prompt_text(call[0]).split("way ")[1][0] for call in script.calls]
    assert first_of_each == ["0", "1", "2", "0"]


def test_the_control_does_not_climb(group: Callable[..., Group]) -> None:
    asked: list[Prompt] = []

    def sample(prompts: Sequence[Prompt], /) -> list[Sample]:
        asked.extend(prompts)
        return [Sample((1,), "wrong") for _ in prompts]

    settings = ExplorationSettings(
        exploration="resample", hint_level=0, hint_max_level=2, exploration_attempts=3, exploration_surplus=0.0
    )
    one = group()
    Explorer(settings, ScriptedTeacher("x")).explore([one], sample, lambda groups, samples: [False] * len(samples))
    assert asked == [one.prompt] * 6
