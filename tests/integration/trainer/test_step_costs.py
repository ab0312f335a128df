"""What a step costs is what benchmarks/counts.json says it costs. Counted, not timed."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from benchmarks.counts import Counts, as_json, count_everything, differences, explain, read_file, versions

COUNTS: Counts = {
    "text, kepo": {"teacher": {"tokens": 1000, "MFLOP": 50.0}, "forward": {"tokens": 2000, "MFLOP": 400.0}},
    "text, grpo": {"forward": {"tokens": 2000, "MFLOP": 400.0}},
}


@pytest.mark.slow
def test_a_step_costs_what_the_file_says() -> None:
    recorded, made_with = read_file()
    problem = explain(differences(count_everything(), recorded), made_with)
    assert not problem, problem


@pytest.mark.parametrize(("value", "change"), [(408.0, "+2.0%"), (392.0, "-2.0%")])
def test_a_phase_that_became_dearer_or_cheaper_is_named(value: float, change: str) -> None:
    now = deepcopy(COUNTS)
    now["text, kepo"]["forward"]["MFLOP"] = value
    assert differences(now, COUNTS) == [f"text, kepo, forward: {value} MFLOP, in the file 400.0 ({change})"]


def test_trifles_pass() -> None:
    now = deepcopy(COUNTS)
    now["text, kepo"]["forward"] = {"tokens": 2019, "MFLOP": 396.1}
    assert differences(now, COUNTS) == []
    assert explain([], versions()) == ""


def test_a_phase_that_is_new_or_gone_is_named() -> None:
    now = deepcopy(COUNTS)
    now["text, kepo"]["hints"] = now["text, kepo"].pop("teacher")
    assert differences(now, COUNTS) == [
        "text, kepo, teacher: in the file, but nothing was counted",
        "text, kepo, hints: new",
    ]


def test_other_versions_are_named() -> None:
    problem = explain([], {**versions(), "trl": "0.1"})
    assert f"trl {versions()['trl']} instead of 0.1" in problem
    assert "torch" not in problem
    assert "requirements/constraints.txt" in problem


def test_the_sentence_says_how_to_accept() -> None:
    problem = explain(["text, kepo, forward: ..."], versions())
    assert "  text, kepo, forward: ..." in problem
    assert "python -m benchmarks.counts --write" in problem
    assert "versions" not in problem


def test_the_file_is_read_as_it_was_written() -> None:
    text = json.loads(as_json(COUNTS))
    assert text.pop("versions") == versions()
    assert text == COUNTS
