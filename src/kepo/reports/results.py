"""The sections that say what came out: the headline, the main table, accuracy by modality, task and level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kepo.evaluation.accuracy import OUT_OF_DOMAIN, accuracy_by, majority_letter_accuracy
from kepo.reports.claims import FEW_REPLICATES, Claims, Comparison, chance_of
from kepo.reports.document import (
    NONE,
    Block,
    Cell,
    Figure,
    Row,
    Section,
    Table,
    interval_cell,
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


def headline(study: Study, claims: Claims | None) -> tuple[str, ...]:
    """The result in sentences that follow from the numbers."""
    if claims is None:
        return (f"No run has an evaluation named '{study.evaluation}'; what follows is about training.",)
    if not claims.comparisons:
        return (_only_accuracy(study, claims),)
    domain = OUT_OF_DOMAIN if OUT_OF_DOMAIN in claims.domains else claims.domains[-1]
    others = [name for name in claims.domains if name != domain]
    sentences = [
        f"{_sentence(study, claims, arm, domain)} {' '.join(_sentence(study, claims, arm, other) for other in others)}"
        for arm in claims.family[:3]
    ]
    return (*(sentence.strip() for sentence in sentences), *_overview(study, claims, domain))


def _only_accuracy(study: Study, claims: Claims) -> str:
    arm = next(arm for arm in study.arms if (arm.name, claims.domains[0]) in claims.accuracy)
    parts = []
    for domain in claims.domains:
        found = claims.accuracy[arm.name, domain]
        ends = span(found.low, found.high)
        parts.append(f"{percent(found.estimate)} %{_place(domain)} (95 % CI {ends})")
    return f"{arm.label} answers {' and '.join(parts)} correctly."


def _sentence(study: Study, claims: Claims, arm: str, domain: str) -> str:
    assert study.main is not None
    comparison = claims.comparisons[arm, domain]
    found, main, other = comparison.difference, study.arm(study.main).label, study.arm(arm).label
    adjusted = comparison.adjusted_p
    p = p_value(found.p_value if adjusted is None else adjusted)
    note = " after Holm's adjustment" if adjusted is not None and len(claims.family) > 1 else ""
    numbers = f"95 % CI {span(found.low, found.high, signed=True)}, p {p if p.startswith('<') else f'= {p}'}{note}"
    if comparison.verdict == 0:
        return (
            f"{_capital(_place(domain).strip() or 'on all questions')}, no difference between {main} and {other} could "
            f"be shown ({points(found.estimate)} points, {numbers})."
        )
    word = "above" if comparison.verdict > 0 else "below"
    return f"{main} is {word} {other}{_place(domain)} by {points(found.estimate)} points ({numbers})."


def _overview(study: Study, claims: Claims, domain: str) -> Iterator[str]:
    """How the main arm does against all others together, where there are more than the sentences name."""
    assert study.main is not None
    compared = [claims.comparisons[arm.name, domain] for arm in study.arms if (arm.name, domain) in claims.comparisons]
    if len(compared) <= len(claims.family[:3]):
        return
    above, below = (sum(one.verdict == verdict for one in compared) for verdict in (1, -1))
    yield (
        f"Of {len(compared)} other arms,{_place(domain)}, {study.arm(study.main).label} is above {above} and below "
        f"{below}; for {len(compared) - above - below} no difference could be shown."
    )


def _place(domain: str) -> str:
    return {"in-domain": " in domain", "out-of-domain": " out of domain"}.get(domain, "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def main_section(study: Study, claims: Claims) -> tuple[Section, list[Drawn]]:
    """The main table and its figures."""
    styles = arm_styles(study)
    drawn = []
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
            return intervals_figure(title, rows, styles, chance, main=study.main)

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
    for domain in claims.domains:
        columns.append(f"{domain} ({claims.questions[domain]} questions)")
        if claims.comparisons:
            columns += [f"main arm minus this, {domain}", "p"]
    rows = []
    for arm in study.arms:
        evaluated = sum(run.evaluation is not None for run in arm.runs)
        cells = [Cell(str(evaluated))]
        for domain in claims.domains:
            cells.append(interval_cell(claims.accuracy.get((arm.name, domain))))
            if claims.comparisons:
                cells += _difference_cells(claims.comparisons.get((arm.name, domain)), arm.name == study.main)
        mark = "main" if arm.name == study.main else "" if arm.trained else "reference"
        rows.append(Row(arm.label, tuple(cells), arm.name, mark))
    rows += _reference_rows(study, claims)
    return Table(
        "Accuracy in percent with 95 % intervals", tuple(columns), tuple(rows), tuple(_main_notes(study, claims))
    )


def _difference_cells(comparison: Comparison | None, is_main: bool) -> list[Cell]:
    if comparison is None:
        return [Cell("" if is_main else NONE)] * 2
    found = comparison.difference
    p = found.p_value if comparison.adjusted_p is None else comparison.adjusted_p
    word = {1: "main arm above", -1: "main arm below", 0: "not shown"}[comparison.verdict]
    return [Cell(points(found.estimate), span(found.low, found.high, signed=True)), Cell(p_value(p), word)]


def _reference_rows(study: Study, claims: Claims) -> list[Row]:
    """Chance, and always the most frequent letter."""
    width = 3 if claims.comparisons else 1
    table = next(run.evaluation.table for run in study.runs if run.evaluation)
    cells: list[Cell] = [Cell("")]
    for domain in claims.domains:
        cells += [Cell(percent(claims.chance[domain]) if claims.chance[domain] else NONE)]
        cells += [Cell("")] * (width - 1)
    letter = percent(majority_letter_accuracy(table))
    rows = [Row(f"Chance (always the most frequent letter: {letter})", tuple(cells), None, "reference")]
    return rows if chance_of(table) else []


def _main_notes(study: Study, claims: Claims) -> Iterator[str]:
    yield (
        "Intervals and p-values: paired bootstrap over replicates (whole base students where there are several) and "
        "questions, 10,000 draws."
    )
    if claims.comparisons and len(claims.family) > 1:
        names = ", ".join(study.arm(arm).label for arm in claims.family)
        yield f"p is adjusted by Holm over the {len(claims.family)} comparisons of a column with: {names}."
    if claims.comparisons and any(comparison.adjusted_p is None for comparison in claims.comparisons.values()):
        yield "p of other rows is not adjusted."
    few = min((one.difference.replicates for one in claims.comparisons.values()), default=FEW_REPLICATES)
    if few == 1:
        yield "With one pair of runs the interval covers the choice of questions only: another seed may differ by more."
    elif few < FEW_REPLICATES:
        yield f"With {few} pairs of runs the intervals are somewhat too narrow."
    for arm, why in claims.skipped.items():
        yield f"{study.arm(arm).label} is not compared: {why}."


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
