"""A run as text for the terminal: its steps, the groups of a step, the rollouts of a group.

What a model wrote is shown, never obeyed: it passes through `visible`, and through `Text`, which knows no markup.
Colours only repeat what a symbol or a word says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kepo.reports.document import mean, visible
from kepo.reports.inspection import STEP_COLUMNS, RolloutGroup
from kepo.runs import Run

_UNICODE = {"correct": "✓", "incorrect": "✗", "unknown": "?", "injected": "◆", "bars": "▁▂▃▄▅▆▇█"}
_ASCII = {"correct": "+", "incorrect": "-", "unknown": "?", "injected": "*", "bars": "_.:-=+#@"}
_STYLES = {"correct": "green", "incorrect": "red", "unknown": "yellow", "injected": "magenta"}
_STATUS = {"finished": "green", "running": "yellow", "interrupted": "yellow", "failed": "red"}


def sparkline(
    values: Sequence[float | None],
    width: int,
    low: float | None = None,
    high: float | None = None,
    bars: str = _UNICODE["bars"],
) -> str:
    """The course of `values` in at most `width` characters, a blank where there is none.

    Args:
        values: In order; each character is the mean of its share of them.
        width: 1 or more.
        low, high: Values of the lowest and the highest bar; None: the least, the greatest.
        bars: Characters from low to high.
    """
    width = min(width, len(values))
    cuts = [round(place * len(values) / width) for place in range(width + 1)] if width else []
    means = [mean(values[start:end]) for start, end in pairwise(cuts)]
    known = [value for value in means if value is not None]
    if not known:
        return ""
    low = min(known) if low is None else low
    high = max(known) if high is None else high
    top = len(bars) - 1
    # A course that never changes lies in the middle: it is neither high nor low.
    levels = [None if m is None else top / 2 if high <= low else top * (m - low) / (high - low) for m in means]
    return "".join(" " if level is None else bars[round(min(max(level, 0), top))] for level in levels)


def header(run: Run) -> Text:
    """Arm, status, folder; steps, device, seed, when; and the error that ended the run."""
    manifest, status = run.manifest, run.status
    text = Text.assemble(
        (visible(run.arm, one_line=True), "bold"), "  ", (visible(status, one_line=True), _STATUS.get(status, ""))
    )
    if status == "running":
        text.append(" (or killed before it could say so)", "dim")
    text.append(f"  {visible(run.folder, one_line=True)}\n")
    facts = [
        f"{manifest['steps']} steps" if "steps" in manifest else None,
        manifest.get("device"),
        f"seed {manifest['seed']}" if "seed" in manifest else None,
        _when(manifest.get("started"), manifest.get("ended")),
    ]
    text.append(visible(", ".join(str(fact) for fact in facts if fact), one_line=True))
    if manifest.get("error"):
        text.append(f"\n{visible(manifest['error'])}", "red")
    return text


def steps_table(steps: Sequence[Mapping[str, Any]], limit: int, console: Console) -> Table:
    """The last `limit` steps (0: all), columns without any value left out, and the course of each over all steps."""
    symbols = _symbols(console)
    shown = {key: column for key, column in STEP_COLUMNS.items() if any(step[key] is not None for step in steps)}
    # "step", two cells of padding a column, and the frame are taken; the courses share the rest.
    width = max(6, min(16, (console.width - 10 - 2 * len(shown)) // max(len(shown), 1)))
    table = Table(box=box.SIMPLE, show_footer=len(steps) > 1, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("step", "all", justify="right")
    for key, (title, share, _) in shown.items():
        low, high = (0.0, 1.0) if share else (None, None)
        course = sparkline([step[key] for step in steps], width, low, high, bars=symbols["bars"])
        table.add_column(title, Text(course, "cyan"), justify="right", no_wrap=True)
    for step in steps[-limit:]:
        cells = [_share(step[key]) if share else number(step[key]) for key, (_, share, _) in shown.items()]
        table.add_row(str(step["step"]), *cells)
    return table


def groups_table(groups: Sequence[RolloutGroup], console: Console) -> Table:
    """The groups of a step: question, rewards as cells, and what exploration did."""
    explored = any(group.explored for group in groups)
    failed = explored or any(group.all_failed for group in groups)
    narrow = console.width < 120
    labels = [key for key in ("modality", "task") if any(group.records[0][key] for group in groups)]
    labels = labels[:1] if narrow and explored else labels
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("question", max_width=12 if narrow else 24, no_wrap=True, overflow="ellipsis")
    for key in labels:
        table.add_column(key, max_width=10 if narrow else 18, no_wrap=True, overflow="ellipsis")
    table.add_column("rewards", min_width=18)
    for title in ("failed", *(("kept", "tries") if explored else ())) if failed else ():
        table.add_column(title, justify="right", max_width=10)
    for group in groups:
        cells = [Text(_line(cell)) for cell in (group.number, group.id, *(group.records[0][key] for key in labels))]
        tries = ["all" if group.all_failed else ""] if failed else []
        if explored:
            tries.append(group.failure or str(group.injected) if group.explored else "")
            tries.append(str(group.attempts) if group.explored else "")
        table.add_row(*cells, _reward_cells(group, console), *(Text(_line(cell)) for cell in tries))
    return table


def legend(console: Console) -> Text:
    """What the symbols mean."""
    symbols = _symbols(console)
    text = Text(style="dim")
    for name in ("correct", "incorrect", "unknown", "injected"):
        text.append(symbols[name], _STYLES[name]).append(f" {name}  ")
    return text


def print_group(console: Console, group: RolloutGroup, records: Sequence[Mapping[str, Any]]) -> None:
    """A group in full: its prompt, the true answer, what exploration tried, and those of its rollouts in `records`."""
    first = group.records[0]
    labels = [_line(first[key]) for key in ("modality", "task") if first[key]]
    console.rule(style="dim")
    console.print(Text(f"step {group.step}, group {group.number} of {group.of}: {_line(group.id)}", "bold"))
    failed = "all failed before exploration" if group.explored else "all failed"
    facts = [*labels, *([failed] if group.all_failed else []), *_explored(group)]
    if facts:
        console.print(Text(", ".join(facts)))
    prompt = next((record for record in group.records if not record["injected"]), first)["prompt"]
    if first["images"]:
        _block(console, "images", "\n".join(first["images"]))
    _block(console, "prompt", prompt)
    _block(console, "true answer", "none" if first["answer"] is None else first["answer"])
    for place, hint in enumerate(first["hints_tried"] or (), start=1):
        _block(console, f"teacher's hint {place}", hint)
    for record in records:
        console.print()
        console.print(_rollout_line(record, len(group.records), console))
        if record["injected"] and record["hint"] is not None:
            _block(console, f"sampled under the hint (level {record['hint_level']})", record["hint"])
        if record["prompt"] != prompt:
            _block(console, "trained under the prompt", record["prompt"])
        _block(console, "completion", record["completion"])
    console.print()


def number(value: float | None) -> str:
    """Three significant digits, or whole; "-" for no value."""
    if value is None:
        return "-"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def _rollout_line(record: Mapping[str, Any], size: int, console: Console) -> Text:
    """Rollout, verdict, rewards, advantage, gate, length and injection, in one line of words."""
    symbols, verdict = _symbols(console), _verdict(record)
    scores = [f"{_line(key[7:])} {_score(value)}" for key, value in record.items() if key.startswith("reward/")]
    text = Text.assemble(
        (f"rollout {record['rollout']} of {size}  ", "bold"),
        (f"{symbols[verdict]} {verdict}", f"bold {_STYLES[verdict]}"),
        f"  reward {_score(record['reward'])} ({', '.join(scores)})  advantage {record['advantage'] or 0:+.3g}  ",
        _gate(record["gate"] or 0.0),
        f"  {record['tokens']} tokens",
    )
    if record["injected"]:
        text.append(f"  {symbols['injected']} injected, attempt {record['attempt']}", f"bold {_STYLES['injected']}")
    return text


def _explored(group: RolloutGroup) -> list[str]:
    if not group.explored:
        return []
    tries = f"explored in {group.attempts} attempt{'' if group.attempts == 1 else 's'}"
    return [tries, f"nothing kept: {_line(group.failure)}" if group.failure else f"{group.injected} injected"]


def _gate(gate: float) -> tuple[str, str]:
    if gate <= 0:
        return "gate closed", "dim"
    return ("gate open", "cyan") if gate >= 1 else (f"gate open for {gate:.0%} of tokens", "yellow")


def _reward_cells(group: RolloutGroup, console: Console) -> Text:
    symbols, text = _symbols(console), Text()
    for record in group.records:
        verdict = _verdict(record)
        mark = symbols["injected"] if record["injected"] else ""
        text.append(mark, _STYLES["injected"]).append(f"{symbols[verdict]}{_score(record['reward'])}", _STYLES[verdict])
        text.append(" ")
    return text


def _block(console: Console, title: str, text: object) -> None:
    console.print(Text(f"  {title}", "dim"))
    console.print(Padding(Text(visible(text)), (0, 0, 0, 4), expand=False))


def _verdict(record: Mapping[str, Any]) -> str:
    return {True: "correct", False: "incorrect", None: "unknown"}[record["correct"]]


def _symbols(console: Console) -> dict[str, str]:
    return _ASCII if console.options.ascii_only else _UNICODE


def _line(text: object) -> str:
    return "" if text is None else visible(text, one_line=True)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _score(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.3g}"


def _when(started: str | None, ended: str | None) -> str | None:
    """ "2026-11-23 20:01 UTC, 8 min"; the moments as they stand where they are no ISO times."""
    if started is None:
        return None
    try:
        begin = datetime.fromisoformat(started)
        minutes = None if ended is None else (datetime.fromisoformat(ended) - begin).total_seconds() / 60
    except ValueError:
        return f"{started} to {ended}"
    return f"{begin:%Y-%m-%d %H:%M %Z}" + ("" if minutes is None else f", {minutes:.0f} min")
