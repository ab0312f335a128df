"""The gate: which rows, which tokens, and what NaN and empty completions do."""

from __future__ import annotations

import math

import pytest
import torch

from kepo.errors import ConfigError
from kepo.objective import GATE_MODES, first_error_mask, gate_weights, rows_to_score, trajectory_gate

NAN = float("nan")
# A right rollout, a wrong one, one that no reward function could score.
REWARDS = torch.tensor([1.0, 0.0, NAN])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("always", [True, True, True]),
        ("never", [False, False, False]),
        ("trajectory", [True, False, False]),
        ("token", [True, False, False]),
        ("inverted", [False, True, False]),
    ],
)
def test_rows_open_as_a_whole(mode: str, expected: list[bool]) -> None:
    assert trajectory_gate(REWARDS, 1.0, mode).tolist() == expected


def test_the_threshold_itself_is_open() -> None:
    rewards = torch.tensor([0.49, 0.5, 0.51])
    assert trajectory_gate(rewards, 0.5, "trajectory").tolist() == [False, True, True]
    assert trajectory_gate(rewards, 0.5, "inverted").tolist() == [True, False, False]


@pytest.mark.parametrize("mode", GATE_MODES)
def test_every_mode_survives_a_batch_of_nothing_but_unscorable_and_empty_rows(mode: str) -> None:
    mask = torch.tensor([[1, 1], [0, 0]])
    weights = gate_weights(mode, torch.tensor([NAN, NAN]), 1.0, mask, torch.full((2, 2), NAN))
    expected = [[1.0, 1.0], [0.0, 0.0]] if mode == "always" else [[0.0, 0.0], [0.0, 0.0]]
    assert weights.tolist() == expected
    assert rows_to_score(mode, torch.tensor([NAN, NAN]), 1.0, mask).tolist() == [mode == "always", False]


def test_an_unknown_mode_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="gate 'tokens' is unknown; use one of always, never, trajectory"):
        trajectory_gate(REWARDS, 1.0, "tokens")
    with pytest.raises(ConfigError, match="is unknown"):
        rows_to_score("tokens", REWARDS, 1.0, torch.ones(3, 1))


def test_the_first_error_is_kept_and_what_follows_is_not() -> None:
    probabilities = torch.tensor(
        [
            [0.9, 0.05, 0.9, 0.9],  # the second token is wrong
            [0.05, 0.9, 0.9, 0.9],  # the first one
            [0.9, 0.9, 0.9, 0.9],  # none
            [0.9, 0.9, 0.9, 0.05],  # the last one
        ]
    )
    kept = first_error_mask(probabilities.log(), torch.ones(4, 4), min_probability=0.1)
    assert kept.int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_padding_is_neither_an_error_nor_kept() -> None:
    logps = torch.tensor([[-9.0, -0.1, -9.0, -0.1, -9.0]])
    mask = torch.tensor([[0, 1, 1, 1, 0]])  # padded on the left and on the right
    assert first_error_mask(logps, mask, 0.1).int().tolist() == [[0, 1, 1, 0, 0]]


def test_a_probability_exactly_at_the_bound_is_no_error() -> None:
    logps = torch.tensor([[math.log(0.25), -0.1, math.log(0.24), -0.1]], dtype=torch.float64)
    assert first_error_mask(logps, torch.ones(1, 4), 0.25).int().tolist() == [[1, 1, 1, 0]]


def test_a_bound_of_zero_finds_no_error_even_at_probability_zero() -> None:
    logps = torch.tensor([[-math.inf, -0.1]])
    assert first_error_mask(logps, torch.ones(1, 2), 0.0).tolist() == [[True, True]]


def test_a_token_the_teacher_did_not_score_ends_the_row_before_itself() -> None:
    logps = torch.tensor([[-0.1, NAN, -0.1], [NAN, NAN, NAN]])
    assert first_error_mask(logps, torch.ones(2, 3), 0.1).int().tolist() == [[1, 0, 0], [0, 0, 0]]


def test_the_bound_is_a_probability() -> None:
    with pytest.raises(ConfigError, match=r"min_probability is -2\.3"):
        first_error_mask(torch.zeros(1, 1), torch.ones(1, 1), -2.3)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("always", [True, True, True, False]),
        ("never", [False, False, False, False]),
        ("trajectory", [True, False, False, False]),
        ("inverted", [False, True, False, False]),
        ("token", [True, True, False, False]),
    ],
)
def test_the_teacher_sees_only_rows_that_can_get_weight(mode: str, expected: list[bool]) -> None:
    rewards = torch.tensor([1.0, 0.0, NAN, 1.0])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 0]])
    assert rows_to_score(mode, rewards, 1.0, mask).tolist() == expected


@pytest.mark.parametrize("mode", GATE_MODES)
def test_no_row_gets_weight_that_the_teacher_was_not_shown(mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randint(0, 3, (64,), generator=generator) / 2.0
    rewards[::7] = NAN
    mask = torch.arange(5) < torch.randint(0, 6, (64, 1), generator=generator)
    shown = rows_to_score(mode, rewards, 0.5, mask)
    logps = torch.rand(64, 5, generator=generator).log().masked_fill(~shown.unsqueeze(-1), NAN)
    weights = gate_weights(mode, rewards, 0.5, mask, logps, 0.3)
    # Every shown row gets weight too: its first token is kept, be it an error or not.
    assert (weights.sum(-1) > 0).tolist() == shown.tolist()
    assert not weights[~mask].any()


def test_weights_of_whole_rows() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    weights = gate_weights("trajectory", REWARDS, 1.0, mask)
    assert weights.dtype == torch.float32
    assert weights.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert gate_weights("always", REWARDS, 1.0, mask).tolist() == mask.tolist()
    assert gate_weights("never", REWARDS, 1.0, mask).sum() == 0


def test_token_mode_opens_right_rows_whole_and_wrong_rows_up_to_their_error() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, NAN])
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]])  # the third has one token only
    probabilities = torch.tensor([[0.9, 0.01, 0.9], [0.9, 0.01, 0.9], [0.01, NAN, NAN], [0.9, 0.9, 0.9]])
    weights = gate_weights("token", rewards, 1.0, mask, probabilities.log(), min_probability=0.1)
    assert weights.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_token_mode_gives_no_weight_to_a_failed_row_that_was_not_scored() -> None:
    weights = gate_weights("token", torch.tensor([0.0]), 1.0, torch.ones(1, 3), torch.full((1, 3), NAN))
    assert weights.tolist() == [[0, 0, 0]]


def test_token_mode_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="gate 'token' needs the teacher's log-probabilities"):
        gate_weights("token", REWARDS, 1.0, torch.ones(3, 2))


@pytest.mark.parametrize("mode", GATE_MODES)
def test_completions_of_no_tokens_at_all(mode: str) -> None:
    weights = gate_weights(mode, REWARDS, 1.0, torch.ones(3, 0), torch.zeros(3, 0))
    assert weights.shape == (3, 0)
    assert not rows_to_score(mode, REWARDS, 1.0, torch.ones(3, 0)).any()
