"""The whole report, as HTML and as Markdown, from a made-up study full of hostile text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from kepo.cli.report import report as command
from kepo.reports.markup import as_markdown, escape
from kepo.reports.report import Report, html, make_report, markdown, write_figures, write_html_report
from tests.unit.reports.study import ARMS, write_metrics, write_run, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    arms = {name: ARMS[name] for name in ("zero-shot", "sft", "grpo", "kepo")}
    return write_study(folder, arms, seeds=1, steps=10, rollouts=8, questions=32, hostile=True)


@pytest.fixture(scope="module")
def report(study: Path) -> Report:
    return make_report([study], max_rollouts=60)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return html(report)


class Page(HTMLParser):
    """Tags with their attributes, ids, and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def test_every_section_is_there(report: Report) -> None:
    names = [section.name for section in report.document.sections]
    assert names == [
        *("setup", "result", "curves", "groups", "exploration", "gate", "reasoning", "stability", "cost", "provenance"),
    ]


def test_the_page_holds_its_own_two_scripts_and_no_handler(page: str) -> None:
    found = Page(page)
    assert len(list(found.named("script"))) == 2
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in found.tags}.isdisjoint({"iframe", "object", "embed", "form", "base"})
    assert not list(found.named("img"))


def test_the_policy_allows_the_script_by_its_hash_and_nothing_from_outside(page: str) -> None:
    policy = next(a["content"] for a in Page(page).named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_nothing_in_the_page_points_outside(page: str) -> None:
    for tag, attributes in Page(page).tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
        assert "http" not in (attributes.get("style") or "")


def test_no_id_comes_twice_and_every_reference_has_its_target(page: str) -> None:
    found = Page(page)
    ids = [value for _, attributes in found.tags if (value := attributes.get("id"))]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in found.named("a") if a["href"]} <= set(ids)


def test_tables_have_captions_and_scopes_and_figures_are_told(page: str) -> None:
    found = Page(page)
    tables = list(found.named("table"))
    assert tables
    assert len(tables) == len(list(found.named("caption")))
    assert all(cell.get("scope") in ("col", "row") for cell in found.named("th"))
    figures = [a for a in found.named("svg") if a.get("aria-hidden") != "true"]
    assert figures
    assert all(a.get("role") == "img" and a.get("aria-label") for a in figures)


def test_the_rollouts_in_the_page_are_json(page: str) -> None:
    data = json.loads(Page(page).scripts[0])
    assert len(data["cards"]) == 60
    assert {card["arm"] for card in data["cards"]} == {data["arms"].index(arm) for arm in data["arms"][1:]}
    assert any(card["injected"] for card in data["cards"])
    assert data["images"][0].startswith("data:image/png;base64,")


def test_the_same_records_give_the_same_page(study: Path, page: str, report: Report) -> None:
    again = make_report([study], max_rollouts=60)
    assert html(again) == page
    assert markdown(again) == markdown(report)


def test_markdown_has_the_same_tables_and_no_markup_of_others(report: Report) -> None:
    text = markdown(report)
    assert "## Reasoning" in text
    assert "<script" not in text.replace("\\<script", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    # A bar inside a cell is escaped, so every row of a table has as many as its header.
    bars = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    rules = [place for place, row in enumerate(rows) if row.startswith("| ---")]
    assert all(bars[place - 1] == bars[place] == bars[place + 1] for place in rules)


def test_markdown_escapes_what_has_a_meaning() -> None:
    assert escape("a|b <i> `c` *d*\ne & f") == "a\\|b \\<i\\> \\`c\\` \\*d\\* e &amp; f"


def test_a_run_that_was_only_trained_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path, "grpo", "seed 1", 1, status="running")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"step": 3, "lo')
    document = make_report([run]).document
    assert "No run has an evaluation" in document.headline[0]
    assert "1 of 1 runs are not finished" in document.warnings[0]
    assert [section.name for section in document.sections] == ["setup", "curves", "stability", "provenance"]
    assert "## Stability" in as_markdown(document)


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path, "grpo", "seed 1", 1, status="running")
    file = write_html_report([run], tmp_path / "new" / "report.html")
    assert "1 of 1 runs are not finished" in file.read_text()


def test_a_study_without_rollout_logs_has_no_browser(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path, "grpo", "seed 1", 1)
    import numpy as np

    write_metrics(run, ARMS["grpo"], 10, np.random.default_rng(0))
    assert 'id="rollouts"' not in html(make_report([run]))


def test_figures_are_written_as_files(report: Report, tmp_path: Path) -> None:
    result = next(section for section in report.document.sections if section.name == "result")
    few = replace(report, document=replace(report.document, sections=(result,)))
    files = write_figures(few, tmp_path / "figures")
    assert [file.suffix for file in files] == [".png", ".svg"] * 2
    assert all(file.stat().st_size > 1000 for file in files)


@pytest.mark.slow
def test_a_report_needs_no_torch(study: Path) -> None:
    code = (
        "import sys; from kepo.reports.report import html, make_report; "
        f"html(make_report([{str(study)!r}], max_rollouts=5)); "
        "print([name for name in ('torch', 'transformers', 'trl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_command_writes_html_markdown_figures_and_a_papers_tables(tmp_path: Path) -> None:
    arms = {name: ARMS[name] for name in ("grpo", "kepo")}
    write_study(tmp_path / "study", arms, seeds=1, steps=4, rollouts=4, questions=16)
    app = typer.Typer()
    app.command()(command)
    out, figures = tmp_path / "out.html", tmp_path / "figures"
    done = CliRunner().invoke(app, [str(tmp_path / "study"), "--out", str(out), "--figures", str(figures)])
    assert done.exit_code == 0, done.output
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert {file.suffix for file in figures.iterdir()} == {".png", ".svg"}
    text = tmp_path / "out.md"
    done = CliRunner().invoke(app, [str(tmp_path / "study"), "--out", str(text), "--title", "Mine"])
    assert done.exit_code == 0, done.output
    assert text.read_text().startswith("# Mine\n")
    done = CliRunner().invoke(app, [str(tmp_path / "study"), "--format", "paper", "--out", str(tmp_path / "paper")])
    assert done.exit_code == 0, done.output
    assert "written: 4 files" in done.output
