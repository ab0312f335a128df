"""The questions of a study: one modality to learn from, splits that share nothing, written once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from kepo.benchmark.plan import StudySettings
from kepo.benchmark.questions import study_questions, write_study_questions
from kepo.data.files import load_jsonl
from kepo.data.omnimedvqa import MODALITIES
from kepo.errors import ConfigError

SMALL = StudySettings(train=7, validation=6, watched=2, test=4, test_others=2)


def test_training_is_of_one_modality_and_the_others_are_watched_and_tested() -> None:
    questions = study_questions(SMALL)
    assert {name: len(found) for name, found in questions.items()} == {
        "train": 7,
        "validation": 6 + 7 * 2,
        "test": 4 + 7 * 2,
    }
    assert {question.modality for question in questions["train"]} == {"MRI"}
    assert Counter(question.modality for question in questions["validation"])["MRI"] == 6
    assert {question.modality for question in questions["test"]} <= set(MODALITIES)


def test_the_test_has_every_other_modality_equally_often() -> None:
    counts = Counter(question.modality for question in study_questions(StudySettings(test=9, test_others=7))["test"])
    assert counts == dict.fromkeys(MODALITIES, 7) | {"MRI": 9}


def test_no_scene_and_no_id_is_in_two_splits() -> None:
    questions = [question for found in study_questions(StudySettings()).values() for question in found]
    assert len({question.metadata["scene"]["seed"] for question in questions}) == len(questions)
    assert len({question.id for question in questions}) == len(questions)


def test_questions_are_written_once(tmp_path: Path) -> None:
    write_study_questions(tmp_path, SMALL)
    files = {name: tmp_path / "data" / f"{name}.jsonl" for name in ("train", "validation", "test")}
    assert [question.id for question in load_jsonl(files["train"])] == [q.id for q in study_questions(SMALL)["train"]]
    before = {name: file.stat().st_mtime_ns for name, file in files.items()}
    write_study_questions(tmp_path, replace(SMALL, steps=5, seeds=(3,)))
    assert {name: file.stat().st_mtime_ns for name, file in files.items()} == before


@pytest.mark.parametrize("change", [{"test": 3}, {"data_seed": 1}])
def test_a_folder_with_other_questions_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    write_study_questions(tmp_path, SMALL)
    with pytest.raises(ConfigError, match=r"holds a study with other questions .*'test': 4.* choose another folder"):
        write_study_questions(tmp_path, replace(SMALL, **change))


def test_questions_that_were_only_half_written_are_written_again(tmp_path: Path) -> None:
    write_study_questions(tmp_path, SMALL)
    (tmp_path / "data" / "data.json").unlink()
    (tmp_path / "data" / "test.jsonl").write_text("")
    write_study_questions(tmp_path, SMALL)
    assert len(load_jsonl(tmp_path / "data" / "test.jsonl")) == 18
