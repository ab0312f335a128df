"""A report says whose weights its numbers are, most of all where they are the model before training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from kepo.reports.document import Table
from kepo.reports.paper import write_paper
from kepo.reports.report import Report, html, make_report, markdown
from kepo.reports.results import accuracy_table
from kepo.reports.tested import Weights, weights_tested
from kepo.runs import append_metrics
from tests.unit.reports.study import ARMS, write_answers, write_metrics, write_run, write_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GRPO is best before training in both of its runs, SFT in one of two, KEPO in none."""
    arms = {name: ARMS[name] for name in ("zero-shot", "sft", "grpo", "kepo")}
    folder = write_study(tmp_path_factory.mktemp("study"), arms, seeds=1, steps=20, rollouts=4, questions=32)
    best = {"grpo": (0, 0), "sft": (0, 20), "kepo": (10, 20)}
    for arm, steps in best.items():
        for student, step in enumerate(steps, start=1):
            run = folder / "runs" / f"{arm}--student-{student}--seed-1"
            append_metrics(run, 0, {"validation/in_domain": 0.3})
            append_metrics(run, 20, {"validation/best_step": step})
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return make_report([folder], max_rollouts=20)


def _tables(report: Report) -> dict[str, Table]:
    return {
        block.caption: block
        for section in report.document.sections
        for block in section.blocks
        if isinstance(block, Table)
    }


def test_the_main_table_has_the_step_and_the_end_of_training_beside_it(report: Report) -> None:
    table = _tables(report)["Accuracy in percent with 95 % intervals"]
    assert table.columns[:5] == ("arm", "runs", "step tested", "validation there", "validation at the end")
    rows = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert rows["Base model"][1] == "not trained"
    assert rows["GRPO †"][1] == "0 (2 runs) of 20"
    assert rows["SFT †"][1] == "0, 20 of 20"
    assert rows["KEPO"][1] == "10, 20 of 20"
    assert float(rows["KEPO"][3]) > 50  # the end of training, of validation
    assert len({len(cells) for cells in rows.values()}) == 1


def test_every_table_of_a_test_says_so_and_names_step_0(report: Report) -> None:
    tables = _tables(report)
    of_tests = [
        *("Accuracy in percent with 95 % intervals", "Every comparison", "Reasoning of the evaluated models"),
        *("Accuracy by modality, in percent, mean over replicates", "Accuracy on parts of the questions, in percent"),
    ]
    for table in [*(tables[caption] for caption in of_tests), accuracy_table(report.study, report.claims)]:  # type: ignore[arg-type]
        notes = " ".join(table.notes)
        in_columns = "step tested" in table.columns  # then the notes do not say it again
        assert ("Step whose weights were tested: " in notes) is not in_columns, table.caption
        assert ("GRPO †: 0 (2 runs) of 20 (in-domain validation" in notes) is not in_columns, table.caption
        assert "† Tested before training: SFT in 1 of 2 runs, GRPO in 2 of 2 runs." in notes, table.caption


def test_the_headline_says_that_the_baseline_is_the_model_before_training(report: Report) -> None:
    text = " ".join(report.document.headline)
    assert "GRPO †" in text
    assert "† Tested at step 0, the model before training" in text
    assert "GRPO in 2 of 2 runs" in text
    for written in (html(report), markdown(report)):
        assert "the model before training" in written


def test_the_headline_says_how_few_runs_it_rests_on(report: Report) -> None:
    assert report.document.headline[-1] == (
        "This rests on 2 pairs of runs (1 seed each of 2 base students): too few for a firm result, and the intervals "
        "are too narrow."
    )


def test_the_table_of_a_paper_names_step_0_and_no_missing_choice(folder: Path, tmp_path: Path) -> None:
    output = write_paper([folder], tmp_path)
    notes = " ".join(output.notes)
    assert "without a choice of checkpoint" not in notes
    assert "† Tested before training: SFT in 1 of 2 runs, GRPO in 2 of 2 runs." in notes
    for name in ("table.md", "table.tex"):
        text = (tmp_path / name).read_text()
        assert "0 of 20" in text, name
        assert "Tested before training" in text, name
    runs = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    grpo = [row for row in runs if row["arm"] == "grpo"]
    assert [(row["step"], row["last step"], row["chosen by"]) for row in grpo] == [("0", "20", "validation")] * 2
    assert all(float(row["accuracy at the end"]) > 0 for row in grpo)


def test_a_choice_of_kepo_eval_is_read_with_its_candidates(tmp_path: Path) -> None:
    run = write_run(tmp_path / "kepo", tmp_path, "kepo", "seed 1", 1)
    write_answers(run, [1, 0])
    file = run / "evaluation" / "test.json"
    candidates = [{"step": 10, "accuracy": 0.75}, {"step": 30, "accuracy": 0.5}]
    chosen = {"checkpoint": "checkpoint-10", "step": 10, "chosen_by": "validation", "accuracy": 0.75}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chosen": chosen | {"candidates": candidates}}))
    [data] = make_report([run]).study.runs
    assert weights_tested(data) == Weights(10, 30, "validation", 0.75, 0.5)


def test_without_a_choice_the_end_was_tested(tmp_path: Path) -> None:
    run = write_run(tmp_path / "kepo", tmp_path, "kepo", "seed 1", 1)
    (run / "rollouts").mkdir()
    append_metrics(run, 30, {"loss": 0.1})
    write_answers(run, [1, 0])
    report = make_report([run])
    assert weights_tested(report.study.runs[0]) == Weights(30, 30)
    assert "kepo: 30 (the end)" in markdown(report)
    assert "†" not in markdown(report)


def test_none_correct_and_all_correct_have_intervals_in_every_table(tmp_path: Path) -> None:
    for arm, flag in (("grpo", 0), ("kepo", 1)):
        for seed in (1, 2):
            run = write_run(tmp_path / f"{arm}-{seed}", tmp_path, arm, f"seed {seed}", seed)
            write_answers(run, [flag] * 9)
    text = markdown(make_report([tmp_path]))
    assert "0.0 (0.0 to 29.9)" in text
    assert "100.0 (70.1 to 100.0)" in text
    assert "0.0 (0.0 to 0.0)" not in text
    assert "100.0 (100.0 to 100.0)" not in text
    write_paper([tmp_path], tmp_path / "paper")
    paper = (tmp_path / "paper" / "table.md").read_text()
    assert "0.0 (0.0 to 29.9)" in paper
    assert "(0.0 to 0.0)" not in paper


def test_questions_that_were_trained_on_are_the_first_that_a_reader_is_told(folder: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "kepo", tmp_path, "kepo", "seed 1", 1)
    write_answers(run, [1, 0, 1])
    file = run / "evaluation" / "test.json"
    found = {"asked": 3, "same": 2, "alike": 0, "image": 0, "examples": ["test-0", "test-1"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"trained_on": found}))
    warnings = " ".join(make_report([tmp_path]).document.warnings)
    assert "Contamination: Of 3 questions 2 were trained on" in warnings
    assert "Runs: kepo" in warnings
    output = write_paper([tmp_path], tmp_path / "paper")
    assert any("questions that they were trained on: kepo" in note for note in output.notes)


def test_all_failed_groups_are_shown_for_arms_without_exploration(tmp_path: Path) -> None:
    for name in ("grpo", "kepo"):
        run = write_run(tmp_path / name, tmp_path, name, "seed 1", 1)
        write_metrics(run, ARMS[name], 10, _draw())
        append_metrics(run, 10, {"exploration/all_failed_groups": 0.5})
    section = next(one for one in make_report([tmp_path]).document.sections if one.name == "exploration")
    [table] = [block for block in section.blocks if isinstance(block, Table)]
    assert [row.label for row in table.rows] == ["grpo", "kepo"]


def _draw():  # type: ignore[no-untyped-def]
    import numpy as np

    return np.random.default_rng(0)
