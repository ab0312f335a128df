"""The table of the paper as Markdown, LaTeX and CSV, and its figure as PNG and SVG, in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kepo.evaluation.accuracy import accuracy_by
from kepo.files import write_text
from kepo.reports.document import Cell, Document, Row, Section, Table, interval_cell, line
from kepo.reports.latex import as_latex
from kepo.reports.load import load_study
from kepo.reports.markdown import as_markdown
from kepo.reports.paper import PER_MODALITY, PaperTable, chosen, paper_tables
from kepo.reports.paper_figure import checkpoint_figures

if TYPE_CHECKING:
    import pandas as pd

_SHORT = {"Ultrasound": "US", "Dermoscopy": "Derm", "Microscopy": "Micro"}


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
    sections = (Section(table.source, _caption(table), (_table("Accuracy in percent", table),)) for table in tables)
    texts = {
        "table.md": as_markdown(Document(study.title, "", (), (), tuple(sections), ())),
        "table.tex": "\n".join(
            as_latex(_table(f"{study.title}. {_caption(table)}", table, runs=False)) for table in tables
        ),
        "table.csv": _csv(table_frame(tables)),
        "runs.csv": _csv(run_frame(tables)),
    }
    files = [write_text(text, folder / name) for name, text in texts.items()]
    for name, draw in figures.items():
        progress(f"drawing {name}")
        files += write_files(draw, folder, name)
    notes = dict.fromkeys([note for table in tables for note in table.notes] + problems)
    return PaperOutput(tuple(files), tuple(tables), tuple(notes))


def _table(caption: str, table: PaperTable, *, runs: bool = True) -> Table:
    """The table for readers, with or without the number of runs."""
    short = [_SHORT.get(name, line(name, 20)) for name in table.modalities]
    means = (f"mean {len(table.modalities)}", f"mean OOD {len(table.out_of_domain)}")
    rows = []
    for row in table.rows:
        label = f"{row.label} ({line(row.model, 40)})" if row.model else row.label
        count = [Cell(str(len(row.runs)))] if runs else []
        rows.append(Row(label, (*count, *map(interval_cell, row.cells.values())), row.arm))
    return Table(caption, ("arm", *(["runs"] if runs else []), *short, *means), tuple(rows), table.notes)


def _caption(table: PaperTable) -> str:
    return f"Trained on {line(table.source, 60)}" if table.source else "Training modality not known"


def table_frame(tables: Sequence[PaperTable]) -> pd.DataFrame:
    """A row per arm and base model, with estimate and ends of every interval, 0..1."""
    import pandas as pd

    rows = []
    for table in tables:
        for row in table.rows:
            known = {"trained on": table.source, "arm": row.arm, "label": row.label, "model": row.model}
            numbers: dict[str, float] = {"runs": len(row.runs)}
            for name, one in row.cells.items():
                numbers |= {name: one.estimate, f"{name} low": one.low, f"{name} high": one.high}
            rows.append({**known, **numbers})
    return pd.DataFrame(rows)


def run_frame(tables: Sequence[PaperTable]) -> pd.DataFrame:
    """A row per run: what the means are made of, and which checkpoint it was."""
    import pandas as pd

    rows = []
    for table in tables:
        for arm, run in ((row.arm, run) for row in table.rows for run in row.runs):
            assert run.evaluation is not None
            choice = chosen(run) or {}
            found = accuracy_by(run.evaluation.table, "modality")
            known: dict[str, object] = {"trained on": table.source, "arm": arm}
            known |= {"replicate": run.replicate, "folder": run.name, "step": choice.get("step")}
            known |= {"chosen by": choice.get("chosen_by"), "accuracy there": choice.get("accuracy")}
            rows.append({**known, **{name: found[name].estimate for name in table.modalities}})
    return pd.DataFrame(rows).astype({"step": "Int64"})


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
