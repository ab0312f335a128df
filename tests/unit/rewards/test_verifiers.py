"""Rewards that ask an optional package; skipped where it is not installed, except for what is said then."""

from __future__ import annotations

import json
import sys

import pytest

from kepo.errors import DataError, MissingExtraError
from kepo.rewards import math_accuracy, reasoning_gym_score
from kepo.rewards.verifiers import decode_metadata


@pytest.mark.parametrize(
    ("module", "call", "says"),
    [
        ("math_verify", lambda: math_accuracy(["1"], ["1"]), r"math-verify.*pip install 'kepo\[math\]'"),
        (
            "reasoning_gym",
            lambda: reasoning_gym_score(["1"], ["1"], [{"source_dataset": "gcd"}]),
            r"reasoning-gym.*pip install 'kepo\[reasoning\]'",
        ),
    ],
)
def test_a_missing_extra_says_how_to_install_it(module: str, call, says: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=says):
        call()


def test_reasoning_gym_score() -> None:
    pytest.importorskip("reasoning_gym")
    record = {"source_dataset": "gcd", "source_index": 0}
    rewards = reasoning_gym_score(
        ["<answer>6</answer>", "<answer>7</answer>", "6", [{"role": "assistant", "content": "<answer>6</answer>"}]],
        ["6"] * 4,
        [record, json.dumps(record), record, json.dumps(record)],
        question=["?"] * 4,
    )
    assert rewards == [1.0, 0.0, 0.0, 1.0]


def test_an_answer_that_makes_the_verifier_fail_is_wrong() -> None:
    pytest.importorskip("reasoning_gym")
    rewards = reasoning_gym_score(["<answer>-1.5e400</answer>"], ["2 x 3"], [{"source_dataset": "prime_factorization"}])
    assert rewards == [0.0]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({}, "row 0 of the batch, field 'metadata': it has no 'source_dataset'"),
        ({"source_dataset": "no_such_task"}, "has no task 'no_such_task'"),
    ],
)
def test_metadata_that_names_no_task(record: dict[str, str], says: str) -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(DataError, match=says):
        reasoning_gym_score(["<answer>1</answer>"], ["1"], [record])


def test_decode_metadata() -> None:
    written = {"a": {"__tuple__": [1, {"__tuple__": []}]}, "b": {"__items__": [[1, "x"]]}, "c": [{"d": None}]}
    assert decode_metadata(written) == {"a": (1, ()), "b": {1: "x"}, "c": [{"d": None}]}
