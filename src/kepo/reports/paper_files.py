"""The table of the paper as Markdown, LaTeX and CSV, and its figure as PNG and SVG, in one folder."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from kepo.files import write_text
from kepo.reports.document import NONE, Cell, Document, Row, Section, Table, interval_cell, line, percent
from kepo.reports.load import load_study
from kepo.reports.markdown import as_markdown
from kepo.reports.paper import PER_MODALITY, PaperRow, PaperTable, chosen, paper_tables
from kepo.reports.paper_figure import checkpoint_figures
from kepo.statistics.intervals import Interval

_SHORT = {"Ultrasound": "US", "Dermoscopy": "Derm", "Microscopy": "Micro"}
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
    "−": "$-$",
}


@dataclass(frozen=True, slots=True)
class PaperOutput:
    """What was written.

    Attributes:
        files: All files.
        tables: What they hold.
        notes: What a reader has to know, each once.
    """

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
    from kepo.reports.figures import write_files

    progress("reading runs")
    study = load_study(paths, evaluation, title)
    progress("working out intervals")
    tables = paper_tables(study, per_modality)
    figures, problems = checkpoint_figures(study, tables, checkpoints)
    texts = {
        "table.md": _markdown(study.title, tables),
        "table.tex": "\n".join(latex(study.title, table) for table in tables),
        "table.csv": _csv(_table_rows(tables)),
        "runs.csv": _csv(_run_rows(tables)),
    }
    files = [write_text(text, folder / name) for name, text in texts.items()]
    for name, draw in figures.items():
        progress(f"drawing {name}")
        write_files(draw, folder, name)
        files += [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    notes = dict.fromkeys([note for table in tables for note in table.notes] + problems)
    return PaperOutput(tuple(files), tuple(tables), tuple(notes))


def _columns(table: PaperTable) -> list[str]:
    short = [_SHORT.get(name, line(name, 20)) for name in table.modalities]
    return [*short, f"mean {len(table.modalities)}", f"mean OOD {len(table.out_of_domain)}"]


def _intervals(table: PaperTable, row: PaperRow) -> list[Interval]:
    return [*(row.cells[name] for name in table.modalities), row.mean, row.mean_out]


def _label(row: PaperRow) -> str:
    return f"{row.label} ({line(row.model, 40)})" if row.model else row.label


def _caption(table: PaperTable) -> str:
    return f"Trained on {line(table.source, 60)}" if table.source else "Training modality not known"


def _markdown(title: str, tables: Sequence[PaperTable]) -> str:
    sections = []
    for table in tables:
        rows = [
            Row(_label(row), (Cell(str(len(row.runs))), *map(interval_cell, _intervals(table, row))), row.arm)
            for row in table.rows
        ]
        made = Table("Accuracy in percent", ("arm", "runs", *_columns(table)), tuple(rows), table.notes)
        sections.append(Section(table.source, _caption(table), (made,)))
    return as_markdown(Document(title, "", (), (), tuple(sections), ()))


def latex(title: str, table: PaperTable) -> str:
    """The table as LaTeX; needs the package booktabs."""
    columns = _columns(table)
    lines = [
        f"% {_caption(table)}; needs \\usepackage{{booktabs}}",
        r"\begin{table}",
        rf"\caption{{{escape_latex(title)}. {escape_latex(_caption(table))}. {escape_latex(' '.join(table.notes))}}}",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        " & ".join(["arm", *map(escape_latex, columns)]) + r" \\",
        r"\midrule",
        *(_latex_row(table, row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(table: PaperTable, row: PaperRow) -> str:
    cells = []
    for one in _intervals(table, row):
        ends = f" {{\\scriptsize [{percent(one.low)}, {percent(one.high)}]}}" if isfinite(one.low) and one.n else ""
        cells.append(f"{percent(one.estimate)}{ends}" if one.n else escape_latex(NONE))
    return " & ".join([escape_latex(_label(row)), *cells]) + r" \\"


def escape_latex(text: str) -> str:
    """`text` so that LaTeX prints it as it is."""
    return re.sub(r".", lambda found: _LATEX.get(found[0], found[0]), " ".join(text.split()))


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _table_rows(tables: Sequence[PaperTable]) -> list[Mapping[str, object]]:
    rows: list[Mapping[str, object]] = []
    for table in tables:
        for row in table.rows:
            names = (*table.modalities, "mean", "mean out of domain")
            parts = dict(
                pair for name, one in zip(names, _intervals(table, row), strict=True) for pair in _parts(name, one)
            )
            known = {"trained on": table.source, "arm": row.arm, "label": row.label, "model": row.model}
            rows.append({**known, "runs": len(row.runs), **parts})
    return rows


def _parts(name: str, interval: Interval) -> Iterator[tuple[str, str]]:
    for part in ("estimate", "low", "high"):
        value = getattr(interval, part)
        yield (name if part == "estimate" else f"{name} {part}", f"{value:.6f}" if isfinite(value) else "")


def _run_rows(tables: Sequence[PaperTable]) -> list[Mapping[str, object]]:
    """Each run by itself: what the means are made of, and which checkpoint it was."""
    from kepo.evaluation.accuracy import accuracy_by

    rows: list[Mapping[str, object]] = []
    for table in tables:
        for row in table.rows:
            for run in row.runs:
                assert run.evaluation is not None
                choice = chosen(run) or {}
                found = accuracy_by(run.evaluation.table, "modality")
                known: dict[str, object] = {
                    "trained on": table.source,
                    "arm": row.arm,
                    "replicate": run.replicate,
                    "folder": run.name,
                }
                known |= {"step": choice.get("step", ""), "chosen by": choice.get("chosen_by", "")}
                known |= {"accuracy there": choice.get("accuracy", "")}
                rows.append({**known, **{name: f"{found[name].estimate:.6f}" for name in table.modalities}})
    return rows
