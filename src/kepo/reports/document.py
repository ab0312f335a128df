"""What a report is made of, before it is HTML, Markdown, LaTeX or a terminal's: sections of text, tables and figures.

Every text here is plain: whatever writes it out escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, TypeAlias

from kepo.reports.study import Arm, Study
from kepo.reports.terminal import visible
from kepo.statistics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

NONE = "–"
"""Shown where there is no value."""

_MINUS = "−"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What stands in it.
        below: A second, smaller line, such as the interval.
        shade: 0..1, how strongly a heat map colours it; None: not at all.
        mark: "main" for the main arm, "note" for what needs attention, else "".
    """

    text: str
    below: str = ""
    shade: float | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        label: Its header.
        cells: One per column after the first.
        arm: Name of the arm whose colour is shown beside the label; None: none.
        mark: "main" or "reference" set it apart, else "".
    """

    label: str
    cells: tuple[Cell, ...]
    arm: str | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        caption: What it shows.
        columns: The heading of the row labels, then one per cell.
        rows: In order.
        notes: What a reader has to know, below it.
        text_columns: Those of `columns` that hold words, not numbers.
        kind: "heat" colours the cells by their shade, "folded" is shown on demand, else "".
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        name: Name of its file, unique in a report.
        caption: What is shown.
        alt: What a person who cannot see it is told.
        draw: Draws it.
        in_page: False for one that is only written as a file, because the page has a table in its place.
    """

    name: str
    caption: str
    alt: str
    draw: Callable[[], Drawing]
    in_page: bool = True


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
    """A whole report.

    Attributes:
        title: Its title.
        subtitle: What it covers, in a line.
        headline: The result, a sentence or a few.
        warnings: What a reader has to know before the numbers.
        sections: In order.
        arms: (arm, label) in order, which fixes their colours.
    """

    title: str
    subtitle: str
    headline: tuple[str, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    arms: tuple[tuple[str, str], ...]


def arm_row(study: Study, arm: Arm, cells: Sequence[str | Cell]) -> Row:
    """The row of an arm, that of the main arm set apart."""
    made = tuple(Cell(cell) if isinstance(cell, str) else cell for cell in cells)
    return Row(arm.label, made, arm.name, "main" if arm.name == study.main else "")


def line(text: object, limit: int = 200) -> str:
    """`text` in one line, its invisible characters as escapes, cut to `limit` characters."""
    shown = " ".join(visible(text, one_line=False).split())
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def percent(value: float | None, digits: int = 1) -> str:
    """A share (0..1) as a number of percent, without the sign; the column says what it is."""
    return NONE if value is None or not isfinite(value) else f"{100 * value:.{digits}f}"


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


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits; whole from 1,000 on."""
    if value is None or not isfinite(value):
        return NONE
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
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


def without_empty(table: Table) -> Table:
    """The table without the columns in which no row has a value."""
    kept = [
        place for place in range(len(table.columns) - 1) if any(row.cells[place].text != NONE for row in table.rows)
    ]
    columns = (table.columns[0], *(table.columns[place + 1] for place in kept))
    rows = tuple(replace(row, cells=tuple(row.cells[place] for place in kept)) for row in table.rows)
    return replace(table, columns=columns, rows=rows)
