"""The harness of the benchmarks: turns, medians, and what a report holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.side_by_side import Report, Spread, Table, arguments, conditions, interleave, ratio


def _clock(*moments: float) -> Callable[[], float]:
    return iter(moments).__next__


def test_arms_take_turns_and_the_warmup_does_not_count() -> None:
    order: list[str] = []
    samples = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, warmup=1)
    assert order == ["a", "b"] * 3
    assert [len(one["seconds"]) for one in samples.values()] == [2, 2]


def test_seconds_are_those_of_the_turn_and_metrics_stand_beside_them() -> None:
    # Begin, begin of the round, then begin and end of each turn, end of the round.
    clock = _clock(0, 0, 10, 13, 20, 27, 27)
    samples = interleave({"a": lambda: {"tokens": 5.0}, "b": lambda: None}, rounds=1, warmup=0, clock=clock)
    assert samples == {"a": {"seconds": [3], "tokens": [5.0]}, "b": {"seconds": [7]}}


@pytest.mark.parametrize(("budget", "rounds"), [(None, 4), (25.0, 2), (1.0, 1)])
def test_a_budget_ends_the_rounds_but_leaves_one(budget: float | None, rounds: int) -> None:
    """Each round takes 10 seconds; a third would end at 30."""
    now = [0.0]

    def turn() -> None:
        now[0] += 10

    samples = interleave({"a": turn}, rounds=4, warmup=0, budget=budget, clock=lambda: now[0])
    assert samples["a"]["seconds"] == [10.0] * rounds


def test_ratios_are_taken_round_by_round() -> None:
    """The machine is twice as slow in the second round, for both: the ratio stays 0.5. In the third it is 0.8."""
    assert ratio([1.0, 2.0, 4.0], [2.0, 4.0, 5.0]) == Spread(median=0.5, low=0.5, high=0.8)
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [2.0, 4.0])


def test_a_report_says_the_same_as_markdown_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("Seconds", ["arm", "s", "of a", "note"], [["a", Spread(1.0, 0.5, 2.0), 0.25, None]], note="Of one.")
    report = Report("example", {"tokens": 12}, [table], {"part": {"a": {"seconds": [0.5, 1.0, 2.0]}}}, {"threads": 2})
    report.write(tmp_path / "new" / "report.json")
    shown = capsys.readouterr().out
    assert "threads 2." in shown
    assert "tokens 12." in shown
    assert shown.endswith(
        "### Seconds\n\nOf one.\n\n| arm | s | of a | note |\n| --- | --- | --- | --- |\n"
        "| a | 1.00 (0.50-2.00) | 0.25 |  |\n"
    )
    assert (tmp_path / "new" / "report.md").read_text() == shown
    written = json.loads((tmp_path / "new" / "report.json").read_text())
    assert written.keys() == {"benchmark", "conditions", "settings", "tables", "samples"}
    assert written["tables"][0]["rows"] == [["a", {"median": 1.0, "min": 0.5, "max": 2.0}, 0.25, None]]
    assert written["samples"]["part"]["a"]["seconds"] == [0.5, 1.0, 2.0]


def test_conditions_name_threads_and_versions() -> None:
    assert {"processor", "cores", "threads", "Python", "kepo", "torch", "trl", "transformers"} <= conditions().keys()


def test_every_benchmark_takes_quick_and_json() -> None:
    given = arguments("What it measures.").parse_args(["--quick", "--json", "out.json"])
    assert (given.quick, given.json) == (True, Path("out.json"))
