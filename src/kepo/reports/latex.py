"""A table as LaTeX."""

from __future__ import annotations

import re

from kepo.reports.document import Cell, Table

_SIGNS = {
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
    "−": "$-$",
}


def as_latex(table: Table) -> str:
    """The table as LaTeX, its notes in the caption; needs the package booktabs."""
    import pandas as pd

    rows = [[escape_latex(row.label), *map(_cell, row.cells)] for row in table.rows]
    frame = pd.DataFrame(rows, columns=[escape_latex(name) for name in table.columns])
    made: str = frame.style.hide(axis="index").to_latex(
        hrules=True,
        column_format=f"l{'c' * (len(table.columns) - 1)}",
        caption=" ".join(f"{escape_latex(text.rstrip('.'))}." for text in (table.caption, *table.notes)),
    )
    return f"% needs \\usepackage{{booktabs}}\n{made}"


def escape_latex(text: str) -> str:
    """`text` so that LaTeX prints it as it is."""
    return re.sub(r".", lambda found: _SIGNS.get(found[0], found[0]), " ".join(text.split()))


def _cell(cell: Cell) -> str:
    below = f" {{\\scriptsize [{escape_latex(cell.below)}]}}" if cell.below else ""
    return escape_latex(cell.text) + below
