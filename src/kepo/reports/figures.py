"""The figures of a report, drawn with matplotlib; each function gives a `matplotlib.figure.Figure`.

The same figure becomes an inline SVG (`as_svg`), whose colours follow the page's light or dark theme, or files.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.reports.curves import Curve
from kepo.reports.document import line
from kepo.reports.study import Study
from kepo.statistics.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1d232b"
SOFT = "#5a6470"
GRID = "#dde1e6"
PAPER = "#fffffe"

# First the main arm's. Each has a contrast of at least 4.5 to its page, light or dark.
LIGHT = ("#b8400e", "#1f5fa8", "#0b7563", "#7d4a9c", "#7d6207", "#b02e74", "#3f6b8c", "#5f6b33")
DARK = ("#ff9660", "#7cb7f5", "#56cbb2", "#c79ae6", "#dcbc55", "#f28fc0", "#9cc2dc", "#b9c97f")
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
MOST_LINES = 8
"""Lines in one figure; with more nobody can tell them apart."""
_WIDTH, _HEIGHT = 4.5, 2.9  # inches
_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "svg.hashsalt": "kepo",
}
_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{color: f"var(--arm-{place})" for place, color in enumerate(LIGHT)},
}


@dataclass(frozen=True, slots=True)
class ArmStyle:
    """How an arm is drawn: place of its colour in `LIGHT` and `DARK`, dashes, marker, line width in points."""

    color: int
    dashes: str
    marker: str
    width: float


def arm_styles(study: Study) -> dict[str, ArmStyle]:
    """The style of every arm: the main arm (or the only one) has the first colour to itself."""
    main = study.main or study.arms[0].name
    styles = {main: ArmStyle(0, "-", "o", 2.2)}
    for place, arm in enumerate(arm for arm in study.arms if arm.name != main):
        color, cycle = 1 + place % (len(LIGHT) - 1), place // (len(LIGHT) - 1)
        styles[arm.name] = ArmStyle(color, _DASHES[(place + cycle) % 4], _MARKERS[(1 + place) % 8], 1.5)
    return styles


def drawn_arms(study: Study) -> list[str]:
    """The arms that fit into one figure, in order: the main arm, the baselines, then the others as they come."""
    trained = [arm for arm in study.arms if arm.trained]
    ranked = sorted(trained, key=lambda arm: (arm.name != study.main, not arm.baseline))
    kept = {arm.name for arm in ranked[:MOST_LINES]}
    return [arm.name for arm in trained if arm.name in kept]


def curves_figure(
    title: str,
    curves: Mapping[str, Curve],
    styles: Mapping[str, ArmStyle],
    *,
    percent: bool,
    from_zero: bool = False,
    reference: float | None = None,
) -> Figure:
    """A line per arm with the range of its replicates; shares in `percent`, a dashed line at a `reference`."""
    figure, axes = _new(title, _HEIGHT)
    scale = 100 if percent else 1
    _draw_curves(axes, curves, styles, scale)
    if reference is not None and isfinite(reference):
        axes.axhline(scale * reference, color=SOFT, linewidth=0.9, linestyle=(0, (2, 3)))
    axes.margins(x=0.02)
    if from_zero:
        axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], 1))
    return figure


def panels_figure(
    panels: Mapping[str, Mapping[str, Curve]], styles: Mapping[str, ArmStyle], labels: Mapping[str, str]
) -> Figure:
    """Panels (title -> arm -> curve) side by side with one legend: shares over checkpoints, for a paper."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT + 0.6), layout="constrained")
    drawn: dict[str, Any] = {}
    for place, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        axes.set_title(title)
        drawn |= _draw_curves(axes, curves, styles, 100)
    order = [arm for arm in labels if arm in drawn]
    names = [line(labels[arm], 40) for arm in order]
    figure.legend(
        [drawn[arm] for arm in order], names, loc="outside lower center", ncols=min(4, len(order)), frameon=False
    )
    return figure


def _draw_curves(
    axes: Axes, curves: Mapping[str, Curve], styles: Mapping[str, ArmStyle], scale: float
) -> dict[str, Any]:
    """Draw a line with its band per arm; arm -> line."""
    from matplotlib.ticker import MaxNLocator

    drawn = {}
    for arm, curve in sorted(curves.items(), key=lambda item: -styles[item[0]].color):
        style, color = styles[arm], LIGHT[styles[arm].color]
        if curve.replicates > 1:
            axes.fill_between(curve.steps, scale * curve.low, scale * curve.high, color=color, alpha=0.13, linewidth=0)
        marker = style.marker if len(curve.steps) <= 12 else ""
        line_of: Any = {"color": color, "linewidth": style.width, "marker": marker, "markersize": 3.5}
        [drawn[arm]] = axes.plot(curve.steps, scale * curve.mean, style.dashes, **line_of)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return drawn


def intervals_figure(
    title: str,
    rows: Sequence[tuple[str, str, Interval]],
    styles: Mapping[str, ArmStyle],
    references: Mapping[str, float],
    *,
    limits: tuple[float, float] | None = None,
    main: str | None = None,
) -> Figure:
    """A point with its interval per row, in percent.

    Args:
        title: What is drawn.
        rows: (arm, label, interval), from top to bottom.
        styles: Arm -> its style.
        references: Name -> a dashed vertical line at this share.
        limits: Ends of the axis as shares, so that several figures have the same.
        main: The arm whose label is bold.
    """
    figure, axes = _new(title, 0.85 + 0.25 * len(rows))
    for place, (arm, _, found) in enumerate(rows):
        color = LIGHT[styles[arm].color]
        if isfinite(found.low) and isfinite(found.high):
            axes.plot([100 * found.low, 100 * found.high], [place, place], color=color, linewidth=1.6)
        axes.plot([100 * found.estimate], [place], styles[arm].marker, color=color, markersize=5.5)
    _mark_references(axes, references)
    axes.set_yticks(range(len(rows)), [line(label, 26) for _, label, _ in rows], color=INK)
    for text, (arm, _, _) in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_fontweight("bold" if arm == main else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if limits:
        axes.set_xlim(100 * limits[0], 100 * limits[1])
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("accuracy, %")
    return figure


def _mark_references(axes: Axes, references: Mapping[str, float]) -> None:
    for name, value in references.items():
        if isfinite(value):
            axes.axvline(100 * value, color=SOFT, linewidth=0.9, linestyle=(0, (2, 3)))
            place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(name, (100 * value, 0), (3, 1), color=SOFT, fontsize=8, **place)


def heat_figure(title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray) -> Figure:
    """A table of shares as colours, with the numbers in the cells; for files, the page has a real table."""
    import numpy as np

    figure, axes = _new(title, 1.1 + 0.3 * len(rows), width=max(_WIDTH, 2.0 + 0.75 * len(columns)))
    grid: np.ndarray = 100 * values
    axes.imshow(grid, aspect="auto", cmap="Blues", vmin=np.nanmin(grid) - 5, vmax=np.nanmax(grid) + 25)
    for place, row in enumerate(grid):
        for column, value in enumerate(row):
            if isfinite(value):
                axes.text(column, place, f"{value:.0f}", ha="center", va="center", color=INK)
    axes.set_xticks(range(len(columns)), [line(name, 14) for name in columns], rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), [line(name, 26) for name in rows])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def as_svg(draw: Callable[[], Figure], name: str, alt: str) -> str:
    """The figure as an `<svg>` element for a page: no ids that clash, colours as variables, text as text.

    `name` makes its ids unique; `alt` is made safe here.
    """
    from markupsafe import escape

    with _settings({"svg.fonttype": "none"}):
        stream = io.StringIO()
        draw().savefig(stream, format="svg", metadata={"Date": None})
    source = stream.getvalue()
    body = source[source.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    # Only in attributes of ours: a text that holds a colour's code stays what it is.
    body = re.sub(r"(?<=[:\s])#[0-9a-f]{6}(?=[;\"])", lambda found: _VARIABLES.get(found[0], found[0]), body)
    body = re.sub(r"'?DejaVu Sans'?(, [^;\"]*)?(?=[;\"])", "inherit", body)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    assert size is not None
    head = f'<svg viewBox="{size[0][9:-1]}" role="img" aria-label="{escape(line(alt, 2000))}"'
    return re.sub(r"<svg[^>]*>", lambda _: f'{head} xmlns:xlink="http://www.w3.org/1999/xlink">', body, count=1)


def write_files(draw: Callable[[], Figure], folder: Path, name: str) -> list[Path]:
    """The figure as `NAME.png` (200 dots per inch) and `NAME.svg` (text as outlines); returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with _settings({"svg.fonttype": "path", "figure.facecolor": "#ffffff"}):
        figure = draw()
        figure.savefig(png, dpi=200, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None})
    return [png, svg]


def _new(title: str, height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    # The object itself, not pyplot: no window system is touched and nothing has to be closed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


@contextmanager
def _settings(more: Mapping[str, Any]) -> Iterator[None]:
    import matplotlib

    settings: Any = {**_RC, **more}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A label may hold characters that the measuring font lacks; the page's fonts have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
