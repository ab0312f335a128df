"""A hint bank in the terminal. What a teacher wrote is shown, never obeyed: no markup, no control characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kepo.exploration.bank_lines import BankedHint
from kepo.exploration.bank_summary import COUNTS, summarize
from kepo.prompts import HINT_LEVELS
from kepo.reports.terminal import visible


def summary_table(hints: Sequence[BankedHint], title: str) -> Table:
    """What is there, a column for each level."""
    levels = summarize(hints)
    table = Table("", title=Text(visible(title, one_line=True)))
    for level in levels:
        table.add_column(level, justify="right")
    for name in COUNTS:
        table.add_row(name, *(f"{counts[name]:g}" for counts in levels.values()))
    return table


def show_hints(console: Console, hints: Sequence[BankedHint]) -> None:
    """The hints in full, question by question and level by level."""
    for question, of_question in groupby(hints, key=lambda hint: hint.question):
        console.print(Text(visible(question, one_line=True), style="bold"))
        for level, of_level in groupby(of_question, key=lambda hint: hint.level):
            wish = HINT_LEVELS[level] if level < len(HINT_LEVELS) else "(a level that this version does not know)"
            console.print(Padding(Text(f"level {level}: {wish}", style="dim"), (0, 0, 0, 2)))
            for hint in of_level:
                console.print(Padding(_shown(hint), (0, 0, 0, 4)))
        console.print()


def _shown(hint: BankedHint) -> Text:
    text = Text(f"{hint.index}  ", style="dim")
    text.append(visible(hint.text) if hint.text else "(no hint in the answer)", style="not dim")
    notes = [f"leaks: {', '.join(hint.leaks)}"] if hint.leaks else []
    notes += ["duplicate"] if hint.duplicate else []
    if notes:
        text.append(f"  [{'; '.join(notes)}]", style="not dim yellow")
    text.append(f"  ({visible(hint.teacher, one_line=True)}, {hint.words} words)", style="dim")
    return text
