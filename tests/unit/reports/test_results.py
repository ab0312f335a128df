"""Setup, contrasts and parts of the questions: what a study's own file asks for, by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kepo.errors import DataError
from kepo.reports.claims import make_claims
from kepo.reports.document import NONE, Points, Section, Table
from kepo.reports.load import load_study
from kepo.reports.report import html, make_report, markdown, report_study
from kepo.reports.results import contrasts_sections, main_section
from kepo.reports.setup import setup_section
from kepo.reports.study import Study
from kepo.reports.training import stability_section
from kepo.statistics.paired import holm
from tests.unit.reports.study import ARMS, answer_record, write_answers, write_records, write_run, write_study

CONTRASTS = [
    {"title": "Is it above the others?", "pairs": [["kepo", "grpo"], ["kepo", "sft"], ["kepo", "not-run"]]},
    {"title": "Which of the others?", "pairs": [["sft", "grpo"]]},
    {"title": "Nobody ran these", "pairs": [["a", "b"]]},
]


def study_of(folder: Path, **described: Any) -> Study:
    """Three arms with one run each: kepo 40 of 40 questions correct, sft 30, grpo 20; all out of domain."""
    for arm, correct in (("kepo", 40), ("sft", 30), ("grpo", 20)):
        write_answers(write_run(folder / arm, folder, arm, "s/1", 1), [1] * correct + [0] * (40 - correct))
    (folder / "study.json").write_text(json.dumps(described))
    return load_study([folder])


def cells(table: Table, row: int) -> dict[str, str]:
    shown = table.rows[row]
    return dict(zip(table.columns, (shown.label, *(cell.text for cell in shown.cells)), strict=True))


def table_of(section: Section | None, place: int = 0) -> Table:
    assert section is not None
    return [block for block in section.blocks if isinstance(block, Table)][place]


def test_a_contrast_is_answered_in_words_and_numbers_and_adjusted_within_itself(tmp_path: Path) -> None:
    study = study_of(tmp_path, contrasts=CONTRASTS)
    claims = make_claims(study)
    assert claims is not None
    first, second = claims.contrasts  # without the one whose arms were not run
    assert [(one.first, one.second) for one in first.comparisons] == [("kepo", "grpo"), ("kepo", "sft")]
    p_values = {one.second: one.difference.p_value for one in first.comparisons}
    assert {one.second: one.adjusted_p for one in first.comparisons} == holm(p_values)
    assert second.comparisons[0].adjusted_p == second.comparisons[0].difference.p_value
    assert second.comparisons[0].difference.estimate == pytest.approx(0.25)

    sections = contrasts_sections(study, claims)
    assert [section.title for section in sections] == ["Is it above the others?", "Which of the others?"]
    words, table = sections[0].blocks
    assert isinstance(words, Points)
    assert words.items[0] == "kepo against grpo: +50.0 points out-of-domain."
    assert isinstance(table, Table)
    assert cells(table, 0) | {"first": "kepo", "second": "grpo", "difference": "+50.0", "pairs": "1"} == cells(table, 0)
    assert cells(table, 0)["p (sign flips)"] == NONE  # one pair


def test_a_difference_that_is_not_shown_is_said_so(tmp_path: Path) -> None:
    for arm, right in (("kepo", [1, 1, 0]), ("grpo", [1, 0, 0])):
        write_answers(write_run(tmp_path / arm, tmp_path, arm, "s/1", 1), right)
    (tmp_path / "study.json").write_text(json.dumps({"contrasts": [{"title": "?", "pairs": [["kepo", "grpo"]]}]}))
    study = load_study([tmp_path])
    claims = make_claims(study)
    assert claims is not None
    [section] = contrasts_sections(study, claims)
    assert section.blocks[0] == Points(("kepo against grpo: no difference shown out-of-domain (+33.3).",))


def test_without_contrasts_the_claim_is_the_main_arm_against_its_baselines(tmp_path: Path) -> None:
    claims = make_claims(study_of(tmp_path))
    assert claims is not None
    assert claims.contrasts == ()
    assert claims.family == ("grpo",)
    assert claims.comparisons["grpo", "out-of-domain"].adjusted_p is not None


@pytest.mark.parametrize("wrong", ["kepo", {"pairs": []}, {"title": "?", "pairs": [["kepo"]]}, {"title": "?"}])
def test_a_contrast_that_is_none_is_refused_with_its_place(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(DataError, match=r"study\.json .*\$\.contrasts\[0\]"):
        study_of(tmp_path, contrasts=[wrong])


def test_the_choice_of_a_setting_is_shown(tmp_path: Path) -> None:
    scores = {"kepo": {"1e-4": 0.7, "3e-4": 0.65}, "grpo": {"1e-4": 0.5}}
    tuning = {"field": "learning_rate", "scores": scores, "chosen": {"kepo": "1e-4", "grpo": "1e-4"}}
    study = study_of(tmp_path, tuning=tuning, arms={"kepo": {"label": "Ours"}})
    table = table_of(setup_section(study, None), 1)
    assert table.caption == "Choice of learning_rate"
    assert cells(table, 0) == {"arm": "Ours", "1e-4": "70.0", "3e-4": "65.0", "chosen": "1e-4"}
    assert cells(table, 1) == {"arm": "grpo", "1e-4": "50.0", "3e-4": NONE, "chosen": "1e-4"}


def test_the_setup_says_what_was_run_and_tested(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    table = table_of(setup_section(study, make_claims(study)))
    facts = {row.label: row.cells[0].text for row in table.rows}
    assert facts["trained on"] == "MRI"
    assert facts["test questions"] == "40 out-of-domain"
    assert facts["machine"] == "Linux, cpu, float32"
    assert "tested" not in facts


def test_parts_of_the_questions_weigh_modalities_alike(tmp_path: Path) -> None:
    rows = [
        {**answer_record("a", True, "CT"), "task": "Modality Recognition", "level": 1},
        {**answer_record("b", True, "CT"), "level": 2},
        {**answer_record("c", False, "OCT"), "level": 2},
        {**answer_record("d", False, "OCT"), "level": 3},
        {**answer_record("e", True, "OCT"), "level": 1},
    ]
    write_records(write_run(tmp_path / "kepo", tmp_path, "kepo", "s/1", 1), rows)
    study = load_study([tmp_path])
    claims = make_claims(study)
    assert claims is not None
    found = cells(table_of(main_section(study, claims), 1), 0)
    # CT 1 of 1 and OCT 1 of 3; of levels 2 and 3: CT 1 of 1 and OCT none of 2.
    assert found["out-of-domain, without Modality Recognition"] == "66.7"
    assert found["out-of-domain, level 2 and above"] == "50.0"


@pytest.mark.parametrize(("best", "shown"), [((0, 4, 0, None), "2 of 4"), ((None, None), None)])
def test_runs_that_were_never_above_their_start_are_counted(
    tmp_path: Path, best: Sequence[int | None], shown: str | None
) -> None:
    for seed, step in enumerate(best):
        run = write_run(tmp_path / f"{seed}", tmp_path, "kepo", f"s/{seed}", seed)
        records: list[dict[str, Any]] = [{"step": 0, "validation/in_domain": 0.5}]
        records += [] if step is None else [{"step": 4, "validation/best_step": step}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cells(table_of(stability_section(load_study([tmp_path]))), 0).get("runs best before training") == shown


def test_a_study_that_has_ended_is_reported_in_the_terminal_as_html_and_as_markdown(tmp_path: Path) -> None:
    arms = {name: ARMS[name] for name in ("zero-shot", "kepo")}
    study = write_study(tmp_path / "study", arms, bases=1, seeds=1, steps=10, questions=32)
    terminal, results = io.StringIO(), tmp_path / "docs" / "results.md"
    page = tmp_path / "report.html"
    report_study(study, page, Console(file=terminal, width=200), results)
    report = make_report([study])
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert results.read_text() == markdown(report)
    assert report.claims is not None
    accuracy = report.claims.accuracy["kepo", "in-domain"]
    assert f"{100 * accuracy.estimate:.1f} ({100 * accuracy.low:.1f} to " in terminal.getvalue()


def test_the_studys_file_says_what_was_trained_on_where_the_evaluations_do_not(tmp_path: Path) -> None:
    write_answers(write_run(tmp_path / "kepo", tmp_path, "kepo", "s/1", 1), [1, 0], in_domain=())
    (tmp_path / "study.json").write_text(json.dumps({"in_domain": ["CT"]}))
    claims = make_claims(load_study([tmp_path]))
    assert claims is not None
    assert claims.domains == ("in-domain",)


def test_a_contrast_is_in_the_page_and_in_markdown(tmp_path: Path) -> None:
    study_of(tmp_path, contrasts=CONTRASTS[:1])
    report = make_report([tmp_path])
    page, text = html(report), markdown(report)
    assert '<section id="contrast-1"' in page
    assert "<li>kepo against grpo: +50.0 points out-of-domain.</li>" in page
    assert "## Is it above the others?\n\n- kepo against grpo: +50.0 points out-of-domain.\n" in text
    assert "| kepo | grpo | out-of-domain | +50.0 |" in text
    assert "<details><summary>Every comparison</summary>\n\n| first |" in text
