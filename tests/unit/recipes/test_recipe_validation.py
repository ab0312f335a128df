"""Validation while a model trains, as a recipe asks for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kepo.errors import ConfigError, DataError
from kepo.phantom.files import write_questions
from kepo.phantom.questions import phantom_questions
from kepo.recipes import inputs
from kepo.recipes.inputs import load_validation
from kepo.recipes.recipe import load_recipe


@pytest.fixture
def questions(tmp_path: Path) -> str:
    write_questions(tmp_path / "validation.jsonl", phantom_questions(4, 1, modalities=["MRI"]))
    return str(tmp_path / "validation.jsonl")


def _load(recipe: str, *overrides: str) -> Any:
    return load_validation(load_recipe(recipe, ["--output_dir", "out", *overrides]))


def test_without_questions_there_is_none() -> None:
    assert _load("phantom/grpo") is None


@pytest.mark.parametrize(
    ("recipe", "overrides", "longest"),
    [
        ("phantom/grpo", (), 40),
        ("phantom/sft", (), 1024),
        ("phantom/sft", ("--validation_max_new_tokens", "30"), 30),
    ],
)
def test_questions_are_asked_as_in_training(
    questions: str, monkeypatch: pytest.MonkeyPatch, recipe: str, overrides: tuple[str, ...], longest: int
) -> None:
    monkeypatch.setattr(inputs, "Validation", lambda *arguments: SimpleNamespace(arguments=arguments))
    made: Any = _load(recipe, "--validation_path", questions, "--validate_every", "7", *overrides)("trainer")
    trainer, asked, in_domain, every, settings = made.arguments
    assert (trainer, len(asked), in_domain, every) == ("trainer", 4, "MRI", 7)
    assert (settings.prompt_style, settings.max_new_tokens, settings.reward) == ("think", longest, "choice_accuracy")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("--save_strategy", "steps"), "set save_strategy to 'no'"),
        (("--modality", ""), "set modality too"),
        (("--validation_path", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_what_it_cannot_work_with_is_refused(questions: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        _load("phantom/grpo", "--validation_path", questions, *overrides)
