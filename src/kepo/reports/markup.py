"""A report as Markdown (without figures and rollouts), and its tables as LaTeX and for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kepo.reports.document import Block, Cell, Document, Points, Table, visible

if TYPE_CHECKING:
    from rich.table import Table as RichTable

# What Markdown or a browser could take for markup.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#$])")
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    "β": r"$\beta$",
    "–": "--",
    "†": r"\textdagger{}",
    "−": "$-$",
}


def as_markdown(document: Document) -> str:
    """The report as Markdown; every text is escaped."""
    parts = [f"# {escape(document.title)}", escape(document.subtitle), *map(escape, document.headline)]
    parts.append(_points(document.warnings))
    for section in document.sections:
        blocks = [text for block in section.blocks for text in _block(block)]
        if blocks:
            parts += [f"## {escape(section.title)}", *blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """`text` so that it stands for itself, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _points(items: Sequence[str]) -> str:
    return "\n".join(f"- {escape(item)}" for item in items)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, str):
        yield escape(block)
    elif isinstance(block, Points):
        yield _points(block.items)
    elif isinstance(block, Table):
        caption = f"**{escape(block.caption)}**"
        folded = block.kind == "folded"
        yield f"<details><summary>{caption.strip('*')}</summary>" if folded else caption
        yield _table(block)
        yield from map(escape, block.notes)
        yield "</details>" if folded else ""


def _table(table: Table) -> str:
    rule = ["---" if place == 0 or name in table.text_columns else "---:" for place, name in enumerate(table.columns)]
    rows = [[_bold(row.label, row.mark), *map(_cell, row.cells)] for row in table.rows]
    return "\n".join(_line(cells) for cells in ([escape(name) for name in table.columns], rule, *rows))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bold(label: str, mark: str) -> str:
    return f"**{escape(label)}**" if mark == "main" and label.strip() else escape(label)


def _cell(cell: Cell) -> str:
    return escape(f"{cell.text} ({cell.below})" if cell.below else cell.text)


def as_latex(table: Table) -> str:
    """The table as LaTeX, its notes in the caption; needs the package booktabs."""
    import pandas as pd

    rows = [[escape_latex(row.label), *map(_latex_cell, row.cells)] for row in table.rows]
    frame = pd.DataFrame(rows, columns=[escape_latex(name) for name in table.columns])
    made: str = frame.style.hide(axis="index").to_latex(
        hrules=True,
        column_format=f"l{'c' * (len(table.columns) - 1)}",
        caption=" ".join(f"{escape_latex(text.rstrip('.'))}." for text in (table.caption, *table.notes)),
    )
    return f"% needs \\usepackage{{booktabs}}\n{made}"


def escape_latex(text: str) -> str:
    """`text` so that LaTeX prints it as it is."""
    return re.sub(r".", lambda found: _LATEX.get(found[0], found[0]), " ".join(text.split()))


def _latex_cell(cell: Cell) -> str:
    below = f" {{\\scriptsize [{escape_latex(cell.below)}]}}" if cell.below else ""
    return escape_latex(cell.text) + below


def as_rich(table: Table) -> RichTable:
    """The table as rich prints it: no markup in any text is obeyed."""
    from rich.markup import escape as escape_markup
    from rich.table import Table as RichTable

    def safe(text: str) -> str:
        return escape_markup(visible(text, one_line=True))

    notes = " ".join(table.notes)
    made = RichTable(title=safe(table.caption), caption=safe(notes) if notes else None)
    for place, name in enumerate(table.columns):
        words = place == 0 or name in table.text_columns
        made.add_column(safe(name), justify="left" if words else "right", no_wrap=place == 0)
    for row in table.rows:
        cells = (f"{cell.text} ({cell.below})" if cell.below else cell.text for cell in row.cells)
        made.add_row(safe(row.label), *map(safe, cells))
    return made
