"""Rejection for one group: what is kept, what it still asks for, what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kepo.exploration.budget import Belief
from kepo.exploration.rejection import Progress
from kepo.exploration.settings import ExplorationSettings
from kepo.types import Group, Hint, Outcomes, Sample

HINT = Hint(text="look at the rim")
MISSING = ExplorationSettings(exploration_surplus=0.0)


def _texts(progress: Progress) -> list[str]:
    return [kept.sample.text for kept in progress.kept]


def test_only_correct_samples_are_kept_and_all_are_counted(sample_of: Callable[[str], Sample]) -> None:
    start = Progress(target=2, group_size=8, prompt="p", hint=HINT)
    assert start.next_samples(MISSING) == 2
    first = start.after(1, [sample_of("wrong"), sample_of("right")], [False, True])
    assert _texts(first) == ["right"]
    assert first.sampled_tokens == 5 + 5
    assert first.next_samples(MISSING) == 1
    second = first.after(2, [sample_of("right 2")], [True])
    assert _texts(second) == ["right", "right 2"]
    assert second.sampled_tokens == 10 + 7
    assert second.attempts == 2
    assert second.next_samples(MISSING) == 0
    assert [(kept.attempt, kept.hint, kept.prompt) for kept in second.kept] == [(1, HINT, "p"), (2, HINT, "p")]


def test_never_more_than_the_target(sample_of: Callable[[str], Sample]) -> None:
    progress = Progress(target=1, group_size=8, prompt="p").after(
        1, [sample_of("right 1"), sample_of("right 2")], [True, True]
    )
    assert _texts(progress) == ["right 1"]
    assert progress.sampled_tokens == 14


@pytest.mark.parametrize(("samples_per_attempt", "expected"), [(None, 1), (4, 4)])
def test_samples_of_the_next_attempt(
    samples_per_attempt: int | None, expected: int, sample_of: Callable[[str], Sample]
) -> None:
    progress = Progress(target=2, group_size=8, prompt="p").after(1, [sample_of("right")], [True])
    settings = replace(MISSING, exploration_samples_per_attempt=samples_per_attempt)
    assert progress.next_samples(settings) == expected


def test_what_came_of_earlier_samples_decides_how_many_are_next(sample_of: Callable[[str], Sample]) -> None:
    settings = ExplorationSettings()
    start = Progress(target=2, group_size=8, prompt="p", hint=HINT)
    failed = start.after(1, [sample_of("wrong")] * 6, [False] * 6)
    assert failed.outcomes == {0: Outcomes(0, 6)}
    assert failed.next_samples(settings) > start.next_samples(settings) == 2
    # What another hint's level failed at is not held against this one's.
    assert failed.under("q", replace(HINT, level=1)).next_samples(settings) == 2
    # 32 samples are all that two rollouts may cost; after these it goes on with what is missing.
    spent = start.after(1, [sample_of("wrong")] * 31, [False] * 31)
    assert spent.next_samples(replace(settings, exploration_max_cost=1000)) > 2
    assert spent.next_samples(settings) == 2
    # An attempt is never larger than the group was.
    assert failed.next_samples(settings) > replace(failed, group_size=4).next_samples(settings) == 4


def test_what_is_known_of_a_group_counts_at_its_level(sample_of: Callable[[str], Sample]) -> None:
    rare = Belief().after(Outcomes(2, 20))
    progress = Progress(target=2, group_size=8, prompt="p", hint=HINT)
    assert progress.next_samples(ExplorationSettings(), {0: rare, 1: Belief()}.__getitem__) > 2
    assert progress.next_samples(ExplorationSettings(), {0: Belief(), 1: rare}.__getitem__) == 2


def test_all_correct_samples_are_outcomes_and_those_cut_off_are_not_correct(sample_of: Callable[[str], Sample]) -> None:
    samples = [
        sample_of("right"),
        sample_of("right"),
        replace(sample_of("right 2"), finished=False),
        sample_of("wrong"),
    ]
    progress = Progress(target=1, group_size=8, prompt="p").after(1, samples, [True, True, True, False])
    assert progress.outcomes == {None: Outcomes(2, 4)}


@pytest.mark.parametrize("samples_per_attempt", [None, 4])
def test_nothing_is_sampled_without_a_prompt_or_without_a_need(samples_per_attempt: int | None) -> None:
    settings = ExplorationSettings(exploration_samples_per_attempt=samples_per_attempt)
    assert Progress(target=2, group_size=8, prompt=None).next_samples(settings) == 0
    assert Progress(target=0, group_size=8, prompt="p").next_samples(settings) == 0


def test_an_attempt_without_samples_is_not_counted() -> None:
    progress = Progress(target=2, group_size=8, prompt="p")
    assert progress.after(1, [], []) == progress


def test_a_repeated_sample_is_put_aside_while_a_different_one_may_come(
    group: Callable[..., Group], sample_of: Callable[[str], Sample]
) -> None:
    progress = Progress(target=2, group_size=8, prompt="p").after(
        1, [sample_of("right"), sample_of("right")], [True, True]
    )
    assert _texts(progress) == ["right"]
    assert progress.next_samples(MISSING) == 1
    found = progress.after(2, [sample_of("right again")], [True])
    assert [kept.sample.text for kept in found.rescue(group()).kept] == ["right", "right again"]


def test_a_repeated_sample_fills_up_when_no_different_one_came(
    group: Callable[..., Group], sample_of: Callable[[str], Sample]
) -> None:
    progress = Progress(target=2, group_size=8, prompt="p").after(1, [sample_of("right")] * 3, [True] * 3)
    rescue = progress.after(2, [sample_of("wrong")], [False]).rescue(group())
    assert [kept.sample.text for kept in rescue.kept] == ["right", "right"]
    assert rescue.slots == (0, 1)


def test_rescue_tells_what_happened(group: Callable[..., Group], sample_of: Callable[[str], Sample]) -> None:
    progress = Progress(target=2, group_size=8, prompt="p", hint=HINT).after(
        1, [sample_of("right"), sample_of("no")], [True, False]
    )
    leaked = Hint(text="", leaks=("letter",), raw="it is B")
    rescue = progress.given((leaked, HINT)).rescue(group(correct=(True, False, False, False)))
    assert (rescue.key, rescue.slots, rescue.attempts, rescue.sampled_tokens) == ("q1", (1,), 1, 7)
    assert rescue.hints == (leaked, HINT)
    assert rescue.leaked_hints == 1
    assert rescue.failure is None


@pytest.mark.parametrize(
    ("progress", "failure"),
    [
        (Progress(target=2, group_size=8, prompt=None), "no hint"),
        (Progress(target=2, group_size=8, prompt="p"), "no correct sample"),
        (Progress(target=0, group_size=8, prompt="p"), "no failed rollout"),
    ],
)
def test_why_nothing_was_kept(progress: Progress, failure: str, group: Callable[..., Group]) -> None:
    rescue = progress.rescue(group())
    assert rescue.failure == failure
    assert rescue.kept == ()
    assert rescue.slots == ()


def test_a_sample_that_was_cut_off_is_never_kept_and_is_counted(sample_of: Callable[[str], Sample]) -> None:
    cut = replace(sample_of("right"), finished=False)
    progress = Progress(target=1, group_size=8, prompt="p").after(1, [cut], [True])
    assert (progress.kept, progress.pending, progress.truncated_samples) == ((), True, 1)
    progress = progress.after(2, [cut, sample_of("right")], [True, True])
    assert [kept.sample.finished for kept in progress.kept] == [True]
    assert (progress.finished_samples, progress.truncated_samples, progress.sampled_tokens) == (1, 2, 15)


def test_tokens_of_tools_are_not_sampled(sample_of: Callable[[str], Sample]) -> None:
    sample = replace(sample_of("right"), tool_mask=(1, 0, 0, 0, 1))
    assert Progress(target=1, group_size=8, prompt="p").after(1, [sample], [True]).sampled_tokens == 2
