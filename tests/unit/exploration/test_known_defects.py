"""One test per defect of the method's first public implementation; each name says what the old code did.

Every test states the situation in which the old behaviour and the right one differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kepo.exploration import ExplorationSettings, Explorer, needs_exploration
from kepo.exploration.hints import parse_hint
from kepo.exploration.injection import choose_slots
from kepo.prompts import prompt_text
from kepo.teachers.scripted import ScriptedTeacher
from kepo.types import Group

HINT = "<hint>Look at the rim.</hint>"


def _explore(groups: list[Group], script: Any, hints: Any = HINT, **fields: Any) -> list[Any]:
    return Explorer(ExplorationSettings(**fields), ScriptedTeacher(hints)).explore(groups, script.sample, script.verify)


def test_old_code_never_explored_again_once_the_format_was_learned(group: Callable[..., Group]) -> None:
    well_formed_but_wrong = group(correct=(False,) * 4, rewards=(1.0,) * 4)
    assert needs_exploration(well_formed_but_wrong, ExplorationSettings(exploration_trigger="all_failed"))


def test_old_code_lost_all_kept_samples_when_one_prompt_of_the_batch_failed(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1", "right 2"]})  # q2 never finds anything
    found, lost = _explore([group("q1"), group("q2")], script)
    assert [kept.sample.text for kept in found.kept] == ["right 1", "right 2"]
    assert lost.kept == ()
    assert lost.failure == "no correct sample"


def test_old_code_overwrote_rollouts_of_groups_that_were_already_solved(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1", "right 2"], "q2?": ["right 1", "right 2"]})
    solved = group("q1", correct=(True,) * 4)
    half = group("q2", correct=(True, False, True, False))
    assert not needs_exploration(solved, ExplorationSettings())
    first, second = _explore([solved, half], script, exploration_trigger="always")
    assert first.slots == ()
    assert second.slots == (1, 3), "a rollout that is right may not be replaced"


@pytest.mark.parametrize("size", range(2, 10))
def test_old_code_drew_slots_with_replacement_so_that_two_samples_landed_in_one(size: int) -> None:
    # Drawing 2 of G with replacement collides in 1 of G draws; all of G at once, practically always.
    for count in range(1, size + 1):
        slots = choose_slots((False,) * size, count)
        assert len(set(slots)) == len(slots) == count
        assert set(slots) <= set(range(size))


@pytest.mark.parametrize(
    "raw",
    ["<hint>Look at\nthe rim.\n</hint>", "Look at\nthe rim.", "<hint>Look at\nthe rim.", "Look at\nthe rim.</hint>"],
)
def test_old_code_crashed_on_a_hint_over_several_lines_or_without_its_tags(
    raw: str, group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1", "right 2"]})
    assert parse_hint(raw) == "Look at\nthe rim."
    (rescue,) = _explore([group()], script, hints=raw)
    assert len(rescue.kept) == 2
    assert "Look at\nthe rim." in prompt_text(script.calls[0][0])


def test_old_code_crashed_on_no_hint_at_all(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    script = policy({"q2?": ["right 1", "right 2"]})
    groups = [group("q1"), group("q2")]
    first, second = _explore(groups, script, hints={"q2?": HINT})
    assert first.failure == "no hint"
    assert len(second.kept) == 2


@pytest.mark.parametrize("text", ["{question}", "{0} {{x}}", "100% %s", r"\1 \frac{1}{2}", "<image> {", "}"])
def test_old_code_crashed_on_a_brace_in_question_or_hint(
    text: str, group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1", "right 2"]})
    one = group(prompt=[{"role": "user", "content": f"q1? {text}"}])
    (rescue,) = _explore([one], script, hints=f"<hint>Look at {text} first.</hint>")
    assert len(rescue.kept) == 2
    asked = prompt_text(script.calls[0][0])
    assert f"q1? {text}" in asked
    assert f"Look at {text} first." in asked
    assert one.prompt == [{"role": "user", "content": f"q1? {text}"}], "the original prompt is trained on unchanged"


@pytest.mark.parametrize(
    "prompt",
    [
        "q1? as plain text",
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q1?"}],
        [{"role": "user", "content": [{"type": "image", "image": None}, {"type": "text", "text": "q1?"}]}],
        [{"role": "system", "content": "q1?"}],
    ],
)
def test_old_code_left_a_prompt_of_another_shape_silently_without_its_hint(
    prompt: Any, group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy()
    _explore([group(prompt=prompt)], script, exploration_attempts=1)
    assert len(script.calls[0]) == 2
    assert all("Look at the rim." in prompt_text(asked) for asked in script.calls[0])


def test_old_code_showed_the_ground_truth_to_the_student(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy()
    teacher = ScriptedTeacher(HINT)
    explorer = Explorer(ExplorationSettings(), teacher)
    explorer.explore([group(options=("Cyst", "Melanoma"))], script.sample, script.verify)
    assert "B) Melanoma" in prompt_text(teacher.hint_conversations[0]), "the teacher is told"
    for prompt in (prompt for call in script.calls for prompt in call):
        assert "Melanoma" not in prompt_text(prompt), "the student is not"
        assert "answer" not in prompt_text(prompt)
