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

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.reports.inspection import RolloutGroup
    from kepo.runs import Run

_DEFAULT_LIMIT = 20
_ONLY: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "injected": lambda record: bool(record["injected"]),
    "all-failed": lambda record: bool(record["group_all_failed"]),
    "open": lambda record: (record["gate"] or 0.0) > 0,
    "incorrect": lambda record: record["correct"] is False,
}


def inspect(
    run: Annotated[Path, typer.Argument(help="The output_dir of a run, finished or not.")],
    step: Annotated[int | None, typer.Option(help="Show the groups of this optimizer step.")] = None,
    group: Annotated[str | None, typer.Option(help="Show a group's rollouts: a question's id, or its number.")] = None,
    only: Annotated[
        Literal["injected", "all-failed", "open", "incorrect"] | None,
        typer.Option(help="Show rollouts in full, only these."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Most steps (the last), groups or rollouts (the first); 0: all.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="No colours; in a pipe or a file there are none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines for a program, all unless --limit.")] = False,
) -> None:
    """Look into a run: its steps, with --step its groups, with --group or --only its rollouts in full."""
    from kepo.reports.inspection import groups_named, rollout_groups
    from kepo.runs import open_run

    opened = open_run(run)
    console = None if as_json else _console(plain)
    limit = (0 if as_json else _DEFAULT_LIMIT) if limit is None else limit
    if step is None and group is None and only is None:
        _show_steps(opened, limit, console)
        return
    groups = rollout_groups(opened, step, texts=as_json or group is not None or only is not None)
    if group is None and only is None:
        _show_groups(groups, limit, console)
        return
    _show_rollouts(groups if group is None else groups_named(groups, group, step), only, limit, console)


def _show_steps(run: Run, limit: int, console: Console | None) -> None:
    from kepo.reports.inspection import step_records

    steps = step_records(run)
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
    if any(step["correct"] is not None for step in steps):
        console.print("In %: correct, injected, gate of rollouts; failed of groups; rescued of explored", style="dim")
        console.print("Next: --step N for the groups of a step.", style="dim")


def _show_groups(groups: Sequence[RolloutGroup], limit: int, console: Console | None) -> None:
    shown = groups[: limit or None]
    if console is None:
        _print_json(group.summary() for group in shown)
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
        console.print(f"No rollout here is '{only}'.")
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
