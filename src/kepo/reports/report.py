"""The whole report: from folders to one document, and from that to HTML, Markdown and files of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kepo.files import write_text
from kepo.reports import reasoning, results, training
from kepo.reports.claims import Claims, headline, make_claims
from kepo.reports.document import Document, Figure, Section, line
from kepo.reports.load import load_study, same_questions
from kepo.reports.provenance import provenance_section
from kepo.reports.results import accuracy_table
from kepo.reports.rollouts import RolloutData, read_rollout_data
from kepo.reports.setup import setup_section
from kepo.reports.study import RunData, Study

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """A report and what it was made from."""

    document: Document  # its words, tables and figures
    study: Study  # the study, without evaluations of other questions
    claims: Claims | None  # accuracies and comparisons; None where nothing was evaluated
    rollouts: RolloutData  # the rollouts to show

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        blocks = [block for section in self.document.sections for block in section.blocks]
        return [block for block in blocks if isinstance(block, Figure)]


def make_report(
    paths: Sequence[str | Path],
    *,
    evaluation: str = "test",
    title: str | None = None,
    baselines: Sequence[str] = (),
    max_rollouts: int = 400,
    progress: Progress = lambda _: None,
) -> Report:
    """Read the runs in `paths` and work out everything that is shown.

    Args:
        paths: Run folders, or folders that hold some.
        evaluation: Name of the evaluation to report.
        title: Title; default: the study's.
        baselines: Arms that the claim is about; default: the study's, else "grpo".
        max_rollouts: Most rollouts in the browser.
        progress: Called with what is done next.

    Raises:
        DataError, ConfigError: as `kepo.reports.load.load_study`, and for a damaged rollout log.
    """
    progress("reading runs")
    study, aside = same_questions(load_study(paths, evaluation, title, baselines))
    rollouts = read_rollout_data(study, max_rollouts, progress)
    progress("comparing arms")
    claims = make_claims(study)
    document = Document(
        title=study.title,
        subtitle=_subtitle(study),
        headline=headline(study, claims),
        warnings=(*study.warnings, *_aside(aside), *rollouts.problems),
        sections=tuple(section for section in _sections(study, claims, rollouts, aside) if section),
    )
    return Report(document, study, claims, rollouts)


def _sections(
    study: Study, claims: Claims | None, rollouts: RolloutData, aside: Sequence[RunData]
) -> Iterator[Section | None]:
    """Every section in order, None where there is nothing to say."""
    yield setup_section(study, claims)
    if claims:
        yield results.main_section(study, claims)
        yield from results.contrasts_sections(study, claims)
    yield training.curves_section(study, claims)
    yield results.breakdown_section(study)
    yield training.exploration_section(study)
    yield training.gate_section(study)
    yield reasoning.reasoning_section(study, rollouts.truth)
    yield training.stability_section(study)
    yield training.cost_section(study)
    yield provenance_section(study, aside)


def write_html_report(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    evaluation: str = "test",
    title: str | None = None,
    baselines: Sequence[str] = (),
    max_rollouts: int = 400,
) -> Path:
    """Make a report and write it as HTML; returns the file. Arguments and errors as `make_report`."""
    report = make_report(paths, evaluation=evaluation, title=title, baselines=baselines, max_rollouts=max_rollouts)
    return write_text(html(report), Path(out))


def report_study(folder: Path, out: Path, console: Console, results: Path | None = None) -> None:
    """Report a study that has ended: accuracy in the terminal, HTML, and Markdown where it is wanted.

    Args:
        folder: Of the study.
        out: File of the HTML.
        console: Where the table of accuracies is printed.
        results: File of the Markdown; None: there is none.

    Raises:
        DataError, ConfigError: as `make_report`.
    """
    from kepo.reports.markup import as_rich

    report = make_report([folder])
    if report.claims:
        console.print(as_rich(accuracy_table(report.study, report.claims)))
    if results is not None:
        console.print(
            f"Results: {write_text(markdown(report), results)}", highlight=False, soft_wrap=True, markup=False
        )
    console.print(f"Report: {write_text(html(report), out)}", highlight=False, soft_wrap=True, markup=False)


def html(report: Report) -> str:
    """The report as HTML."""
    from kepo.reports.browser import as_json, browser_data
    from kepo.reports.figures import arm_styles
    from kepo.reports.html import as_html
    from kepo.reports.images import Thumbnails

    styles = arm_styles(report.study)
    shown, total = report.rollouts.shown, report.rollouts.total
    if not shown:
        return as_html(report.document, styles)
    thumbnails = Thumbnails()
    data = as_json(browser_data(report.study, shown, thumbnails))
    intro = f"{len(shown):,} of {total:,} rollouts of training" if len(shown) < total else f"All {total:,} rollouts"
    if len(shown) < total:
        intro += ", drawn so that every arm, modality, verdict, and injected, all-failed and gated ones are among them"
    if thumbnails.left_out:
        intro += f"; {thumbnails.left_out} images are left out to keep the file small"
    return as_html(report.document, styles, data, f"{intro}.")


def markdown(report: Report) -> str:
    """The report as Markdown."""
    from kepo.reports.markup import as_markdown

    return as_markdown(report.document)


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write every figure as PNG and SVG into `folder`; returns the files.

    Args:
        report: As `make_report` gives it.
        folder: Made if needed; files of the same names are replaced.
    """
    from kepo.reports.figures import write_files

    return [file for figure in report.figures for file in write_files(figure.draw, folder, figure.name)]


def _subtitle(study: Study) -> str:
    replicates = {run.replicate for run in study.runs}
    clusters = {run.cluster for run in study.runs if "/" in run.replicate}
    parts = [_count(len(study.arms), "arm"), _count(len(study.runs), "run"), _count(len(replicates), "replicate")]
    if len(clusters) > 1:
        parts.append(_count(len(clusters), "base student"))
    if any(run.evaluation for run in study.runs):
        parts.append(f"evaluation '{line(study.evaluation, 40)}'")
    return f"{study.question} ({', '.join(parts)})" if study.question else ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _aside(aside: Iterable[RunData]) -> list[str]:
    names = [line(run.name, 80) for run in aside]
    if not names:
        return []
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return [
        f"{_count(len(names), 'run')} answered other questions than the rest and {'is' if len(names) == 1 else 'are'} "
        f"not compared: {', '.join(names[:5])}{more}."
    ]
