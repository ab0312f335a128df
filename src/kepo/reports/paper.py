"""The table of the paper: accuracy of every arm on each of the eight modalities, and the means over them.

One table for each training modality. Legend: R runs (seeds), Q questions, M modalities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kepo.data.omnimedvqa import MODALITIES
from kepo.errors import DataError
from kepo.evaluation.accuracy import paired_scores
from kepo.reports.document import line
from kepo.reports.load import same_questions
from kepo.reports.study import Arm, RunData, Study
from kepo.runs import Evaluation
from kepo.statistics.accuracy import macro_interval
from kepo.statistics.intervals import Interval

if TYPE_CHECKING:
    import pyarrow as pa

MEAN, MEAN_OUT = "mean", "mean out of domain"
PER_MODALITY = 300
"""Test questions of each modality in the paper's protocol."""


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One arm from one base model.

    Attributes:
        arm: Its name.
        label: For people.
        model: The base model; empty where all rows have the same.
        runs: Its runs.
        cells: Modality -> accuracy, mean over runs with its 95 % interval; then `MEAN` of all modalities, each with the
            same weight, and `MEAN_OUT` of those not trained on.
    """

    arm: str
    label: str
    model: str
    runs: tuple[RunData, ...]
    cells: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """All arms trained on the same modality.

    Attributes:
        source: The modality (or modalities) trained on; empty: not known.
        modalities: Of the questions, in the order of columns.
        rows: In the order of arms.
        notes: What a reader has to know.
    """

    source: str
    modalities: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]

    @property
    def out_of_domain(self) -> tuple[str, ...]:
        """The modalities that were not trained on."""
        return tuple(name for name in self.modalities if name not in self.source.split(", "))


def paper_tables(study: Study, per_modality: int = PER_MODALITY) -> list[PaperTable]:
    """A table for each training modality, in the order of columns.

    Args:
        study: Runs with an evaluation.
        per_modality: Questions that each modality should have; others are pointed out.

    Raises:
        DataError: No run has the evaluation.
    """
    study, aside = same_questions(study)
    sources: dict[str, list[RunData]] = {}
    for run in study.runs:
        if run.evaluation:
            sources.setdefault(", ".join(run.evaluation.in_domain), []).append(run)
    if not sources:
        raise DataError(f"No run has an evaluation named {study.evaluation!r}; `kepo eval` makes one.")
    several_models = len({run.cluster for run in study.runs}) > 1 and any("/" in run.replicate for run in study.runs)
    left_out = [f"{len(aside)} run(s) answered other questions than the rest and are left out."] if aside else []
    return [
        _table(study, source, runs, per_modality, several_models, left_out)
        for source, runs in sorted(sources.items(), key=lambda item: _place(item[0]))
    ]


def _place(modality: str) -> tuple[int, str]:
    return (MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES), modality)


def _table(
    study: Study, source: str, runs: Sequence[RunData], per_modality: int, several_models: bool, notes: Sequence[str]
) -> PaperTable:
    evaluation = _evaluation(runs[0])
    counts = _counts(evaluation.table)
    others = sorted(set(counts) - set(MODALITIES))
    modalities = (*(name for name in MODALITIES if name in counts), *others)
    members = {run.name for run in runs}
    rows = []
    for arm in study.arms:
        groups: dict[str, list[RunData]] = {}
        for run in arm.runs:
            if run.name in members:
                groups.setdefault(run.cluster if several_models else "", []).append(run)
        rows += [_row(arm, model, found, source, modalities) for model, found in groups.items()]
    found = (*notes, *_protocol(counts, source, per_modality), *_about_runs(rows))
    return PaperTable(source, modalities, tuple(rows), found)


def _row(arm: Arm, model: str, runs: Sequence[RunData], source: str, modalities: Sequence[str]) -> PaperRow:
    ids, scores = paired_scores([_evaluation(run).table for run in runs])
    of = _modalities_of(_evaluation(runs[0]).table)
    columns = np.array([str(of[id_]) for id_ in ids])
    outside = [name for name in modalities if source and name not in source.split(", ")]
    averaged = {**{name: [name] for name in modalities}, MEAN: list(modalities), MEAN_OUT: outside}
    return PaperRow(
        arm=arm.name,
        label=arm.label,
        model=model,
        runs=tuple(runs),
        cells={name: macro_interval(scores, columns, names) for name, names in averaged.items()},
    )


def _evaluation(run: RunData) -> Evaluation:
    assert run.evaluation is not None
    return run.evaluation


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
    single = [row.label for row in rows if len(row.runs) == 1 and row.runs[0].trained]
    if single:
        yield f"One seed, so its interval covers questions only: {line(', '.join(single), 400)}."
    unchosen = [run.name for row in rows for run in row.runs if run.trained and chosen(run) is None]
    if unchosen:
        yield f"Tested without a choice of checkpoint on validation data: {line(', '.join(unchosen), 400)}."
    unfinished = [run.name for row in rows for run in row.runs if run.run.status != "finished"]
    if unfinished:
        yield f"Not finished: {line(', '.join(unfinished), 400)}."


def chosen(run: RunData) -> Mapping[str, object] | None:
    """Which checkpoint was tested and why, as `kepo eval --best-by` noted it; None where none was chosen."""
    found = run.evaluation.description.get("chosen") if run.evaluation else None
    return found if isinstance(found, Mapping) else None
