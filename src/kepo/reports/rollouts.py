"""The rollout logs of a study, read once: what they say about reasoning, and the rollouts that are shown.

A study has too many rollouts to keep, so each run's log is read, counted and thinned out before the next is opened.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kepo.evaluation.reasoning import reasoning_text, statements
from kepo.reports.study import RunData, Study
from kepo.runs import is_correct, read_rollouts, rollout_files
from kepo.runs.rollouts import TEXTS

if TYPE_CHECKING:
    import pyarrow as pa

INJECTED, CORRECT, INCORRECT = "injected", "own, correct", "own, incorrect"
KINDS = (INJECTED, CORRECT, INCORRECT)
_MOST_READ = 3000
"""Rollouts of a run whose reasoning is read for facts: drawn evenly over its steps."""


@dataclass(slots=True)
class Truth:
    """Counts over the rollouts of one kind whose question has facts."""

    rollouts: int = 0
    stating: int = 0
    all_true: int = 0
    statements: int = 0
    true: int = 0

    def add(self, stated: int, true: int) -> None:
        """Count one more rollout with so many statements, so many of them true."""
        self.rollouts += 1
        self.statements += stated
        self.true += true
        self.stating += stated > 0
        self.all_true += 0 < stated == true


@dataclass(frozen=True, slots=True)
class Shown:
    """A rollout to show: its run, its row of the log, and whether it is correct."""

    run: RunData
    row: Mapping[str, Any]
    correct: bool | None


@dataclass(slots=True)
class RolloutData:
    """What was read from the rollout logs of a study."""

    truth: dict[tuple[str, str], Truth] = field(default_factory=dict)  # (arm, kind) -> counts of stated facts
    shown: list[Shown] = field(default_factory=list)  # the rollouts to show
    total: int = 0  # how many rollouts there are
    problems: list[str] = field(default_factory=list)  # what could not be read


def read_rollout_data(study: Study, most: int, progress: Callable[[str], None] = lambda _: None) -> RolloutData:
    """Read the rollout logs of all runs.

    Args:
        study: The study.
        most: How many rollouts to show at most.
        progress: Called with what is done next, run by run.

    Raises:
        DataError: A file of a rollout log is damaged.
    """
    data = RolloutData()
    logs = [run for run in study.runs if rollout_files(run.run.folder)]
    quota = 8 + 3 * most // max(len(logs), 1)
    candidates: list[Shown] = []
    older = 0
    for number, run in enumerate(logs, start=1):
        progress(f"reading rollouts, run {number} of {len(logs)}")
        table = read_rollouts(run.run.folder)
        data.total += len(table)
        older += table["metadata"].null_count > 0
        _count_truths(data.truth, run, table)
        candidates += _candidates(run, table, quota)
    if older:
        data.problems.append(f"{older} of {len(logs)} rollout logs are of a version that noted no images and no facts.")
    chosen = _stratified(candidates, most, lambda one: (one.run.arm, *_stratum(one)))
    # The page opens with the arm that the report is about.
    order = {arm.name: (arm.name != study.main, place) for place, arm in enumerate(study.arms)}
    data.shown = sorted(
        chosen, key=lambda one: (order[one.run.arm], one.run.replicate, one.row["step"], one.row["row"])
    )
    return data


def _count_truths(truth: dict[tuple[str, str], Truth], run: RunData, table: pa.Table) -> None:
    rewards = [name for name in table.column_names if name.startswith("reward/")]
    every = -(-len(table) // _MOST_READ)
    read = table.select(["completion", "metadata", "injected", *rewards]).take(list(range(0, len(table), every or 1)))
    for row in read.to_pylist():
        facts = json.loads(row["metadata"] or "{}").get("facts")
        if facts and isinstance(facts, dict):
            kind = INJECTED if row["injected"] else CORRECT if is_correct(run.run, row) else INCORRECT
            counts = truth.setdefault((run.arm, kind), Truth())
            counts.add(*statements(reasoning_text(row["completion"] or ""), facts))


def _candidates(run: RunData, table: pa.Table, quota: int) -> list[Shown]:
    """A run's rollouts to choose from, every kind of it present."""
    sketches = [
        Shown(run, {**row, "place": place}, is_correct(run.run, row))
        for place, row in enumerate(table.drop_columns(list(TEXTS)).to_pylist())
    ]
    places = [one.row["place"] for one in _stratified(sketches, quota, _stratum)]
    return [Shown(run, row, is_correct(run.run, row)) for row in table.take(places).to_pylist()]


def _stratum(one: Shown) -> tuple[Any, ...]:
    row = one.row
    return (
        bool(row["injected"]),
        bool(row.get("group_all_failed")),
        (row.get("gate") or 0.0) > 0,
        one.correct,
        row.get("modality"),
    )


def _stratified(items: Sequence[Shown], most: int, stratum: Callable[[Shown], tuple[Any, ...]]) -> list[Shown]:
    """At most `most` of the items: one of each stratum in turn, drawn with a fixed seed."""
    draw = random.Random(0)
    strata: dict[tuple[Any, ...], list[Shown]] = {}
    for item in items:
        strata.setdefault(stratum(item), []).append(item)
    waiting = [strata[key] for key in sorted(strata, key=repr)]
    for members in waiting:
        draw.shuffle(members)
    chosen: list[Shown] = []
    while waiting and len(chosen) < most:
        chosen += [members.pop() for members in waiting][: most - len(chosen)]
        waiting = [members for members in waiting if members]
    return chosen
