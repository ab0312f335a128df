"""`kepo inspect RUN`: the steps of a run, the groups of a step, the rollouts of a group, in the terminal."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kepo.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.reports.terminal import RolloutGroup
    from kepo.runs import Run

_DEFAULT_LIMIT = 20
_TEXTS = ("prompt", "completion", "hint", "hints_tried")
_ONLY: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "injected": lambda record: bool(record["injected"]),
    "dead": lambda record: bool(record["group_all_failed"]),
    "open": lambda record: (record["gate"] or 0.0) > 0,
    "wrong": lambda record: record["right"] is False,
}
# Key of a step record -> the metric that says it where the rollouts do not.
_METRICS = {
    "reward": "reward",
    "right": "",
    "dead_groups": "exploration/all_failed_groups",
    "rescued_groups": "exploration/rescued_groups",
    "injected": "exploration/injected_share",
    "gate_open": "gate/open_share",
    "loss": "loss",
    "grad_norm": "grad_norm",
}


def inspect(
    run: Annotated[Path, typer.Argument(help="The output_dir of a run, finished or not.")],
    step: Annotated[int | None, typer.Option(help="Show the groups of this optimizer step.")] = None,
    group: Annotated[str | None, typer.Option(help="Show a group's rollouts: a question's id, or its number.")] = None,
    only: Annotated[
        Literal["injected", "dead", "open", "wrong"] | None, typer.Option(help="Show rollouts in full, only these.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Most steps (the last), groups or rollouts (the first); 0: all.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="No colours; in a pipe or a file there are none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines for a program, all unless --limit.")] = False,
) -> None:
    """Look into a run: its steps, with --step its groups, with --group or --only its rollouts in full."""
    from kepo.runs import open_run

    opened = open_run(run)
    console = None if as_json else _console(plain)
    limit = (0 if as_json else _DEFAULT_LIMIT) if limit is None else limit
    if step is None and group is None and only is None:
        _show_steps(opened, limit, console)
        return
    groups = _groups(opened, _records(opened, step, texts=as_json or group is not None or only is not None))
    if group is None and only is None:
        _show_groups(groups, limit, console)
        return
    chosen = groups if group is None else _chosen(groups, group, step)
    _show_rollouts(chosen, only, limit, console)


# --- showing ----------------------------------------------------------------------------------------------------------


def _show_steps(run: Run, limit: int, console: Console | None) -> None:
    steps = _steps(run)
    if console is None:
        _print_json(steps[-limit:])
        return
    from kepo.reports.terminal import header, steps_table

    console.print(header(run))
    if not steps:
        console.print("Nothing was logged yet.")
        return
    console.print(steps_table(steps, limit, console))
    _say_limit(console, limit, len(steps), "steps, the last ones")
    if any(step["right"] is not None for step in steps):
        console.print(
            "In %: right, injected, gate of rollouts; dead of groups; rescued of explored groups.", style="dim"
        )
        console.print("Next: --step N for the groups of a step.", style="dim")


def _show_groups(groups: Sequence[RolloutGroup], limit: int, console: Console | None) -> None:
    shown = groups[: limit or None]
    if console is None:
        _print_json(map(_group_record, shown))
        return
    from kepo.reports.terminal import groups_table, legend

    console.print(f"step {groups[0].step}: {len(groups)} groups", style="bold")
    console.print(groups_table(shown, console))
    _say_limit(console, limit, len(groups), "groups")
    console.print(legend(console))
    console.print("Next: --group ID or --group # for a group's rollouts.", style="dim")


def _show_rollouts(groups: Sequence[RolloutGroup], only: str | None, limit: int, console: Console | None) -> None:
    found = [(group, record) for group in groups for record in group.records if only is None or _ONLY[only](record)]
    shown = found[: limit or None]
    if console is None:
        _print_json({"group": group.number, **record} for group, record in shown)
        return
    from kepo.reports.terminal import print_group

    for _, pairs in groupby(shown, key=lambda pair: (pair[0].step, pair[0].number)):
        members = list(pairs)
        print_group(console, members[0][0], [record for _, record in members])
    if not found:
        console.print(
            f"No rollout here is '{only}'." + (" A run without exploration notes none." if only == "dead" else "")
        )
    _say_limit(console, limit, len(found), "rollouts")


def _say_limit(console: Console, limit: int, count: int, what: str) -> None:
    if limit and count > limit:
        console.print(f"{limit} of {count} {what}; --limit 0 shows all.")


def _console(plain: bool) -> Console:
    from rich.console import Console

    # What the terminal's encoding lacks is shown as an escape instead of ending the command.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(markup=False, emoji=False, highlight=False, color_system=None if plain else "auto")


def _print_json(records: Iterable[Mapping[str, Any]]) -> None:
    for record in records:
        typer.echo(json.dumps({name: _finite(value) for name, value in record.items()}, allow_nan=False))


def _finite(value: Any) -> Any:
    """`value` as strict JSON has it: null where a number is not one."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- reading ----------------------------------------------------------------------------------------------------------


def _records(run: Run, step: int | None, *, texts: bool) -> list[dict[str, Any]]:
    """The rows of the rollout log in order, each with `right`: whether the reward that says so reached its threshold.

    Raises:
        DataError: There is no rollout log, none of this step, or a file of it is broken.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kepo.runs import ROLLOUTS

    files = {int(file.stem[5:]): file for file in (run.folder / ROLLOUTS).glob("step-*.parquet")}
    if not files:
        raise DataError(f"{run.folder} has no rollout log; was it run with rollout_log=false, or has it just begun?")
    if step is not None and step not in files:
        raise DataError(f"{run.folder} has no rollouts of step {step}; there are those of {_ranges(sorted(files))}.")
    records: list[dict[str, Any]] = []
    for number in sorted(files) if step is None else [step]:
        try:
            with pq.ParquetFile(files[number]) as file:
                columns = [name for name in file.schema_arrow.names if texts or name not in _TEXTS]
                rows = file.read(columns).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{files[number]} cannot be read ({error}); delete it to see the other steps.") from error
        records += sorted(rows, key=lambda row: (row["process"], row["row"]))
    return [{**record, "right": _is_right(run, record)} for record in records]


def _is_right(run: Run, record: Mapping[str, Any]) -> bool | None:
    name = _setting(run, "correctness_reward")
    column = f"reward/{name}" if name else next((key for key in record if key.startswith("reward/")), "")
    reward = record.get(column)
    if reward is None or math.isnan(reward):
        return None
    # The log holds float32, in which a reward of 0.7 is a little less.
    return bool(reward >= _setting(run, "correctness_threshold", 1.0) - 1e-6)


def _groups(run: Run, records: Sequence[Mapping[str, Any]]) -> list[RolloutGroup]:
    """The rollouts in groups: `num_generations` at a time, or by the question's id where that is not known."""
    from kepo.reports.terminal import RolloutGroup

    size = _setting(run, "num_generations")
    groups: list[RolloutGroup] = []
    for step, members in groupby(records, key=lambda record: record["step"]):
        rows = list(members)
        if size and len(rows) % size == 0:
            parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        else:
            parts = [list(part) for _, part in groupby(rows, key=lambda record: record["id"])]
        for number, part in enumerate(parts, start=1):
            numbered = tuple({**record, "rollout": place} for place, record in enumerate(part, start=1))
            groups.append(RolloutGroup(step, number, len(parts), numbered))
    return groups


def _chosen(groups: Sequence[RolloutGroup], wanted: str, step: int | None) -> list[RolloutGroup]:
    """The groups whose question has the id `wanted`; else the one of that number."""
    found = [group for group in groups if group.id == wanted]
    if not found and (step is not None or groups[0].step == groups[-1].step):
        found = [group for group in groups if str(group.number) == wanted]
    if found:
        return found
    ids = list(dict.fromkeys(group.id for group in groups))
    some = ", ".join(map(repr, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    place = "the run (a number needs --step)" if step is None else f"step {step}, which has groups 1-{len(groups)}"
    raise DataError(f"There is no group {wanted!r} in {place}; the ids are {some}.")


def _group_record(group: RolloutGroup) -> dict[str, Any]:
    first, records = group.records[0], group.records
    return {
        "step": group.step,
        "group": group.number,
        **{name: first[name] for name in ("id", "modality", "task", "answer")},
        "rewards": [record["reward"] for record in records],
        **{name: [record[name] for record in records] for name in ("right", "injected")},
        "dead": group.dead,
        "kept": group.injected,
        "attempts": group.attempts,
        "failure": group.failure,
    }


def _steps(run: Run) -> list[dict[str, Any]]:
    """One record per step with rollouts or metrics; None where something does not apply or was not logged."""
    from kepo.runs import ROLLOUTS, read_metrics

    logged: dict[int, dict[str, Any]] = {}
    for record in read_metrics(run.folder):
        logged.setdefault(record["step"], {}).update(record)
    records = _records(run, None, texts=False) if any((run.folder / ROLLOUTS).glob("step-*.parquet")) else []
    groups = {step: list(part) for step, part in groupby(_groups(run, records), key=lambda group: group.step)}
    explores = _setting(run, "exploration", "none") != "none" or any(
        r["group_all_failed"] or r["injected"] for r in records
    )
    teaches = any("gate/open_share" in record for record in logged.values()) or any(r["gate"] for r in records)
    steps = []
    for step in sorted({*logged, *groups}):
        measured = _measure(groups.get(step, []), explores, teaches)
        values = {key: measured.get(key, logged.get(step, {}).get(metric)) for key, metric in _METRICS.items()}
        if any(value is not None for value in values.values()):
            steps.append({"step": step, **values})
    return steps


def _measure(groups: Sequence[RolloutGroup], explores: bool, teaches: bool) -> dict[str, float | None]:
    """What the rollouts of a step say; shares 0..1."""
    rows = [record for group in groups for record in group.records]
    if not rows:
        return {}
    explored = [group for group in groups if group.explored]
    known = [record["right"] for record in rows if record["right"] is not None]
    values = {
        "reward": sum(record["reward"] for record in rows) / len(rows),
        "right": sum(known) / len(known) if known else None,
    }
    if explores:
        values["dead_groups"] = sum(group.dead for group in groups) / len(groups)
        values["rescued_groups"] = sum(group.injected > 0 for group in explored) / len(explored) if explored else None
        values["injected"] = sum(bool(record["injected"]) for record in rows) / len(rows)
    if teaches:
        values["gate_open"] = sum((record["gate"] or 0.0) > 0 for record in rows) / len(rows)
    return values


def _setting(run: Run, name: str, default: Any = None) -> Any:
    value = run.manifest.get("config", {}).get("training", {}).get(name)
    return default if value is None else value


def _ranges(steps: Sequence[int]) -> str:
    """ "1-10, 12": sorted numbers, runs of them joined."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in runs[:20])
