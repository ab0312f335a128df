"""The results of a study as Markdown, and as a table in the terminal: everything read from the records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from kepo.benchmark.arms import TRAINED_ON
from kepo.benchmark.contrasts import CONTRASTS, DOMAINS, Answer, Contrast, answer, domain_tables, sentence
from kepo.benchmark.measures import (
    cost_section,
    injected_section,
    markdown_table,
    reasoning_section,
    stability_section,
)
from kepo.benchmark.plan import DATA
from kepo.data.files import load_jsonl
from kepo.evaluation.accuracy import macro_accuracy, paired_scores, split_domains
from kepo.reports.load import load_study, same_questions
from kepo.reports.study import Arm, Study
from kepo.statistics.paired import paired_bootstrap

if TYPE_CHECKING:
    import pyarrow as pa

REPORT = "report.html"
_RECOGNITION = "Modality Recognition"


def write_report(study: Path) -> Path:
    """Write `report.html` into the study's folder; returns its path."""
    from kepo.files import write_text
    from kepo.reports.report import html, make_report

    return write_text(html(make_report([study])), study / REPORT)


def show_results(folder: Path, console: Console) -> None:
    """Print accuracy in and out of domain of every arm."""
    study = _load(folder)
    table = Table("arm", "runs", *DOMAINS, title=study.title)
    tables = domain_tables(study)
    for arm in study.arms:
        table.add_row(arm.label, str(len(arm.runs)), *(_accuracy(arm, domain, tables) for domain in DOMAINS))
    console.print(table)


def write_results(folder: Path, file: Path) -> None:
    """Write the results of the study in `folder` as Markdown to `file`."""
    study = _load(folder)
    facts = {question.id: question.metadata["facts"] for question in load_jsonl(folder / DATA / "train.jsonl")}
    sections = [
        _opening(study),
        _tuning(folder),
        _accuracies(study),
        *(_answers(study, contrast) for contrast in CONTRASTS),
        reasoning_section(study),
        injected_section(study, facts),
        stability_section(study),
        cost_section(study),
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n\n".join(section for section in sections if section) + "\n", encoding="utf-8")


def _load(folder: Path) -> Study:
    study, _ = same_questions(load_study([folder]))
    return study


def _opening(study: Study) -> str:
    runs = [run for run in study.runs if run.evaluation is not None]
    trained = next(run for run in runs if run.trained)
    manifest = trained.run.manifest
    domains = split_domains(runs[0].evaluation.table, [TRAINED_ON])  # type: ignore[union-attr]
    questions = ", ".join(f"{len(table)} {name}" for name, table in domains.items())
    versions = ", ".join(f"{name} {found}" for name, found in manifest.get("versions", {}).items())
    lines = (
        "# Results of the built-in study",
        "",
        "Written by `kepo demo --full --results docs/results.md` from the records of the runs, nothing by hand.",
        "What the arms are is said in [phantomvqa.md](phantomvqa.md) and [method.md](method.md).",
        "",
        f"- {len(runs)} runs: {len(study.arms)} arms; replicates are base student x seed "
        f"({', '.join(sorted({run.replicate for run in runs}))}).",
        f"- Trained on {TRAINED_ON} only, {trained.setting('training', 'max_steps')} updates of "
        f"{trained.setting('training', 'per_device_train_batch_size')} rollouts.",
        f"- Test questions: {questions}, answered greedily.",
        "- The weights evaluated are those with the best in-domain validation accuracy of the run.",
        "- Intervals and p-values: paired bootstrap over base students and questions. `p (Holm)` is adjusted within",
        "  a question and domain. `p (signs)` flips the signs of the differences of replicates; with six of them it",
        "  cannot be below .031.",
        f"- {manifest.get('platform', '')}, {manifest.get('device', '')}; {versions}.",
    )
    return "\n".join(lines)


def _tuning(folder: Path) -> str:
    file = folder / "chosen.json"
    if not file.is_file():
        return ""
    chosen = json.loads(file.read_text(encoding="utf-8"))
    rates = list(next(iter(chosen["scores"].values())))
    rows = [
        [arm, *(f"{100 * scores[rate]:.1f}" for rate in rates), chosen["learning_rate"][arm]]
        for arm, scores in chosen["scores"].items()
    ]
    return "## Settings\n\n" + "\n".join(
        (
            "The learning rate of every arm was chosen by the best in-domain validation accuracy (in percent) of one",
            "run per rate, on one base student, with a seed that is not among those of the study. The arms with other",
            "teachers use what was chosen with the reliable one.",
            "",
            markdown_table(["arm", *rates, "chosen"], rows),
        )
    )


def _accuracies(study: Study) -> str:
    tables = domain_tables(study)
    rows = []
    for arm in study.arms:
        runs = [run for run in arm.runs if run.evaluation is not None]
        inside, outside = ([tables[run.name, domain] for run in runs] for domain in DOMAINS)
        rows.append(
            [
                arm.label,
                str(len(runs)),
                *(_accuracy(arm, domain, tables) for domain in DOMAINS),
                _macro(_without_recognition(table) for table in outside),
                *(
                    _macro(table.filter(pc.greater_equal(table["level"], 2)) for table in part)
                    for part in (inside, outside)
                ),
            ]
        )
    header = ["arm", "runs", *DOMAINS, "out-of-domain, no modality questions"]
    header += [f"questions by rules, {domain}" for domain in DOMAINS]
    return (
        "## Accuracy\n\nPercent, with 95 % intervals. Whoever trains on MRI alone learns to answer MRI, so one column "
        "leaves out the\nquestions for the modality. Questions by rules ask for disease, grade or decision; there the "
        "students believe\nwrong rules.\n\n" + markdown_table(header, rows)
    )


def _without_recognition(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["task"], _RECOGNITION))


def _macro(tables: Iterable[pa.Table]) -> str:
    """Mean over runs of the mean over modalities, in percent."""
    return f"{100 * fmean(macro_accuracy(table, 'modality') for table in tables):.1f}"


def _accuracy(arm: Arm, domain: str, tables: Mapping[tuple[str, str], pa.Table]) -> str:
    runs = [run for run in arm.runs if run.evaluation is not None]
    if not runs:
        return "-"
    _, scores = paired_scores([tables[run.name, domain] for run in runs])
    found = paired_bootstrap(scores, 0 * scores, clusters=[run.cluster for run in runs])
    return f"{100 * found.estimate:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _answers(study: Study, contrast: Contrast) -> str:
    answers = answer(study, contrast, domain_tables(study))
    if not answers:
        return ""
    labels = {arm.name: arm.label for arm in study.arms}
    pairs = dict.fromkeys((one.first, one.second) for one in answers)
    words = [f"- {sentence([a for a in answers if (a.first, a.second) == pair], labels)}" for pair in pairs]
    rows = [[labels[a.first], labels[a.second], a.domain, *_numbers(a)] for a in answers]
    header = ["first", "second", "questions", "difference", "95 %", "p", "p (Holm)", "p (signs)"]
    return f"## {contrast.title}\n\n" + "\n".join((*words, "", markdown_table(header, rows)))


def _numbers(one: Answer) -> list[str]:
    gap = one.difference
    return [
        f"{100 * gap.estimate:+.1f}",
        f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}",
        _p(gap.p_value),
        _p(one.adjusted_p),
        "-" if one.sign_flip_p is None else _p(one.sign_flip_p),
    ]


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0")
