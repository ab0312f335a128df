"""`study.json`: written and read again, tolerant of what is missing, clear about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from kepo.errors import DataError
from kepo.runs.study import StudyArm, StudyFile, read_study_file, runs_of, write_study_file


def test_what_was_written_is_read_from_the_folder_or_one_below(tmp_path: Path) -> None:
    study = StudyFile(
        "Über alles", "Does it help?", "kepo", {"kepo": StudyArm("KEPO", 0), "grpo": StudyArm(baseline=True)}
    )
    write_study_file(tmp_path, study)
    (tmp_path / "runs").mkdir()
    assert read_study_file([tmp_path]) == read_study_file([tmp_path / "runs"]) == study
    assert runs_of(tmp_path) == tmp_path / "runs"
    assert "Über" in (tmp_path / "study.json").read_text(encoding="utf-8")


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    assert read_study_file([tmp_path]) == StudyFile()
    (tmp_path / "runs").mkdir()
    assert runs_of(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"study\.json is not JSON"),
        ('["no record"]', r"must hold a record such as .*Expected `object`, got `array`"),
        ('{"arms": {"kepo": {"label": 3}}}', r"Expected `str \| null`, got `int` - at `\$\.arms\[\.\.\.\]\.label`"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_study_file([tmp_path])
