"""A bank in training: written by `kepo hints`, read by the trainer, added to, climbed through, and logged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from kepo import KEPOTrainer, ScriptedTeacher
from kepo.cli import hints_plan
from kepo.cli.hints import app
from kepo.data.arguments import DataArguments, load_questions
from kepo.data.dataset import to_dataset
from kepo.errors import ConfigError
from kepo.exploration import HintBank
from kepo.prompts import HINT_LEVELS, prompt_text
from kepo.recipes.arguments import TeacherArguments
from kepo.recipes.building import teacher_of
from kepo.runs import read_rollouts
from kepo.types import Conversation
from tests.tiny_models import tiny_image
from tests.tiny_runs import has_magic, well_formed


def by_level(conversation: Conversation) -> str:
    """A hint that says its level."""
    text = prompt_text(conversation)
    return f"<hint>rung {next(level for level, wish in enumerate(HINT_LEVELS) if wish in text)}</hint>"


@pytest.fixture
def teacher() -> ScriptedTeacher:
    return ScriptedTeacher(by_level)


@pytest.fixture
def train(make_trainer: Callable[..., KEPOTrainer], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Train for one step with the bank `hints.jsonl`; the step's log."""

    def run(**fields: Any) -> dict[str, Any]:
        settings = {"distillation_weight": 0.0, "hint_bank": str(tmp_path / "hints.jsonl"), **fields}
        trainer = make_trainer((has_magic, well_formed), **settings)
        trainer.train()
        return next(entry for entry in trainer.state.log_history if "loss" in entry)

    return run


def _questions(folder: Path) -> Path:
    """Eight questions with an image each: a PNG, or a JPEG that lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = []
    for i in range(8):
        name = f"{i}.png" if i % 2 else f"{i}.jpg"
        tiny_image(i).resize((20, 12)).save(folder / name, **({} if i % 2 else {"exif": exif}))
        rows.append({"id": f"q{i}", "question": f"What is {i}?", "options": ["x", "y"], "answer": "A", "image": name})
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "questions.jsonl"


@pytest.mark.parametrize("image_size", [None, 16])
def test_training_finds_all_hints_that_kepo_hints_wrote(
    image_size: int | None,
    train: Callable[..., dict[str, Any]],
    vlm: str,
    teacher: ScriptedTeacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prompt style, options, images upright and resized, TRL's way of putting images in: the addresses agree."""
    data = _questions(tmp_path)
    monkeypatch.setattr(hints_plan, "_load_teacher", lambda *_: teacher)
    command = [str(data), "--teacher", "scripted", "--out", str(tmp_path / "hints.jsonl"), "--prompt-style", "answer"]
    command += [] if image_size is None else ["--image-size", str(image_size)]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    bank = (tmp_path / "hints.jsonl").read_bytes()
    assert len(HintBank.open(tmp_path / "hints.jsonl")) == 8 * 3
    asked = len(teacher.hint_conversations)

    questions = load_questions(DataArguments(data_path=str(data)))
    dataset = to_dataset(questions, "answer", image_size=image_size)
    fields = {"hint_level": 0, "hint_max_level": 2, "exploration_attempts": 3}
    teacher.hint_calls.clear()
    log = train(model=vlm, dataset=dataset, teacher=teacher, **fields)
    assert log["exploration/bank_hits"] == 1.0
    assert teacher.hint_calls == [0, 0, 0]
    assert len(teacher.hint_conversations) == asked
    assert (tmp_path / "hints.jsonl").read_bytes() == bank
    tried = {hint for row in read_rollouts(tmp_path / "run").to_pylist() for hint in row["hints_tried"]}
    assert tried == {"<hint>rung 0</hint>", "<hint>rung 1</hint>", "<hint>rung 2</hint>"}

    # The test can fail: shown in another way, nothing is found.
    others = to_dataset(questions, "answer", image_size=18)
    log = train(model=vlm, dataset=others, teacher=None, output_dir=str(tmp_path / "other"), **fields)
    assert log["exploration/bank_hits"] == 0.0


def test_a_bank_is_made_and_filled_by_training_and_read_by_the_next_run(
    train: Callable[..., dict[str, Any]], teacher: ScriptedTeacher, tmp_path: Path
) -> None:
    log = train(teacher=teacher, exploration_attempts=1)
    assert log["exploration/bank_hits"] == 0.0
    bank = HintBank.open(tmp_path / "hints.jsonl")
    assert {hint.text for hint in bank.hints} == {"rung 1"}
    assert {hint.teacher for hint in bank.hints} == {"scripted"}
    # The same two questions of the seed, without a teacher.
    log = train(teacher=None, exploration_attempts=1, output_dir=str(tmp_path / "again"))
    assert log["exploration/bank_hits"] == 1.0
    assert HintBank.open(tmp_path / "hints.jsonl").hints == bank.hints


def test_a_run_without_teacher_goes_on_where_the_bank_has_nothing(
    train: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "hints.jsonl").touch()
    log = train(teacher=None, exploration_attempts=1)
    assert log["exploration/bank_hits"] == 0.0
    rows = read_rollouts(tmp_path / "run").to_pylist()
    assert {row["exploration_failure"] for row in rows} == {"no hint"}


def test_the_level_that_worked_is_logged(
    train: Callable[..., dict[str, Any]],
    teacher: ScriptedTeacher,
    rescuing_sampler: list[list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The policy needs a plan: no sample under a concept is right."""
    rescue = KEPOTrainer.sample_completions

    def needs_a_plan(trainer: Any, prompts: Any, filler: Any) -> Any:
        shown = [prompt_text(prompt) for prompt in prompts]
        samples = rescue(trainer, prompts, filler)
        wrong = (70, 71, trainer.eos_token_ids[0])
        return [
            sample if "rung 1" in text else type(sample)(wrong, "no", (-0.1,) * 3)
            for sample, text in zip(samples, shown, strict=True)
        ]

    monkeypatch.setattr(KEPOTrainer, "sample_completions", needs_a_plan)
    log = train(teacher=teacher, hint_level=0, hint_max_level=2, exploration_attempts=3)
    assert log["exploration/hint_level"] == 1.0
    assert log["exploration/attempts"] == 2.0
    assert teacher.hint_calls == [2, 2, 0]
    injected = [row for row in read_rollouts(tmp_path / "run").to_pylist() if row["injected"]]
    assert {(row["hint_level"], row["hint"], row["attempt"]) for row in injected} == {(1, "rung 1", 2)}


def test_without_a_bank_its_hits_are_not_logged(
    train: Callable[..., dict[str, Any]], teacher: ScriptedTeacher, rescuing_sampler: list[list[Any]]
) -> None:
    log = train(teacher=teacher, hint_bank=None)
    assert "exploration/bank_hits" not in log
    assert log["exploration/hint_level"] == 1.0


def test_a_bank_that_is_missing_without_a_teacher_is_refused(train: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"no hint bank .*hints\.jsonl"):
        train(teacher=None)


def test_scores_need_a_teacher_bank_or_not(train: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "hints.jsonl").touch()
    with pytest.raises(ConfigError, match="distillation_weight is above 0"):
        train(teacher=None, distillation_weight=1.0)


def test_a_bank_of_other_teachers_is_said_and_can_be_read(
    train: Callable[..., dict[str, Any]], teacher: ScriptedTeacher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    big = ScriptedTeacher(by_level)
    big.name = "big"
    train(teacher=big, exploration_attempts=1)
    log = train(teacher=teacher, exploration_attempts=1, output_dir=str(tmp_path / "b"), hint_bank_teacher="any")
    assert log["exploration/bank_hits"] == 1.0
    assert "holds no hint of" not in caplog.text
    log = train(teacher=teacher, exploration_attempts=1, output_dir=str(tmp_path / "c"))
    assert log["exploration/bank_hits"] == 0.0
    assert "holds no hint of scripted, only of big" in caplog.text


def test_a_recipe_with_a_bank_needs_no_teacher_for_hints_alone(config: Callable[..., Any]) -> None:
    assert teacher_of(TeacherArguments(), config(distillation_weight=0.0, hint_bank="hints.jsonl")) is None
    for fields in ({"distillation_weight": 0.0}, {"hint_bank": "hints.jsonl"}):
        with pytest.raises(ConfigError, match="This arm needs a teacher"):
            teacher_of(TeacherArguments(), config(**fields))
