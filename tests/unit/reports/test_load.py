"""Folders become a study: which runs, in which order, and what is said about those that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kepo.errors import ConfigError, DataError
from kepo.reports.load import load_study, same_questions
from tests.unit.reports.study import write_answers, write_run


def two_arms(folder: Path) -> Path:
    for arm in ("grpo", "kepo"):
        write_answers(write_run(folder / arm, folder, arm, "student-1/seed-1", 1), [1, 0])
    return folder


def test_a_study_file_names_and_orders_the_arms(tmp_path: Path) -> None:
    two_arms(tmp_path)
    described = {"title": "T", "arms": {"kepo": {"label": "Ours", "order": 0}, "grpo": {"order": 1}}}
    (tmp_path / "study.json").write_text(json.dumps(described))
    study = load_study([tmp_path])
    assert study.title == "T"
    assert [(arm.name, arm.label) for arm in study.arms] == [("kepo", "Ours"), ("grpo", "grpo")]


def test_two_arms_with_one_label_are_told_apart(tmp_path: Path) -> None:
    two_arms(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps({"arms": {name: {"label": "X"} for name in ("grpo", "kepo")}}))
    assert [arm.label for arm in load_study([tmp_path]).arms] == ["X (grpo)", "X (kepo)"]


def test_kepo_is_the_main_arm_and_grpo_the_baseline_unless_told_otherwise(tmp_path: Path) -> None:
    two_arms(tmp_path)
    write_answers(write_run(tmp_path / "z", tmp_path, "z", "student-1/seed-1", 1), [1, 0])
    study = load_study([tmp_path])
    assert study.main == "kepo"
    assert [arm.name for arm in study.arms if arm.baseline] == ["grpo"]
    assert [arm.name for arm in load_study([tmp_path], baselines=["z"]).arms if arm.baseline] == ["z"]


def test_an_unknown_baseline_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'nope' is no arm .* there are 'grpo'"):
        load_study([two_arms(tmp_path)], baselines=["nope"])


def test_trial_runs_of_a_study_are_no_result(tmp_path: Path) -> None:
    two_arms(tmp_path / "runs")
    write_run(tmp_path / "tuning" / "kepo", tmp_path, "kepo", "student-1/seed-9", 9)
    (tmp_path / "study.json").write_text("{}")
    assert [run.replicate for run in load_study([tmp_path]).runs] == ["student-1/seed-1"] * 2


def test_a_replicate_that_comes_twice_gets_the_name_of_its_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, tmp_path, "kepo", "seed 1", 1)
    assert [run.replicate for run in load_study([tmp_path]).runs] == ["seed 1", "seed 1 [b]"]


def test_unfinished_runs_are_named(tmp_path: Path) -> None:
    two_arms(tmp_path)
    write_run(tmp_path / "late", tmp_path, "kepo", "student-1/seed-2", 2, status="running")
    warnings = " ".join(load_study([tmp_path]).warnings)
    assert "1 of 3 runs are not finished: late (running)" in warnings
    assert "1 of 3 runs have no evaluation 'test'" in warnings


def test_an_evaluation_of_other_questions_is_set_aside(tmp_path: Path) -> None:
    two_arms(tmp_path)
    write_answers(write_run(tmp_path / "odd", tmp_path, "kepo", "student-1/seed-2", 2), [1, 0, 1])
    study, aside = same_questions(load_study([tmp_path]))
    assert [run.name for run in aside] == ["odd"]
    assert [run.name for run in study.runs if run.evaluation] == ["grpo", "kepo"]


def test_the_same_ids_with_another_right_answer_are_other_questions(tmp_path: Path) -> None:
    from tests.unit.reports.study import answer_record, write_records

    two_arms(tmp_path)
    rows = [{**answer_record(f"test-{place}", True, "CT"), "answer": "B"} for place in range(2)]
    write_records(write_run(tmp_path / "odd", tmp_path, "grpo", "student-1/seed-2", 2), rows)
    assert [run.name for run in same_questions(load_study([tmp_path]))[1]] == ["odd"]


def test_differing_generation_settings_are_said(tmp_path: Path) -> None:
    two_arms(tmp_path)
    file = tmp_path / "kepo" / "evaluation" / "test.json"
    file.write_text(json.dumps({"in_domain": ["CT"], "generation": {"temperature": 1.0}}))
    warnings = " ".join(load_study([tmp_path]).warnings)
    assert "different settings" in warnings
    assert "(CT; MRI)" in warnings


@pytest.mark.parametrize("content", ["{", '["no record"]', '{"arms": []}'])
def test_a_broken_study_file_is_named(tmp_path: Path, content: str) -> None:
    two_arms(tmp_path)
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(DataError, match=r"study\.json"):
        load_study([tmp_path])


def test_a_damaged_evaluation_is_named(tmp_path: Path) -> None:
    two_arms(tmp_path)
    (tmp_path / "kepo" / "evaluation" / "test.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"test\.parquet cannot be read"):
        load_study([tmp_path])


def test_of_a_single_run_there_is_no_main_arm(tmp_path: Path) -> None:
    write_run(tmp_path / "only", tmp_path, "kepo", "seed 1", 1)
    study = load_study([tmp_path / "only"])
    assert (study.main, study.title, study.runs[0].name) == (None, "only", "only")
