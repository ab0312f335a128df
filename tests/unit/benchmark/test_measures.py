"""What the results say about luck and about runs that training did not help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kepo.benchmark.measures import reasoning_section, stability_section
from kepo.reports.study import Arm, EvaluationData, RunData, Study
from kepo.runs import Run


def _study(metrics: list[list[dict[str, Any]]], rows: list[dict[str, Any]]) -> Study:
    """One trained arm whose runs logged `metrics` and answered `rows`."""
    described = {
        "consistent": None,
        "formatted": True,
        "teacher_logp": None,
        "tokens": 9,
        "permutation": 0,
        "sample": 0,
    }
    described |= {"id": "q", "answer": "A", "options": ["a", "b"], "predicted": "A", "finished": True}
    table = pa.Table.from_pylist([{**described, **row, "id": str(place)} for place, row in enumerate(rows)])
    evaluation = EvaluationData(Path("test.parquet"), table, {}, "")
    runs = tuple(
        RunData(Run(Path(), {"config": {"training": {}}}), str(place), "kepo", str(place), tuple(logged), evaluation)
        for place, logged in enumerate(metrics)
    )
    return Study("", "", (Arm("kepo", "KEPO", runs),), None, "test")


def _cells(section: str) -> list[str]:
    return [cell.strip() for cell in section.strip().splitlines()[-1].strip("|").split("|")]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(True, 3, 2), (True, 3, 3), (True, 0, 0), (True, 2, 2), (False, 3, 0)], "25.0"),  # one of four right ones
        ([(False, 3, 0)], "-"),
    ],
)
def test_a_right_answer_after_a_false_statement_is_luck(rows: list[tuple[bool, int, int]], expected: str) -> None:
    names = ("correct", "statements", "true_statements")
    study = _study([[{"step": 1}]], [dict(zip(names, row, strict=True)) for row in rows])
    assert _cells(reasoning_section(study))[-1] == expected


def test_runs_that_were_never_above_their_start_are_counted() -> None:
    def run(best: int | None) -> list[dict[str, Any]]:
        end = [] if best is None else [{"step": 4, "validation/best_step": best}]
        return [{"step": 0, "validation/in_domain": 0.5}, *end]

    row = {"correct": True, "statements": 0, "true_statements": 0}
    assert _cells(stability_section(_study([run(0), run(4), run(0), run(None)], [row])))[-1] == "2 of 4"
