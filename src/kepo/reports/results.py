"""The sections that say what came out: the main table, and accuracy by modality, task and level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from kepo.evaluation.accuracy import accuracy_by
from kepo.reports.claims import FEW_CLUSTERS, FEW_REPLICATES, Claims, Comparison
from kepo.reports.document import (
    NONE,
    Block,
    Cell,
    Figure,
    Row,
    Section,
    Table,
    interval_cell,
    line,
    mean,
    p_value,
    percent,
    points,
    shades,
    span,
)
from kepo.reports.figures import as_svg, heat_figure, intervals_figure
from kepo.reports.palette import arm_styles
from kepo.reports.study import Arm, RunData, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

BREAKDOWNS = ("modality", "task", "level")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure and how to draw it again, for files."""

    figure: Figure | None
    name: str
    draw: Callable[[], Drawing]


def main_section(study: Study, claims: Claims) -> tuple[Section, list[Drawn]]:
    """The main table and its figures."""
    styles = arm_styles(study)
    drawn = []
    ends = [end for found in claims.accuracy.values() for end in (found.estimate, found.low, found.high)]
    limits = span_of([*ends, *claims.chance.values()])
    for domain in claims.domains:
        rows = [
            (arm.name, arm.label, claims.accuracy[arm.name, domain])
            for arm in study.arms
            if (arm.name, domain) in claims.accuracy
        ]
        title = f"Accuracy, {domain}"
        alt = f"{title}: " + "; ".join(f"{label} {percent(found.estimate)} %" for _, label, found in rows)
        chance = {"chance": claims.chance[domain]} if claims.chance[domain] else {}

        def draw(title: str = title, rows: list = rows, chance: Mapping[str, float] = chance) -> Drawing:
            return intervals_figure(title, rows, styles, chance, limits=limits, main=study.main)

        name = f"accuracy-{domain.replace(' ', '-')}"
        caption = "Mean over replicates and 95 % interval; the dashed line is chance."
        drawn.append(Drawn(Figure(name, caption, alt, as_svg(draw, name, alt)), name, draw))
    figures = [one.figure for one in drawn if one.figure]
    blocks: list[Block] = [_main_table(study, claims), *figures]
    if claims.comparisons:
        blocks.append(_comparisons_table(study, claims))
    return Section("result", "Result", tuple(blocks)), drawn


def _main_table(study: Study, claims: Claims) -> Table:
    columns = ["arm", "runs"]
    main = study.arm(study.main).label if study.main else ""
    for domain in claims.domains:
        columns.append(f"{domain}, {claims.questions[domain]} questions")
        if claims.comparisons:
            columns += [f"{line(main, 20)} minus this", "p"]
    rows = []
    for arm in study.arms:
        evaluated = sum(run.evaluation is not None for run in arm.runs)
        cells = [Cell(str(evaluated))]
        for domain in claims.domains:
            cells.append(interval_cell(claims.accuracy.get((arm.name, domain))))
            if claims.comparisons:
                cells += _difference_cells(claims.comparisons.get((arm.name, domain)), main, arm.name == study.main)
        mark = "main" if arm.name == study.main else "" if arm.trained else "reference"
        rows.append(Row(arm.label, tuple(cells), arm.name, mark))
    rows += _reference_rows(claims)
    return Table(
        "Accuracy in percent with 95 % intervals", tuple(columns), tuple(rows), tuple(_main_notes(study, claims))
    )


def _difference_cells(comparison: Comparison | None, main: str, is_main: bool) -> list[Cell]:
    if comparison is None:
        return [Cell("" if is_main else NONE)] * 2
    found = comparison.difference
    p = found.p_value if comparison.adjusted_p is None else comparison.adjusted_p
    name = line(main, 14)
    word = {1: f"{name} above", -1: f"{name} below", 0: "not shown"}[comparison.verdict]
    return [Cell(points(found.estimate), span(found.low, found.high, signed=True)), Cell(p_value(p), word)]


def _reference_rows(claims: Claims) -> list[Row]:
    """What guessing scores, and what always answering the most frequent letter does."""
    rows = []
    for label, values in (("Chance", claims.chance), ("Always the most frequent letter", claims.letter)):
        cells = [Cell("")]
        for domain in claims.domains:
            cells += [Cell(percent(values[domain])), *[Cell("")] * (2 if claims.comparisons else 0)]
        if any(values.values()):
            rows.append(Row(label, tuple(cells), None, "reference"))
    return rows


def _main_notes(study: Study, claims: Claims) -> Iterator[str]:
    yield (
        "Intervals and p-values: paired bootstrap over replicates (whole base students where there are several) and "
        "questions, 10,000 draws."
    )
    if claims.comparisons:
        yield "Not shown: the interval holds 0 or p is .05 or more, so no difference could be shown."
    if claims.comparisons and len(claims.family) > 1:
        names = ", ".join(study.arm(arm).label for arm in claims.family)
        yield f"p is adjusted by Holm over the {len(claims.family)} comparisons of a column with: {names}."
    if claims.comparisons and any(comparison.adjusted_p is None for comparison in claims.comparisons.values()):
        names = ", ".join(study.arm(arm).label for arm in claims.family)
        yield f"The claim is about {names}; p of the other rows is not adjusted for the number of comparisons."
    yield from _caution(claims)
    for arm, why in claims.skipped.items():
        yield f"{study.arm(arm).label} is not compared: {why}."


def _caution(claims: Claims) -> Iterator[str]:
    """What the number of runs does to the intervals."""
    few = min((one.difference.replicates for one in claims.comparisons.values()), default=FEW_REPLICATES)
    clusters = min((one.clusters for one in claims.comparisons.values()), default=1)
    if few == 1:
        yield "With one pair of runs the interval covers the choice of questions only: another seed may differ by more."
    elif 1 < clusters < FEW_CLUSTERS:
        yield f"With {clusters} base students the intervals are too narrow where these differ much."
    elif few < FEW_REPLICATES:
        yield f"With {few} pairs of runs the intervals are somewhat too narrow."


def _comparisons_table(study: Study, claims: Claims) -> Table:
    columns = (
        "main arm minus",
        "questions",
        "difference",
        "95 % interval",
        "p",
        "p (Holm)",
        "p (sign flips)",
        "pairs",
        "base students",
    )
    rows = []
    for (arm, domain), one in claims.comparisons.items():
        found = one.difference
        texts = (
            domain,
            points(found.estimate),
            span(found.low, found.high, signed=True),
            p_value(found.p_value),
            p_value(one.adjusted_p),
            p_value(one.sign_flip_p),
            str(found.replicates),
            str(one.clusters),
        )
        rows.append(Row(study.arm(arm).label, tuple(map(Cell, texts)), arm))
    note = (
        "p (sign flips) is the exact randomization test over pairs of runs; with fewer than six pairs it cannot fall "
        "below .05."
    )
    return Table("Every comparison", columns, tuple(rows), (note,), ("questions",), kind="folded")


def breakdown_section(study: Study) -> tuple[Section | None, list[Drawn]]:
    """Accuracy by modality, task and level."""
    blocks: list[Block] = []
    drawn = []
    trained_on = {name for run in study.runs if run.evaluation for name in run.evaluation.in_domain}
    for column in BREAKDOWNS:
        values = {arm.name: _means(arm, column) for arm in study.arms}
        groups = sorted({group for found in values.values() for group in found}, key=_natural)
        if len(groups) < 2:
            continue
        arms = [arm for arm in study.arms if values[arm.name]]
        grid = [[values[arm.name].get(group) for group in groups] for arm in arms]
        names = [f"{group} (trained on)" if column == "modality" and group in trained_on else group for group in groups]
        blocks.append(_heat_table(study, column, names, arms, grid))

        def draw(column: str = column, arms: list[Arm] = arms, names: list[str] = names, grid: list = grid) -> Drawing:
            return heat_figure(f"Accuracy by {column}, %", [arm.label for arm in arms], names, grid)

        drawn.append(Drawn(None, f"accuracy-by-{column}", draw))
    return (Section("groups", "By modality, task and level", tuple(blocks)) if blocks else None), drawn


def _heat_table(study: Study, column: str, names: list[str], arms: list[Arm], grid: list[list[float | None]]) -> Table:
    shaded = iter(shades([value for row in grid for value in row]))
    rows = []
    for arm, row in zip(arms, grid, strict=True):
        cells = tuple(Cell(percent(value), shade=next(shaded)) for value in row)
        rows.append(Row(arm.label, cells, arm.name, "main" if arm.name == study.main else ""))
    caption = f"Accuracy by {column}, in percent, mean over replicates"
    return Table(caption, ("arm", *names), tuple(rows), kind="heat")


def span_of(values: Sequence[float]) -> tuple[float, float]:
    """A range for an axis that holds all known values (0..1) with a little room."""
    known = [value for value in values if isfinite(value)]
    low, high = min(known), max(known)
    room = 0.04 * max(high - low, 0.05)
    return max(low - room, -0.01), min(high + room, 1.01)


def _means(arm: Arm, column: str) -> dict[str, float]:
    """Group -> mean accuracy over the arm's runs."""
    found: dict[str, list[float | None]] = {}
    for run in arm.runs:
        for group, interval in _groups(run, column).items():
            found.setdefault(group, []).append(interval)
    return {group: value for group, values in found.items() if (value := mean(values)) is not None}


def _groups(run: RunData, column: str) -> dict[str, float | None]:
    if run.evaluation is None:
        return {}
    return {key: found.estimate for key, found in accuracy_by(run.evaluation.table, column).items() if key is not None}


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.lstrip("-").isdigit() else (10**9, text)
