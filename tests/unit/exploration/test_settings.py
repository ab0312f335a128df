"""Settings that cannot work are refused when they are made, with a sentence that says what to change."""

from __future__ import annotations

from typing import Any

import pytest

from kepo.errors import ConfigError
from kepo.exploration import ExplorationSettings


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"exploration": "hints"}, ["exploration", "'hints'", "resample"]),
        ({"exploration_trigger": "never"}, ["exploration_trigger", "'never'", "mean_below"]),
        ({"hint_leak_policy": "ignore"}, ["hint_leak_policy", "'ignore'", "ask_again"]),
        ({"num_injected": 0}, ["num_injected", "0", "at least 1"]),
        ({"exploration_attempts": 0}, ["exploration_attempts", "0", "at least 1"]),
        ({"exploration_attempts": 2.5}, ["exploration_attempts", "2.5", "whole number"]),
        ({"exploration_attempts": True}, ["exploration_attempts", "True", "whole number"]),
        ({"exploration_samples_per_attempt": 0}, ["exploration_samples_per_attempt", "0", "at least 1"]),
        ({"hint_retries": -1}, ["hint_retries", "-1", "at least 0"]),
        ({"hint_level": 3}, ["hint_level", "3", "to 2"]),
        ({"hint_level": -1}, ["hint_level", "-1"]),
        ({"exploration_trigger_mean": float("nan")}, ["exploration_trigger_mean", "nan", "finite"]),
    ],
)
def test_a_setting_that_cannot_work_is_refused(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        ExplorationSettings(**fields)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_more_injected_rollouts_than_the_group_has_are_refused() -> None:
    settings = ExplorationSettings(num_injected=4)
    settings.check_group_size(4)
    with pytest.raises(ConfigError, match=r"num_injected is 4 .* 3 rollouts .* at most 3"):
        settings.check_group_size(3)


def test_the_group_size_does_not_matter_without_exploration() -> None:
    ExplorationSettings(exploration="none", num_injected=4).check_group_size(2)


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"hint_leak_policy": "reject"}, 1),
        ({"hint_leak_policy": "allow"}, 1),
        ({"hint_leak_policy": "strip"}, 1),
        ({"hint_leak_policy": "ask_again", "hint_retries": 2}, 3),
        ({"hint_leak_policy": "ask_again", "hint_retries": 0}, 1),
        ({"hint_leak_policy": "ask_again", "exploration": "resample"}, 0),
    ],
)
def test_number_of_hint_calls(fields: dict[str, Any], calls: int) -> None:
    assert ExplorationSettings(**fields).hint_calls == calls
