"""The sections that say what came out: the main table, contrasts, and accuracy by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from kepo.evaluation.accuracy import OUT_OF_DOMAIN, accuracy_by, macro_accuracy, split_domains
from kepo.reports import tested
from kepo.reports.claims import ALL, Claims, Comparison, caution
from kepo.reports.document import (
    NONE,
    Block,
    Cell,
    Figure,
    Points,
    Row,
    Section,
    Table,
    interval_cell,
    line,
    mean,
    p_value,
    percent,
    points,
    span,
    tabulate,
    without_empty,
)
from kepo.reports.figures import ArmStyle, arm_styles, heat_figure, intervals_figure
from kepo.reports.study import RunData, Study

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BREAKDOWNS = ("modality", "task", "level")
FEW_QUESTIONS = 30
_RECOGNITION = "Modality Recognition"
"""The task that training on one modality makes trivial there, and that says little elsewhere."""


def accuracy_table(study: Study, claims: Claims) -> Table:
    """Accuracy of every arm with its interval, and nothing else."""
    rows = []
    for arm in study.arms:
        cells = {name: interval_cell(claims.accuracy.get((arm.name, name))) for name in claims.domains}
        steps = dict(zip(tested.columns(study), tested.cells(study, arm.evaluated), strict=True))
        rows.append((arm, {"runs": Cell(str(len(arm.evaluated))), **steps, **cells}))
    return tested.explained(study, tabulate(study.title, "arm", rows, main=study.main))


def main_section(study: Study, claims: Claims) -> Section:
    """The main table and its figures."""
    styles = arm_styles(study)
    ends = [end for found in claims.accuracy.values() for end in (found.estimate, found.low, found.high)]
    limits = span_of([*ends, *claims.chance.values()])
    figures = [_accuracy_figure(study, claims, domain, styles, limits) for domain in claims.domains]
    parts = _parts_table(study, claims)
    every = _comparisons_table(study, "Every comparison", list(claims.comparisons.values()), kind="folded")
    tables = [parts] * (len(parts.columns) > 1) + [every] * bool(every.rows)
    return Section("result", "Result", (_main_table(study, claims), *figures, *tables))


def _accuracy_figure(
    study: Study, claims: Claims, domain: str, styles: Mapping[str, ArmStyle], limits: tuple[float, float]
) -> Figure:
    rows = [(arm.name, arm.label, claims.accuracy[arm.name, domain]) for arm in study.arms if arm.evaluated]
    title = f"Accuracy, {domain}"
    alt = f"{title}: " + "; ".join(f"{label} {percent(found.estimate)} %" for _, label, found in rows)
    chance = {"chance": claims.chance[domain]} if claims.chance[domain] else {}
    return Figure(
        name=f"accuracy-{domain.replace(' ', '-')}",
        caption=" ".join(
            ["Mean over replicates and 95 % interval; the dashed line is chance.", *tested.notes(study.arms)]
        ),
        alt=alt,
        draw=lambda: intervals_figure(title, rows, styles, chance, limits=limits, main=study.main),
    )


def _main_table(study: Study, claims: Claims) -> Table:
    columns = ["arm", "runs", *tested.columns(study)]
    main = study.arm(study.main).label if study.main else ""
    for domain in claims.domains:
        columns.append(f"{domain}, {claims.questions[domain]} questions")
        if claims.comparisons:
            columns += [f"{line(main, 20)} minus this", "p"]
    rows = []
    for arm in study.arms:
        cells = [Cell(str(len(arm.evaluated))), *tested.cells(study, arm.evaluated)]
        for domain in claims.domains:
            cells.append(interval_cell(claims.accuracy.get((arm.name, domain))))
            if claims.comparisons:
                cells += _difference_cells(claims.comparisons.get((arm.name, domain)), main, arm.name == study.main)
        mark = "main" if arm.name == study.main else "" if arm.trained else "reference"
        rows.append(Row(arm.label, tuple(cells), arm.name, mark))
    rows += _reference_rows(claims, 1 + len(tested.columns(study)))
    caption = "Accuracy in percent with 95 % intervals"
    words = tuple(column for column in columns if column == "step tested")
    return tested.explained(
        study, Table(caption, tuple(columns), tuple(rows), tuple(_main_notes(study, claims)), words)
    )


def _difference_cells(comparison: Comparison | None, main: str, is_main: bool) -> list[Cell]:
    if comparison is None:
        return [Cell("" if is_main else NONE)] * 2
    found = comparison.difference
    name = line(main, 14)
    word = {1: f"{name} above", -1: f"{name} below", 0: "not shown"}[comparison.verdict]
    return [
        Cell(points(found.estimate), span(found.low, found.high, signed=True)),
        Cell(p_value(comparison.p_value), word),
    ]


def _reference_rows(claims: Claims, empty: int) -> list[Row]:
    """What guessing scores, and what always answering the most frequent letter does."""
    rows = []
    for label, values in (("Chance", claims.chance), ("Always the most frequent letter", claims.letter)):
        cells = [Cell("")] * empty
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
    names = ", ".join(study.arm(arm).label for arm in claims.family)
    if claims.comparisons:
        yield "Not shown: the interval holds 0 or p is .05 or more, so no difference could be shown."
    if claims.comparisons and len(claims.family) > 1:
        yield f"p is adjusted by Holm over the {len(claims.family)} comparisons of a column with: {names}."
    if any(comparison.adjusted_p is None for comparison in claims.comparisons.values()):
        yield f"The claim is about {names}; p of the other rows is not adjusted for the number of comparisons."
    yield from caution(study, claims)
    for arm, why in claims.skipped.items():
        yield f"{study.arm(arm).label} is not compared: {why}."


def _comparisons_table(study: Study, title: str, comparisons: Sequence[Comparison], kind: str = "") -> Table:
    rows = [
        (
            study.arm(one.first),
            {
                "second": study.arm(one.second).label,
                "questions": one.domain,
                "difference": points(one.difference.estimate),
                "95 % interval": span(one.difference.low, one.difference.high, signed=True),
                "p": p_value(one.difference.p_value),
                "p (Holm)": p_value(one.adjusted_p),
                "p (sign flips)": p_value(one.sign_flip_p),
                "pairs": str(one.difference.replicates),
                "base students": str(one.clusters),
            },
        )
        for one in comparisons
    ]
    note = (
        "Differences are first minus second, in percentage points. p (sign flips) is the randomization test over pairs "
        "of runs; with fewer than six pairs it cannot fall below .05."
    )
    return tested.explained(study, tabulate(title, "first", rows, (note,), ("second", "questions"), kind=kind))


def contrasts_sections(study: Study, claims: Claims) -> list[Section]:
    """A section for each question that the study's own file asks, with its answer in words and in numbers."""
    caption = "Differences; p (Holm) is adjusted within this table and domain"
    sections = []
    for place, contrast in enumerate(claims.contrasts, start=1):
        words = Points(tuple(_in_words(study, contrast.comparisons)))
        table = _comparisons_table(study, caption, contrast.comparisons)
        sections.append(Section(f"contrast-{place}", line(contrast.title), (words, table)))
    return sections


def _in_words(study: Study, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """What the comparisons of each pair come to."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in comparisons:
        gap = points(one.difference.estimate)
        found = f"{gap} points {one.domain}" if one.verdict else f"no difference shown {one.domain} ({gap})"
        pairs.setdefault((one.first, one.second), []).append(found)
    for (first, second), found_there in pairs.items():
        yield f"{study.arm(first).label} against {study.arm(second).label}: {'; '.join(found_there)}."


def _parts_table(study: Study, claims: Claims) -> Table:
    """Accuracy on parts of the questions that say more than the whole; no column where the questions have no such."""
    rows = []
    for arm in study.arms:
        parts = [_parts(run, study.described.in_domain, claims.domains) for run in arm.evaluated]
        if parts:
            rows.append((arm, {name: percent(mean([part[name] for part in parts])) for name in parts[0]}))
    note = (
        f"Means over modalities. Who trains on one modality learns to name it, so one column leaves out {_RECOGNITION}."
    )
    caption = "Accuracy on parts of the questions, in percent"
    return tested.explained(study, without_empty(tabulate(caption, "arm", rows, (note,), main=study.main)))


def _parts(run: RunData, in_domain: Sequence[str], domains: Sequence[str]) -> dict[str, float | None]:
    """Heading -> accuracy, the mean over modalities; None where the part is empty or everything."""
    import pyarrow.compute as pc

    whole = {**split_domains(run.table, run.in_domain or in_domain), ALL: run.table}
    found: dict[str, float | None] = {}
    for domain in domains:
        table = whole[domain]
        if domain == OUT_OF_DOMAIN:
            rest = table.filter(pc.not_equal(table["task"], _RECOGNITION))
            found[f"{domain}, without {_RECOGNITION}"] = _macro(rest, table)
        found[f"{domain}, level 2 and above"] = _macro(table.filter(pc.greater_equal(table["level"], 2)), table)
    return found


def _macro(part: pa.Table, whole: pa.Table) -> float | None:
    return macro_accuracy(part) if 0 < len(part) < len(whole) else None


def breakdown_section(study: Study) -> Section | None:
    """Accuracy by modality, task and level."""
    blocks: list[Block] = []
    trained_on = {name for run in study.evaluated for name in run.in_domain}
    for column in BREAKDOWNS:
        found = _accuracy_by_arm(study, column)
        if len(found.columns) > 1:
            known = trained_on if column == "modality" else ()
            found.columns = [f"{group} (trained on)" if group in known else group for group in found.columns]
            blocks += [_heat_table(study, column, found), _heat_figure(study, column, found)]
    return Section("groups", "By modality, task and level", tuple(blocks)) if blocks else None


def _accuracy_by_arm(study: Study, column: str) -> pd.DataFrame:
    """Arms x groups of questions: accuracy, mean over replicates; NaN where an arm has no such question."""
    import pandas as pd

    rows = [
        (arm.name, group, found.estimate)
        for arm in study.arms
        for run in arm.evaluated
        for group, found in accuracy_by(run.table, column).items()
        if group is not None
    ]
    made = pd.DataFrame(rows, columns=["arm", "group", "accuracy"])
    made = made.pivot_table(index="arm", columns="group", values="accuracy", sort=False)
    return made[sorted(made.columns, key=_natural)]


def _heat_figure(study: Study, column: str, found: pd.DataFrame) -> Figure:
    title, labels = f"Accuracy by {column}, %", [study.arm(arm).label for arm in found.index]
    return Figure(
        name=f"accuracy-by-{column}",
        caption="",
        alt=title,
        draw=lambda: heat_figure(title, labels, list(found.columns), found.to_numpy()),
        in_page=False,
    )


def _heat_table(study: Study, column: str, found: pd.DataFrame) -> Table:
    low, high = found.min(axis=None), found.max(axis=None)

    def cell(value: float) -> Cell:
        shade = (value - low) / (high - low) if high > low else 0.5
        return Cell(percent(value), shade=shade if isfinite(value) else None)

    rows = [
        (study.arm(str(arm)), {str(group): cell(v) for group, v in values.items()}) for arm, values in found.iterrows()
    ]
    caption = f"Accuracy by {column}, in percent, mean over replicates"
    table = tabulate(caption, "arm", rows, (_numbers(study, column),), kind="heat", main=study.main)
    return tested.explained(study, table)


def _numbers(study: Study, column: str) -> str:
    """How many questions each group has: an accuracy of few says little, and has no interval here."""
    counts = {str(group): found.n for group, found in accuracy_by(study.evaluated[0].table, column).items() if group}
    few = (
        " Of few questions an accuracy says little."
        if min(counts.values(), default=FEW_QUESTIONS) < FEW_QUESTIONS
        else ""
    )
    return f"Questions: {', '.join(f'{line(group, 40)} {count}' for group, count in counts.items())}.{few}"


def span_of(values: Sequence[float]) -> tuple[float, float]:
    """A range for an axis that holds all known values (0..1) with a little room."""
    known = [value for value in values if isfinite(value)]
    low, high = min(known), max(known)
    room = 0.04 * max(high - low, 0.05)
    return max(low - room, -0.01), min(high + room, 1.01)


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.lstrip("-").isdigit() else (10**9, text)
