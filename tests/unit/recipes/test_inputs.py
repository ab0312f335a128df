"""Training and evaluation see the same prompt of a question, whatever the arm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kepo.recipes.inputs import load_datasets
from kepo.recipes.recipe import load_recipe


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [{"question": f"What is {{{i}}}?", "options": ["MRI", "CT"], "answer": "B"} for i in range(6)]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _sets(data: str, arm: str, *more: str):
    overrides = ["--data_path", data, "--data_format", "jsonl", "--num_train", "4", "--num_eval", "2", *more]
    return load_datasets(load_recipe(f"smollm2/{arm}", [*overrides, "--prompt_style", "think"]))[1:]


def test_training_and_evaluation_use_one_prompt(data: str) -> None:
    train, evaluation = _sets(data, "kepo")
    shapes = {row["prompt"][0]["content"].replace(row["question"], "QUESTION") for row in [*train, *evaluation]}
    assert len(train) == 4
    assert len(evaluation) == 2
    assert len(shapes) == 1


def test_supervised_and_reinforced_arms_use_one_prompt(data: str) -> None:
    train, _ = _sets(data, "kepo")
    supervised, _ = _sets(data, "sft", "--sft_think", "option")
    assert train["prompt"] == supervised["prompt"]
    assert {row["completion"][0]["content"] for row in supervised} == {"<think>CT</think>\n<answer>B</answer>"}


def test_copies_are_made_of_training_questions_only(data: str) -> None:
    train, evaluation = _sets(data, "kepo", "--option_shuffles", "3")
    assert len(train) == 16
    assert len(evaluation) == 2
