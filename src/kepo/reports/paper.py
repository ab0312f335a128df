"""The table of the paper: accuracy of every arm on each of the eight modalities, and the means over them.

One table for each training modality, as Markdown, LaTeX and CSV, with the figure of checkpoints, in one folder.
Legend: R runs (seeds), Q questions, M modalities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kepo.data.omnimedvqa import MODALITIES
from kepo.errors import DataError
from kepo.evaluation.accuracy import (
    IN_DOMAIN,
    OUT_OF_DOMAIN,
    accuracy_by,
    macro_accuracy,
    paired_scores,
    split_domains,
)
from kepo.evaluation.contamination import in_words
from kepo.files import write_text
from kepo.reports.curves import Curve, over_replicates
from kepo.reports.document import Cell, Document, Section, Table, interval_cell, line, tabulate
from kepo.reports.figures import arm_styles, drawn_arms, panels_figure, write_files
from kepo.reports.load import load_study, same_questions
from kepo.reports.markup import as_latex, as_markdown
from kepo.reports.study import Arm, RunData, Study
from kepo.reports.tested import notes, steps_text, weights_tested
from kepo.runs import checkpoints_in, evaluation_file, read_evaluation
from kepo.statistics.accuracy import macro_interval
from kepo.statistics.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.figure import Figure

MEAN, MEAN_OUT = "mean", "mean out of domain"
PER_MODALITY = 300
"""Test questions of each modality in the paper's protocol."""
_SHORT = {"Ultrasound": "US", "Dermoscopy": "Derm", "Microscopy": "Micro"}
_PANELS = {IN_DOMAIN: "Accuracy in domain, %", OUT_OF_DOMAIN: "Mean accuracy out of domain, %"}


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One arm from one base model."""

    arm: Arm  # with these runs only
    model: str  # the base model; empty where all rows have the same
    cells: Mapping[str, Interval]  # modality -> accuracy, mean over runs; then `MEAN` and `MEAN_OUT`, modalities alike


@dataclass(frozen=True, slots=True)
class PaperTable:
    """All arms trained on the same modality."""

    source: str  # the modality (or modalities) trained on; empty: not known
    modalities: tuple[str, ...]  # of the questions, in the order of columns
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]  # what a reader has to know

    @property
    def out_of_domain(self) -> tuple[str, ...]:
        """The modalities that were not trained on."""
        return tuple(name for name in self.modalities if name not in self.source.split(", "))

    @property
    def caption(self) -> str:
        """What it was trained on."""
        return f"Trained on {line(self.source, 60)}" if self.source else "Training modality not known"


@dataclass(frozen=True, slots=True)
class PaperOutput:
    """What was written: all files, the tables in them, and what a reader has to know, each once."""

    files: tuple[Path, ...]
    tables: tuple[PaperTable, ...]
    notes: tuple[str, ...]


def write_paper(
    paths: Sequence[str | Path],
    folder: Path,
    *,
    evaluation: str = "test",
    checkpoints: str = "validation",
    per_modality: int = PER_MODALITY,
    title: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> PaperOutput:
    """Write `table.md`, `table.tex`, `table.csv`, `runs.csv` and `checkpoints-*.png` and `.svg` into `folder`.

    Args:
        paths: Run folders, or folders that hold some.
        folder: Made if needed; files of these names are replaced.
        evaluation: The evaluation of the table.
        checkpoints: The evaluation of checkpoints for the figure.
        per_modality: Questions that each modality should have.
        title: Of the table; default: the study's.
        progress: Called with what is done next.

    Raises:
        DataError: There is no such evaluation, or the disk refuses.
    """
    progress("reading runs")
    study = load_study(paths, evaluation, title)
    progress("working out intervals")
    tables = paper_tables(study, per_modality)
    figures, problems = _checkpoint_figures(study, tables, checkpoints)
    sections = (Section(table.source, table.caption, (_shown("Accuracy in percent", table),)) for table in tables)
    latex = (as_latex(_shown(f"{study.title}. {table.caption}", table, runs=False)) for table in tables)
    texts = {
        "table.md": as_markdown(Document(study.title, sections=tuple(sections))),
        "table.tex": "\n".join(latex),
        "table.csv": _csv(_table_frame(tables)),
        "runs.csv": _csv(_run_frame(tables)),
    }
    files = [write_text(text, folder / name) for name, text in texts.items()]
    for name, draw in figures.items():
        progress(f"drawing {name}")
        files += write_files(draw, folder, name)
    notes = dict.fromkeys([note for table in tables for note in table.notes] + problems)
    return PaperOutput(tuple(files), tuple(tables), tuple(notes))


def paper_tables(study: Study, per_modality: int = PER_MODALITY) -> list[PaperTable]:
    """A table for each training modality, in the order of columns.

    Args:
        study: Runs with an evaluation.
        per_modality: Questions that each modality should have; others are pointed out.

    Raises:
        DataError: No run has the evaluation.
    """
    study, aside = same_questions(study)
    if not study.evaluated:
        raise DataError(f"No run has an evaluation named {study.evaluation!r}; `kepo eval` makes one.")
    several_models = len({run.cluster for run in study.runs}) > 1 and any("/" in run.replicate for run in study.runs)
    left_out = [f"{len(aside)} run(s) answered other questions than the rest and are left out."] if aside else []
    sources = {", ".join(run.in_domain) for run in study.evaluated}
    return [_table(study, source, per_modality, several_models, left_out) for source in sorted(sources, key=_place)]


def _place(modality: str) -> tuple[int, str]:
    return (MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES), modality)


def _table(study: Study, source: str, per_modality: int, several_models: bool, notes: Sequence[str]) -> PaperTable:
    groups: dict[tuple[str, str], list[RunData]] = {}
    for run in study.evaluated:
        if ", ".join(run.in_domain) == source:
            groups.setdefault((run.arm, run.cluster if several_models else ""), []).append(run)
    counts = _counts(next(iter(groups.values()))[0].table)
    modalities = tuple(sorted(counts, key=_place))
    rows = [
        _row(replace(study.arm(arm), runs=tuple(runs)), model, source, modalities)
        for (arm, model), runs in groups.items()
    ]
    found = (*notes, *_protocol(counts, source, per_modality), *_about_runs(rows))
    return PaperTable(source, modalities, tuple(rows), found)


def _row(arm: Arm, model: str, source: str, modalities: Sequence[str]) -> PaperRow:
    ids, scores = paired_scores([run.table for run in arm.runs])
    of = _modalities_of(arm.runs[0].table)
    columns = np.array([str(of[id_]) for id_ in ids])
    outside = [name for name in modalities if source and name not in source.split(", ")]
    averaged = {**{name: [name] for name in modalities}, MEAN: list(modalities), MEAN_OUT: outside}
    return PaperRow(arm, model, {name: macro_interval(scores, columns, names) for name, names in averaged.items()})


def _modalities_of(table: pa.Table) -> dict[str, str | None]:
    return dict(zip(table["id"].to_pylist(), table["modality"].to_pylist(), strict=True))


def _counts(table: pa.Table) -> Counter[str]:
    return Counter(name for name in _modalities_of(table).values() if name is not None)


def _protocol(counts: Mapping[str, int], source: str, per_modality: int) -> Iterator[str]:
    """What of the paper's protocol is different here."""
    others = [f"{name} {counts.get(name, 0)}" for name in MODALITIES if counts.get(name, 0) != per_modality]
    if others:
        yield f"The protocol has {per_modality} questions of each modality; here there are: {', '.join(others)}."
    for name in sorted(set(counts) - set(MODALITIES)):
        yield f"{line(name, 40)} is none of the protocol's eight modalities ({counts[name]} questions)."
    if not source:
        yield "The evaluations do not say which modality was trained on, so there is no mean out of domain."


def _about_runs(rows: Sequence[PaperRow]) -> Iterator[str]:
    yield (
        "Accuracy in percent, mean over seeds, with 95 % intervals of a bootstrap over seeds and questions; the means "
        "weigh every modality alike."
    )
    runs = [run for row in rows for run in row.arm.runs]
    named = {
        "One seed, so its interval covers questions only": [
            row.arm.label for row in rows if len(row.arm.runs) == 1 and row.arm.runs[0].trained
        ],
        "Tested without a choice of checkpoint on validation data": [
            run.name for run in runs if run.trained and not ((found := weights_tested(run)) and found.chosen_by)
        ],
        "Not finished": [run.name for run in runs if run.run.status != "finished"],
    }
    yield from (f"{what}: {line(', '.join(dict.fromkeys(names)), 400)}." for what, names in named.items() if names)
    arms = {row.arm.name: row.arm for row in rows}
    yield from notes([replace(arm, runs=tuple(run for run in runs if run.arm == name)) for name, arm in arms.items()])
    contaminated = [run.name for run in runs if run.evaluation and in_words(run.evaluation.description)]
    if contaminated:
        yield f"Tested with questions that they were trained on: {line(', '.join(contaminated), 400)}."


def _shown(caption: str, table: PaperTable, *, runs: bool = True) -> Table:
    """The table for readers, with or without the number of runs."""
    short = [_SHORT.get(name, line(name, 20)) for name in table.modalities]
    columns = [*short, f"mean {len(table.modalities)}", f"mean OOD {len(table.out_of_domain)}"]
    rows = []
    for row in table.rows:
        label = f"{row.arm.label} ({line(row.model, 40)})" if row.model else row.arm.label
        cells = dict(zip(columns, map(interval_cell, row.cells.values()), strict=True))
        known = {"runs": Cell(str(len(row.arm.runs)))} if runs else {}
        known["step"] = Cell(steps_text(row.arm.runs))
        rows.append((replace(row.arm, label=label), known | cells))
    return tabulate(caption, "arm", rows, table.notes, ("step",))


def _table_frame(tables: Sequence[PaperTable]) -> pd.DataFrame:
    """A row per arm and base model, with estimate and ends of every interval, 0..1."""
    import pandas as pd

    rows = []
    for table in tables:
        for row in table.rows:
            known = {"trained on": table.source, "arm": row.arm.name, "label": row.arm.label, "model": row.model}
            known["steps tested"] = steps_text(row.arm.runs)
            numbers: dict[str, float] = {"runs": len(row.arm.runs)}
            for name, one in row.cells.items():
                numbers |= {name: one.estimate, f"{name} low": one.low, f"{name} high": one.high}
            rows.append({**known, **numbers})
    return pd.DataFrame(rows)


def _run_frame(tables: Sequence[PaperTable]) -> pd.DataFrame:
    """A row per run: what the means are made of, and which checkpoint it was."""
    import pandas as pd

    rows = []
    for table in tables:
        for run in (run for row in table.rows for run in row.arm.runs):
            weights, found = weights_tested(run), accuracy_by(run.table, "modality")
            known: dict[str, object] = {"trained on": table.source, "arm": run.arm}
            known |= {"replicate": run.replicate, "folder": run.name}
            if weights is not None:
                known |= {"step": weights.step, "last step": weights.last, "chosen by": weights.chosen_by or None}
                known |= {"accuracy there": weights.accuracy, "accuracy at the end": weights.accuracy_at_end}
            rows.append({**known, **{name: found[name].estimate for name in table.modalities}})
    columns = ["trained on", "arm", "replicate", "folder", "step", "last step", "chosen by", "accuracy there"]
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=list(dict.fromkeys([*columns, "accuracy at the end", *frame.columns])))
    return frame.astype({"step": "Int64", "last step": "Int64"})


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def _checkpoint_figures(
    study: Study, tables: Sequence[PaperTable], name: str
) -> tuple[dict[str, Callable[[], Figure]], list[str]]:
    """Accuracy of every checkpoint over steps, a figure for each training modality and base model.

    Returns:
        Name of the figure -> how to draw it, and what could not be drawn, in sentences.
    """
    figures: dict[str, Callable[[], Figure]] = {}
    problems = []
    for table in tables:
        for model in dict.fromkeys(row.model for row in table.rows):
            panels, drawn = _panels(study, table, model, name)
            suffix = "-".join(part for part in (table.source.replace(", ", "-"), model) if part)
            if not panels:
                problems.append(f"No checkpoint of {suffix or 'any run'} has an evaluation {name!r}: no figure.")
                continue
            if len(panels) < 2:
                problems.append(f"The evaluation {name!r} has no question out of domain, so the figure has one panel.")
            left_out = [row.arm.label for row in table.rows if row.arm.name not in drawn and row.arm.runs[0].trained]
            if left_out:
                problems.append(f"To keep the lines apart, the figure leaves out: {', '.join(left_out)}.")
            figures["-".join(part for part in ("checkpoints", suffix) if part)] = _drawing(study, panels)
    return figures, problems


def _drawing(study: Study, panels: Mapping[str, Mapping[str, Curve]]) -> Callable[[], Figure]:
    labels = {arm.name: arm.label for arm in study.arms}
    return lambda: panels_figure(panels, arm_styles(study), labels)


def _panels(study: Study, table: PaperTable, model: str, name: str) -> tuple[dict[str, dict[str, Curve]], list[str]]:
    """Title -> arm -> curve, and the arms that are drawn."""
    courses = [
        (row.arm, found)
        for row in table.rows
        if row.model == model and (found := [one for run in row.arm.runs if (one := _course(run, name))])
    ]
    if not courses:
        return {}, []
    drawn = drawn_arms(replace(study, arms=tuple(arm for arm, _ in courses)))
    panels: dict[str, dict[str, Curve]] = {}
    for domain, title in _PANELS.items():
        for arm, found in courses:
            series = [{step: one[domain] for step, one in run.items() if isfinite(one[domain])} for run in found]
            if arm.name in drawn and any(series):
                panels.setdefault(title, {})[arm.name] = over_replicates([one for one in series if one])
    return panels, drawn


def _course(run: RunData, name: str) -> dict[int, dict[str, float]]:
    """Step -> domain -> accuracy, the mean over modalities (NaN where there are none)."""
    found = {}
    for step, folder in checkpoints_in(run.run.folder).items():
        if evaluation_file(folder, name).is_file():
            evaluation = read_evaluation(folder, name, texts=False)
            parts = split_domains(evaluation.table, evaluation.in_domain)
            found[step] = {domain: macro_accuracy(part) for domain, part in parts.items()}
    return found
