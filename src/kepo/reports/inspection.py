"""What `kepo inspect` shows of a run: its steps, the groups of a step, the rollouts of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from kepo.errors import DataError
from kepo.runs import Run, is_correct, read_metrics, read_rollouts, rollout_files

STEP_COLUMNS: dict[str, tuple[str, bool, str]] = {
    "reward": ("reward", False, "reward"),
    "correct": ("correct", True, ""),
    "all_failed_groups": ("failed", True, "exploration/all_failed_groups"),
    "rescued_groups": ("rescued", True, "exploration/rescued_groups"),
    "injected": ("injected", True, "exploration/injected_share"),
    "gate_open": ("gate", True, "gate/open_share"),
    "loss": ("loss", False, "loss"),
    "grad_norm": ("grad", False, "grad_norm"),
}
"""Key of a step record -> its heading, whether it is a share (0..1), the metric that says it without rollouts."""


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """The rollouts of one question in one step."""

    step: int  # optimizer step
    number: int  # place in the step, from 1
    of: int  # groups in the step
    # The rows of the rollout log, with `correct` (bool, None where unknown) and `rollout` (place, from 1).
    records: tuple[Mapping[str, Any], ...]

    @property
    def id(self) -> str:
        """The id of its question."""
        return str(self.records[0]["id"])

    @property
    def all_failed(self) -> bool:
        """Whether all its rollouts failed before exploration."""
        return any(record["group_all_failed"] for record in self.records)

    @property
    def explored(self) -> bool:
        """Whether exploration took it up, also where nothing came of it."""
        return any(record["attempts"] or record["exploration_failure"] for record in self.records)

    @property
    def injected(self) -> int:
        """How many of its rollouts were replaced."""
        return sum(bool(record["injected"]) for record in self.records)

    @property
    def attempts(self) -> int:
        """Attempts of exploration on it."""
        return max(record["attempts"] or 0 for record in self.records)

    @property
    def failure(self) -> str | None:
        """Why exploration kept nothing."""
        return next((record["exploration_failure"] for record in self.records if record["exploration_failure"]), None)

    def summary(self) -> dict[str, Any]:
        """The group as one record, for programs."""
        first, records = self.records[0], self.records
        return {
            "step": self.step,
            "group": self.number,
            **{name: first[name] for name in ("id", "modality", "task", "answer")},
            "rewards": [record["reward"] for record in records],
            **{name: [record[name] for record in records] for name in ("correct", "injected")},
            "all_failed": self.all_failed,
            "kept": self.injected,
            "attempts": self.attempts,
            "failure": self.failure,
        }


def rollout_groups(run: Run, step: int | None = None, *, texts: bool = True) -> list[RolloutGroup]:
    """The rollouts of a run in groups: `num_generations` at a time, or by the question's id where that is not known.

    Args:
        run: The run.
        step: Only of this optimizer step; None: of all.
        texts: Read the large columns too.

    Raises:
        DataError: There is no rollout log, none of this step, or a file of it is damaged.
    """
    rollouts = read_rollouts(run.folder, step=step, texts=texts).to_pylist()
    size = run.setting("training", "num_generations")
    groups: list[RolloutGroup] = []
    for number, members in groupby(rollouts, key=lambda record: record["step"]):
        rows = [{**record, "correct": is_correct(run, record)} for record in members]
        if size and len(rows) % size == 0:
            parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        else:
            parts = [list(part) for _, part in groupby(rows, key=lambda record: record["id"])]
        for place, part in enumerate(parts, start=1):
            failed = {"group_all_failed": _all_failed(part)}
            numbered = tuple(record | failed | {"rollout": rollout} for rollout, record in enumerate(part, start=1))
            groups.append(RolloutGroup(number, place, len(parts), numbered))
    return groups


def _all_failed(records: Sequence[Mapping[str, Any]]) -> bool:
    """As the log says it; older versions did not where nothing was explored, but then the rollouts do."""
    if any(record["injected"] for record in records):
        return any(record["group_all_failed"] for record in records)
    return all(record["group_all_failed"] or record["correct"] is False for record in records)


def groups_named(groups: Sequence[RolloutGroup], wanted: str, step: int | None) -> list[RolloutGroup]:
    """The groups whose question has the id `wanted`; else the one of that number, where there is one step only.

    Raises:
        DataError: There is none; names some that there are.
    """
    found = [group for group in groups if group.id == wanted]
    if not found and (step is not None or groups[0].step == groups[-1].step):
        found = [group for group in groups if str(group.number) == wanted]
    if found:
        return found
    ids = list(dict.fromkeys(group.id for group in groups))
    some = ", ".join(map(repr, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    place = "the run (a number needs --step)" if step is None else f"step {step}, which has groups 1-{len(groups)}"
    raise DataError(f"There is no group {wanted!r} in {place}; the ids are {some}.")


def step_records(run: Run) -> list[dict[str, Any]]:
    """One record per step with rollouts or metrics; None where something does not apply or was not logged."""
    logged: dict[int, dict[str, Any]] = {}
    for record in read_metrics(run.folder):
        logged.setdefault(record["step"], {}).update(record)
    everything = rollout_groups(run, texts=False) if rollout_files(run.folder) else []
    groups = {step: list(part) for step, part in groupby(everything, key=lambda group: group.step)}
    explores = run.setting("training", "exploration", "none") != "none" or any(
        group.explored or group.injected for group in everything
    )
    teaches = any("gate/open_share" in record for record in logged.values()) or any(
        record["gate"] for group in everything for record in group.records
    )
    steps = []
    for step in sorted({*logged, *groups}):
        measured = _measure(groups.get(step, []), explores, teaches)
        metrics = logged.get(step, {})
        values = {key: measured.get(key, metrics.get(metric)) for key, (_, _, metric) in STEP_COLUMNS.items()}
        if any(value is not None for value in values.values()):
            steps.append({"step": step, **values})
    return steps


def _measure(groups: Sequence[RolloutGroup], explores: bool, teaches: bool) -> dict[str, float | None]:
    """What the rollouts of a step say; shares 0..1."""
    rows = [record for group in groups for record in group.records]
    if not rows:
        return {}
    explored = [group for group in groups if group.explored]
    known = [record["correct"] for record in rows if record["correct"] is not None]
    values = {
        "reward": sum(record["reward"] for record in rows) / len(rows),
        "correct": sum(known) / len(known) if known else None,
    }
    if known:
        values["all_failed_groups"] = sum(group.all_failed for group in groups) / len(groups)
    if explores:
        values["rescued_groups"] = sum(group.injected > 0 for group in explored) / len(explored) if explored else None
        values["injected"] = sum(bool(record["injected"]) for record in rows) / len(rows)
    if teaches:
        values["gate_open"] = sum((record["gate"] or 0.0) > 0 for record in rows) / len(rows)
    return values
