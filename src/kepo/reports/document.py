"""What a report is made of, before it is HTML, Markdown, LaTeX or a terminal's: sections of text, tables and figures.

Every text here is plain: whatever writes it out escapes it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, TypeAlias

from kepo.reports.study import Arm

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from kepo.statistics.intervals import Interval

NONE = "–"
"""Shown where there is no value."""

_MINUS = "−"
# Joiners shape letters and emoji; every other invisible character could hide or turn text.
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    below: str = ""  # a second, smaller line, such as the interval
    shade: float | None = None  # 0..1, how strongly a heat map colours it; None: not at all
    mark: str = ""  # "note" for what needs attention


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its header, and a cell per column after the first."""

    label: str
    cells: tuple[Cell, ...]
    arm: str | None = None  # whose colour is shown beside the label
    mark: str = ""  # "main" or "reference" set it apart


@dataclass(frozen=True, slots=True)
class Table:
    """A table."""

    caption: str
    columns: tuple[str, ...]  # the heading of the row labels, then one per cell
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()  # those that hold words, not numbers
    kind: str = ""  # "heat" colours the cells by their shade, "folded" is shown on demand


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure."""

    name: str  # of its file, unique in a report
    caption: str
    alt: str  # what a person who cannot see it is told
    draw: Callable[[], Drawing]
    in_page: bool = True  # False: only written as a file, because the page has a table in its place


@dataclass(frozen=True, slots=True)
class Legend:
    """How to read the figures after it, and the arms that they show, as (arm, label)."""

    text: str
    arms: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences."""

    items: tuple[str, ...]


Block: TypeAlias = "str | Points | Table | Figure | Legend"


@dataclass(frozen=True, slots=True)
class Section:
    """A section; `name` is its anchor in the page."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str = ""
    headline: tuple[str, ...] = ()  # the result in sentences
    warnings: tuple[str, ...] = ()  # what a reader has to know before the numbers
    sections: tuple[Section, ...] = ()


def tabulate(
    caption: str,
    first: str,
    rows: Iterable[tuple[Arm | str, Mapping[str, str | Cell]]],
    notes: Sequence[str] = (),
    text_columns: Sequence[str] = (),
    *,
    kind: str = "",
    main: str | None = None,
) -> Table:
    """A table from records.

    Args:
        caption: What it shows.
        first: Heading of the row labels.
        rows: (arm or label, heading -> cell); all with the same headings.
        notes: What a reader has to know, below it.
        text_columns: The columns that hold words.
        kind: As in `Table`.
        main: Name of the arm to set apart.
    """
    made, columns = [], [first]
    for subject, values in rows:
        columns = [first, *values]
        cells = tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in values.values())
        if isinstance(subject, str):
            made.append(Row(subject, cells))
        else:
            made.append(Row(subject.label, cells, subject.name, "main" if subject.name == main else ""))
    return Table(caption, tuple(columns), tuple(made), tuple(notes), tuple(text_columns), kind)


def without_empty(table: Table) -> Table:
    """The table without the columns in which no row has a value."""
    places = range(len(table.columns) - 1)
    kept = [place for place in places if any(row.cells[place].text != NONE for row in table.rows)]
    columns = (table.columns[0], *(table.columns[place + 1] for place in kept))
    rows = tuple(replace(row, cells=tuple(row.cells[place] for place in kept)) for row in table.rows)
    return replace(table, columns=columns, rows=rows)


def visible(text: object, *, one_line: bool = False) -> str:
    """`text` with every character that a terminal would act on written as an escape: `\\x1b`, `\\u202e`.

    Line breaks and tabs stay, unless `one_line`. So do the two joiners that letters of some scripts need.
    """
    kept = _JOINERS if one_line else _JOINERS + "\n\t"
    return "".join(
        # ascii(), not unicode_escape: the latter cannot write a lone surrogate.
        ascii(character)[1:-1]
        if character not in kept and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else character
        for character in str(text)
    )


def line(text: object, limit: int = 200) -> str:
    """`text` in one line, its invisible characters as escapes, cut to `limit` characters."""
    shown = " ".join(visible(text, one_line=False).split())
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def percent(value: float | None) -> str:
    """A share (0..1) as a number of percent, without the sign; the column says what it is."""
    return NONE if value is None or not isfinite(value) else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    if value is None or not isfinite(value):
        return NONE
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", _MINUS)


def span(low: float, high: float, *, signed: bool = False) -> str:
    """The two ends of an interval of shares; empty where there is none."""
    if not (isfinite(low) and isfinite(high)):
        return ""
    ends = [points(end) if signed else percent(end) for end in (low, high)]
    return f"{ends[0]} to {ends[1]}"


def number(value: float | None) -> str:
    """Three significant digits; whole from 1,000 on."""
    if value is None or not isfinite(value):
        return NONE
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", _MINUS)


def p_value(value: float | None) -> str:
    """A p-value as papers write it: ".03", "< .001"."""
    if value is None or not isfinite(value):
        return NONE
    if value < 0.001:
        return "< .001"
    return "1" if value >= 0.9995 else f"{value:.3f}".removeprefix("0")


def interval_cell(interval: Interval | None) -> Cell:
    """An accuracy in percent with its interval below."""
    if interval is None or not interval.n:
        return Cell(NONE)
    return Cell(percent(interval.estimate), span(interval.low, interval.high))


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are known and finite; None when there is none."""
    known = [value for value in values if value is not None and isfinite(value)]
    return sum(known) / len(known) if known else None
