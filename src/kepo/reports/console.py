"""A table of a report for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table as RichTable

from kepo.reports.document import Table
from kepo.reports.terminal import visible


def as_rich(table: Table) -> RichTable:
    """The table as rich prints it: no markup in any text is obeyed."""
    notes = " ".join(table.notes)
    made = RichTable(title=_safe(table.caption), caption=_safe(notes) if notes else None)
    for place, name in enumerate(table.columns):
        words = place == 0 or name in table.text_columns
        made.add_column(_safe(name), justify="left" if words else "right", no_wrap=place == 0)
    for row in table.rows:
        cells = (f"{cell.text} ({cell.below})" if cell.below else cell.text for cell in row.cells)
        made.add_row(_safe(row.label), *map(_safe, cells))
    return made


def _safe(text: str) -> str:
    return escape(visible(text, one_line=True))
