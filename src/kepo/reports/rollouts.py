"""The rollout logs of a study, read once: what they say about reasoning, and the rollouts that are shown.

A study has too many rollouts to keep, so each run's log is read, counted and thinned out before the next is opened.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kepo.errors import DataError
from kepo.evaluation.reasoning import reasoning_text, statements
from kepo.reports.questions import QuestionBank
from kepo.reports.study import RunData, Study
from kepo.runs import ROLLOUTS

if TYPE_CHECKING:
    import pyarrow as pa

    from kepo.types import Question

INJECTED, RIGHT, WRONG = "injected", "own, right", "own, wrong"
KINDS = (INJECTED, RIGHT, WRONG)
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
    """A rollout to show: its row of the log, its run, its question where that was found, and whether it is right."""

    run: RunData
    row: Mapping[str, Any]
    question: Question | None
    right: bool | None


@dataclass(slots=True)
class RolloutData:
    """What was read from the rollout logs of a study.

    Attributes:
        truth: (arm, kind) -> counts of stated facts.
        shown: The rollouts to show.
        total: How many rollouts there are.
        problems: What could not be read.
    """

    truth: dict[tuple[str, str], Truth] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)
    total: int = 0
    problems: list[str] = field(default_factory=list)


def read_rollout_data(study: Study, most: int, progress: Callable[[str], None] = lambda _: None) -> RolloutData:
    """Read the rollout logs of all runs.

    Args:
        study: The study.
        most: How many rollouts to show at most.
        progress: Called with what is done next, run by run.

    Raises:
        DataError: A file of a rollout log is damaged.
    """
    data, bank = RolloutData(), QuestionBank()
    logs = [run for run in study.runs if any((run.run.folder / ROLLOUTS).glob("step-*.parquet"))]
    quota = 8 + 3 * most // max(len(logs), 1)
    candidates: list[Shown] = []
    for number, run in enumerate(logs, start=1):
        progress(f"reading rollouts, run {number} of {len(logs)}")
        table = _read(run)
        questions = bank.of(run)
        data.total += len(table)
        _count_truths(data.truth, run, table, questions)
        candidates += _candidates(run, table, questions, quota)
    data.problems = bank.problems
    chosen = _stratified(candidates, most, lambda one: (one.run.arm, *_stratum(one)))
    # The page opens with the arm that the report is about.
    order = {arm.name: (arm.name != study.main, place) for place, arm in enumerate(study.arms)}
    data.shown = sorted(
        chosen, key=lambda one: (order[one.run.arm], one.run.replicate, one.row["step"], one.row["row"])
    )
    return data


def is_right(run: RunData, row: Mapping[str, Any]) -> bool | None:
    """Whether the reward that says what is correct reached its threshold; None where it does not apply."""
    name = run.setting("training", "correctness_reward")
    column = f"reward/{name}" if name else next((key for key in row if key.startswith("reward/")), "")
    reward = row.get(column)
    if reward is None or math.isnan(reward):
        return None
    # The log holds float32, in which a reward of 0.7 is a little less.
    return bool(reward >= run.setting("training", "correctness_threshold", 1.0) - 1e-6)


def _read(run: RunData) -> pa.Table:
    """The rollout log of a run, its rows in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for file in sorted((run.run.folder / ROLLOUTS).glob("step-*.parquet")):
        try:
            with pq.ParquetFile(file) as opened:
                tables.append(opened.read())
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file} cannot be read ({error}); delete it to see the other steps.") from error
    table = pa.concat_tables(tables, promote_options="default")
    missing = [name for name in ("step", "id", "completion", "injected") if name not in table.column_names]
    if missing:
        raise DataError(f"{run.run.folder / ROLLOUTS} has no column {missing[0]!r}; it is no rollout log.")
    return table


def _count_truths(
    truth: dict[tuple[str, str], Truth], run: RunData, table: pa.Table, questions: Mapping[str, Question]
) -> None:
    facts = {id_: found for id_, question in questions.items() if isinstance(found := _facts(question), dict) and found}
    if not facts:
        return
    rewards = [name for name in table.column_names if name.startswith("reward/")]
    every = -(-len(table) // _MOST_READ)
    for row in (
        table.select(["id", "completion", "injected", *rewards]).take(list(range(0, len(table), every))).to_pylist()
    ):
        if row["id"] in facts:
            kind = INJECTED if row["injected"] else RIGHT if is_right(run, row) else WRONG
            counts = truth.setdefault((run.arm, kind), Truth())
            counts.add(*statements(reasoning_text(row["completion"] or ""), facts[row["id"]]))


def _facts(question: Question) -> Any:
    return question.metadata.get("facts")


def _candidates(run: RunData, table: pa.Table, questions: Mapping[str, Question], quota: int) -> list[Shown]:
    """A run's rollouts to choose from, every kind of it present."""
    light = [name for name in table.column_names if name not in ("prompt", "completion", "hint", "hints_tried")]
    rows = table.select(light).to_pylist()
    sketches = [
        Shown(run, {**row, "place": place}, questions.get(row["id"]), is_right(run, row))
        for place, row in enumerate(rows)
    ]
    places = [one.row["place"] for one in _stratified(sketches, quota, _stratum)]
    full = table.take(places).to_pylist()
    return [Shown(run, row, questions.get(row["id"]), is_right(run, row)) for row in full]


def _stratum(one: Shown) -> tuple[Any, ...]:
    row = one.row
    return (
        bool(row["injected"]),
        bool(row.get("group_all_failed")),
        (row.get("gate") or 0.0) > 0,
        one.right,
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
