"""The whole exploration with a scripted teacher and a scripted policy: calls, budgets, early stops, records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kepo.errors import ConfigError, KepoError
from kepo.exploration import ExplorationSettings, Explorer
from kepo.prompts import hinted_prompt, prompt_text
from kepo.teachers.scripted import ScriptedTeacher
from kepo.types import Group, Hint, Prompt, Sample

HINT = "<hint>Look at the rim.</hint>"
LEAK = "<hint>Look at the rim. It is B, malignant.</hint>"


def _explorer(hints: Any = HINT, **fields: Any) -> Explorer:
    return Explorer(_settings(**fields), ScriptedTeacher(hints))


def _settings(**fields: Any) -> ExplorationSettings:
    """As many samples as are missing, unless `fields` say something else."""
    return ExplorationSettings(**{"exploration_surplus": 0.0, **fields})


def test_an_all_failed_group_is_rescued(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    script = policy({"q1?": ["wrong", "right 1", "right 2"]})
    one = group()
    (rescue,) = _explorer().explore([one], script.sample, script.verify)
    assert rescue.failure is None
    assert [kept.sample.text for kept in rescue.kept] == ["right 1", "right 2"]
    assert [kept.attempt for kept in rescue.kept] == [1, 2]
    assert rescue.slots == (0, 1)
    assert rescue.attempts == 2
    assert rescue.sampled_tokens == 5 + 7 + 7
    assert rescue.hints == (Hint("Look at the rim.", level=1, leaks=(), written="Look at the rim.", raw=HINT),)
    assert rescue.leaked_hints == 0
    assert all(kept.hint == rescue.hints[0] for kept in rescue.kept)
    assert all(kept.prompt == hinted_prompt(one.prompt, "Look at the rim.") for kept in rescue.kept)


def test_a_group_stops_early_and_the_calls_go_on(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    script = policy({"q1?": ["right 1", "right 2"], "q2?": ["wrong", "wrong", "right 1"]})
    first, second = _explorer(exploration_attempts=4).explore([group("q1"), group("q2")], script.sample, script.verify)
    # Attempt 1: both groups miss two. Attempts 2 to 4: only q2 asks, for two, two, and then one.
    assert [len(prompts) for prompts in script.calls] == [4, 2, 1, 1]
    assert (first.attempts, second.attempts) == (1, 4)
    assert first.sampled_tokens == 7 + 7
    assert second.sampled_tokens == 5 + 5 + 7 + 5 + 5 + 5
    assert len(second.kept) == 1
    assert [prompt_text(prompt).count("q2?") for prompt in script.calls[1]] == [1, 1]


def test_all_pending_groups_share_one_call_and_the_verifier_is_told_whose_sample_is_whose(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["a", "b"], "q2?": ["c", "d"]})
    _explorer(exploration_attempts=1).explore([group("q1"), group("q2")], script.sample, script.verify)
    assert script.verified == [(["q1", "q1", "q2", "q2"], ["a", "b", "c", "d"])]


@pytest.mark.parametrize("mode", ["hint", "resample"])
@pytest.mark.parametrize(("leak_policy", "hint_calls"), [("reject", 1), ("ask_again", 3)])
def test_a_process_without_groups_makes_the_same_calls(
    mode: str, leak_policy: str, hint_calls: int, group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    settings = ExplorationSettings(exploration=mode, hint_leak_policy=leak_policy, exploration_attempts=3)
    for groups, script in [
        ([], policy()),
        ([group()], policy()),
        ([group()], policy({"q1?": ["right 1", "right 2"]})),
        ([group(answer=None)], policy()),
        ([group(correct=(True, True))], policy()),
    ]:
        teacher = ScriptedTeacher(LEAK if leak_policy == "ask_again" else HINT)
        rescues = Explorer(settings, teacher).explore(groups, script.sample, script.verify)
        assert len(rescues) == len(groups)
        assert len(script.calls) == 3
        assert len(teacher.hint_calls) == (hint_calls if mode == "hint" else 0)


def test_the_control_spends_the_same_budget_without_a_hint(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    groups = [group("q1"), group("q2")]
    hinted, plain = policy(), policy()
    teacher = ScriptedTeacher(HINT)
    hint_rescues = _explorer().explore(groups, hinted.sample, hinted.verify)
    settings = _settings(exploration="resample")
    plain_rescues = Explorer(settings, teacher).explore(groups, plain.sample, plain.verify)
    assert [len(prompts) for prompts in hinted.calls] == [len(prompts) for prompts in plain.calls] == [4] * 5
    for hint_rescue, plain_rescue in zip(hint_rescues, plain_rescues, strict=True):
        assert hint_rescue.sampled_tokens == plain_rescue.sampled_tokens == 5 * 2 * 5
        assert hint_rescue.attempts == plain_rescue.attempts == 5
        assert hint_rescue.failure == plain_rescue.failure == "no correct sample"
    assert plain.calls[0] == [groups[0].prompt] * 2 + [groups[1].prompt] * 2
    assert teacher.hint_calls == []


def test_the_control_keeps_what_it_finds_without_a_hint(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1", "right 2"]})
    one = group(answer=None)  # the control needs no ground truth to write a hint from
    (rescue,) = Explorer(ExplorationSettings(exploration="resample")).explore([one], script.sample, script.verify)
    assert [(kept.hint, kept.prompt) for kept in rescue.kept] == [(None, one.prompt)] * 2
    assert rescue.hints == ()


def test_samples_per_attempt(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    script = policy({"q1?": ["wrong", "right 1", "wrong", "right 2", "right 3", "right 4"]})
    (rescue,) = _explorer(exploration_samples_per_attempt=3, exploration_attempts=3).explore(
        [group()], script.sample, script.verify
    )
    assert [len(prompts) for prompts in script.calls] == [3, 3, 0]
    assert [kept.sample.text for kept in rescue.kept] == ["right 1", "right 2"]
    assert rescue.sampled_tokens == 5 + 7 + 5 + 3 * 7


def test_no_more_is_asked_for_than_there_are_failed_rollouts(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1", "right 2"]})
    one = group(correct=(True, True, False))
    (rescue,) = _explorer(exploration_trigger="always").explore([one], script.sample, script.verify)
    assert [len(prompts) for prompts in script.calls] == [1, 0, 0, 0, 0]
    assert rescue.slots == (2,)


def test_a_group_without_failed_rollout_is_left_alone(group: Callable[..., Group], policy: Callable[..., Any]) -> None:
    script, teacher = policy(), ScriptedTeacher(HINT)
    explorer = Explorer(ExplorationSettings(exploration_trigger="always"), teacher)
    rescues = explorer.explore([group("q1", correct=(True, True)), group("q2")], script.sample, script.verify)
    assert [rescue.failure for rescue in rescues] == ["no failed rollout", "no correct sample"]
    assert teacher.hint_calls == [1]
    assert "q2?" in prompt_text(teacher.hint_conversations[0])


def test_two_groups_of_the_same_question_are_kept_apart(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1", "right 2", "right 3", "wrong"]})
    first, second = _explorer(exploration_attempts=1).explore([group(), group()], script.sample, script.verify)
    assert [kept.sample.text for kept in first.kept] == ["right 1", "right 2"]
    assert [kept.sample.text for kept in second.kept] == ["right 3"]


def test_a_group_without_hint_is_recorded_and_samples_nothing(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy()
    groups = [group("q1", answer=None), group("q2"), group("q3")]
    explorer = _explorer({"q2?": "", "q3?": HINT}, exploration_attempts=2)
    rescues = explorer.explore(groups, script.sample, script.verify)
    assert [rescue.failure for rescue in rescues] == ["no hint", "no hint", "no correct sample"]
    assert [rescue.attempts for rescue in rescues] == [0, 0, 2]
    assert [len(rescue.hints) for rescue in rescues] == [0, 1, 1]
    assert [len(prompts) for prompts in script.calls] == [2, 2]


@pytest.mark.parametrize(
    ("leak_policy", "shown", "leaked", "failure"),
    [
        ("allow", "Look at the rim. It is B, malignant.", 1, "no correct sample"),
        ("strip", "Look at the rim.", 1, "no correct sample"),
        ("ask_again", None, 3, "no hint"),
        ("reject", None, 1, "no hint"),
    ],
)
def test_leaks_are_counted_under_every_policy(
    leak_policy: str,
    shown: str | None,
    leaked: int,
    failure: str,
    group: Callable[..., Group],
    policy: Callable[..., Any],
) -> None:
    script = policy()
    one = group()
    (rescue,) = _explorer(LEAK, hint_leak_policy=leak_policy, exploration_attempts=1).explore(
        [one], script.sample, script.verify
    )
    assert rescue.leaked_hints == leaked
    assert all(hint.raw == LEAK for hint in rescue.hints)
    assert rescue.failure == failure
    assert script.calls == [[] if shown is None else [hinted_prompt(one.prompt, shown)] * 2]


@pytest.mark.parametrize("leak_policy", ["reject", "strip", "ask_again"])
@pytest.mark.parametrize(
    "hint",
    [
        "The answer is B.",
        "Option (b)",
        "It shows a malignant melanoma.",
        "Malignant\nMelanoma",
        "**B**",
        "<think>It is B, melanoma.</think>",
        "It is B, melanoma.</think>",
        "<think>It is B, melanoma",
    ],
)
def test_the_student_never_sees_the_ground_truth(
    leak_policy: str, hint: str, group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    one = group(options=("Cyst", "Malignant melanoma"))
    unseen = prompt_text(hinted_prompt(one.prompt, ""))
    for raw in (hint, f"<hint>{hint}</hint>", f"<hint>{hint} Look at the rim.</hint>"):
        script = policy()
        _explorer(raw, hint_leak_policy=leak_policy).explore([one], script.sample, script.verify)
        for prompt in (prompt for call in script.calls for prompt in call):
            added = prompt_text(prompt).replace(unseen, "").lower()
            assert "melanoma" not in added
            assert "answer" not in added
            assert "(b)" not in added
            assert "b*" not in added


def test_an_explorer_that_has_nothing_to_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="'none'"):
        Explorer(ExplorationSettings(exploration="none"))


def test_hints_without_a_writer_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"teacher.*'resample'"):
        Explorer(ExplorationSettings(exploration="hint"))
    Explorer(ExplorationSettings(exploration="resample"))


def test_a_sampler_or_verifier_that_loses_a_result_is_refused(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy()
    with pytest.raises(KepoError, match="sampler returned 1 results for 2"):
        _explorer().explore([group()], lambda prompts: script.sample(prompts)[:1], script.verify)
    with pytest.raises(KepoError, match="verifier returned 1 results for 2"):
        _explorer().explore([group()], script.sample, lambda groups, samples: [True])


def test_samples_that_were_cut_off_are_not_verified_and_the_group_goes_on(
    group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    script = policy({"q1?": ["right 1 cut", "right 2", "right 3 cut", "right 4"], "q2?": ["right cut"] * 6})

    def sample(prompts: Sequence[Prompt]) -> list[Sample]:
        return [replace(one, finished=not one.text.endswith("cut")) for one in script.sample(prompts)]

    first, second = _explorer(exploration_attempts=3).explore([group("q1"), group("q2")], sample, script.verify)
    assert [kept.sample.text for kept in first.kept] == ["right 2", "right 4"]
    assert (first.truncated_samples, first.failure) == (2, None)
    assert (second.kept, second.truncated_samples, second.failure) == ((), 6, "no finished sample")
    assert script.verified == [(["q1"], ["right 2"]), (["q1"], ["right 4"])]
