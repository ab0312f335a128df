"""The questions of a study: one modality to learn from, splits that share nothing, written once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kepo.cli.benchmark import app
from kepo.data.omnimedvqa import MODALITIES
from kepo.data.readers.questions import load_table
from kepo.errors import ConfigError
from kepo.phantom.build import MODEL_PLANS
from kepo.phantom.study import DEMO, FULL, Needs, Questions
from kepo.studies.reading import read_study
from kepo.studies.schema import StudySpec

SMALL = Questions(train=7, validation=6, watched=2, test=4, test_others=2)


def test_training_is_of_one_modality_and_the_others_are_watched_and_tested() -> None:
    questions = SMALL.draw()
    assert {name: len(found) for name, found in questions.items()} == {
        "train": 7,
        "validation": 6 + 7 * 2,
        "test": 4 + 7 * 2,
    }
    assert {question.modality for question in questions["train"]} == {"MRI"}
    assert Counter(question.modality for question in questions["validation"])["MRI"] == 6
    assert {question.modality for question in questions["test"]} <= set(MODALITIES)


def test_the_test_has_every_other_modality_equally_often() -> None:
    counts = Counter(question.modality for question in Questions(test=9, test_others=7).draw()["test"])
    assert counts == dict.fromkeys(MODALITIES, 7) | {"MRI": 9}


def test_no_scene_and_no_id_is_in_two_splits() -> None:
    questions = [question for found in Questions().draw().values() for question in found]
    assert len({question.metadata["scene"]["seed"] for question in questions}) == len(questions)
    assert len({question.id for question in questions}) == len(questions)


def test_questions_are_written_once(tmp_path: Path) -> None:
    SMALL.write(tmp_path)
    files = {name: tmp_path / "data" / f"{name}.jsonl" for name in ("train", "validation", "test")}
    assert [question.id for question in load_table(files["train"])] == [q.id for q in SMALL.draw()["train"]]
    before = {name: file.stat().st_mtime_ns for name, file in files.items()}
    SMALL.write(tmp_path)
    assert {name: file.stat().st_mtime_ns for name, file in files.items()} == before


@pytest.mark.parametrize("change", [{"test": 3}, {"data_seed": 1}])
def test_a_folder_with_other_questions_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    SMALL.write(tmp_path)
    with pytest.raises(ConfigError, match=r"holds a study with other questions .*'test': 4.* choose another folder"):
        replace(SMALL, **change).write(tmp_path)


def test_questions_that_were_only_half_written_are_written_again(tmp_path: Path) -> None:
    SMALL.write(tmp_path)
    (tmp_path / "data" / "data.json").unlink()
    (tmp_path / "data" / "test.jsonl").write_text("")
    SMALL.write(tmp_path)
    assert len(load_table(tmp_path / "data" / "test.jsonl")) == 18


@pytest.mark.parametrize("needs", [DEMO, FULL], ids=["demo", "full"])
def test_every_model_that_a_study_names_is_there_or_can_be_built(needs: Needs) -> None:
    study = read_study(needs.study, out="here")
    assert study.data.train == Path("here/data/train.jsonl")
    assert _models(study) == {f"here/models/{name}" for name in needs.models}
    assert set(needs.models) <= set(MODEL_PLANS)


def _models(study: StudySpec) -> set[str]:
    fields = [study.fields, *(model.fields for model in study.models), *(arm.fields for arm in study.arms)]
    return {value for one in fields for name, value in one.items() if name.endswith("model_name_or_path")}


def test_the_command_that_prepares_a_study_says_how_to_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, Path]] = []
    monkeypatch.setattr(Needs, "write", lambda needs, out, tell: written.append((needs.study, out)))
    done = CliRunner().invoke(app, ["study", str(tmp_path), "--full"])
    assert written == [("studies/phantom", tmp_path)]
    assert f"kepo study studies/phantom --out {tmp_path}" in done.stdout.replace("\n", "")


def test_a_study_of_shipped_models_is_prepared_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kepo.phantom.study import Needs, Questions; "
        "few = Questions(train=2, validation=2, watched=1, test=2, test_others=1); "
        f"Needs('studies/phantom-demo', few, ('student-1',)).write(Path({str(tmp_path / 'study')!r}), print); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "study" / "models" / "student-1" / "config.json").is_file()
