"""A hint bank in the terminal. What a teacher wrote is shown, never obeyed: no markup, no control characters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from statistics import median
from types import MappingProxyType

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kepo.exploration.bank_lines import BankedHint
from kepo.prompts import HINT_LEVELS
from kepo.reports.document import visible

COUNTS: Mapping[str, Callable[[Sequence[BankedHint]], float]] = MappingProxyType(
    {
        "questions": lambda hints: len({hint.question for hint in hints}),
        "hints": len,
        "usable: with a text, no leak": lambda hints: len(_usable(hints)),
        "questions with a usable one": lambda hints: len({hint.question for hint in _usable(hints)}),
        "without a hint in the answer": lambda hints: sum(not hint.text for hint in hints),
        "naming the letter": lambda hints: sum("letter" in hint.leaks for hint in hints),
        "naming the answer": lambda hints: sum("option" in hint.leaks for hint in hints),
        "duplicates": lambda hints: sum(hint.duplicate for hint in hints),
        "words, median": lambda hints: median([hint.words for hint in hints if hint.text] or [0]),
    }
)
"""What is counted, by the names that a reader sees."""


def _usable(hints: Sequence[BankedHint]) -> list[BankedHint]:
    return [hint for hint in hints if hint.text and not hint.leaks]


def summarize(hints: Sequence[BankedHint]) -> dict[str, dict[str, float]]:
    """`COUNTS` of each level that occurs ("level 0", ...), weakest first, and of "all" where there are several."""
    levels = sorted({hint.level for hint in hints})
    by_level = {f"level {level}": [hint for hint in hints if hint.level == level] for level in levels}
    if len(levels) > 1:
        by_level["all"] = list(hints)
    return {level: {name: count(those) for name, count in COUNTS.items()} for level, those in by_level.items()}


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
            task = HINT_LEVELS[level] if level < len(HINT_LEVELS) else "(a level that this version does not know)"
            console.print(Padding(Text(f"level {level}: {task}", style="dim"), (0, 0, 0, 2)))
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
