"""`kepo plan` as a user meets it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from kepo.cli.main import app
from kepo.errors import ConfigError

runner = CliRunner(env={"COLUMNS": "140"})


def test_the_papers_setting_fits_and_says_so() -> None:
    result = runner.invoke(app, ["plan", "paper/kepo-tau1", "--accelerate-config", "zero3-8gpu"])
    assert result.exit_code == 0, result.output
    for words in (
        "8 GPUs, zero3",
        "teacher weights",
        "during the optimizer step",
        "16 questions a step",
        "185 steps",
        "fits",
    ):
        assert words in result.output


def test_one_gpu_does_not_fit_and_advice_follows() -> None:
    result = runner.invoke(app, ["plan", "paper/kepo-tau1"])
    assert result.exit_code == 1
    for words in ("does not fit", "teacher_load_in_4bit: true", "--accelerate-config zero3-8gpu", "[all-linear]"):
        assert words in result.output


def test_fields_and_memory_of_the_command_line_count() -> None:
    arguments = ["plan", "paper/grpo", "--gpu-memory", "24", "--gpus", "4", "--max_completion_length", "256"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "one GPU of 24 GiB, 4 GPUs, zero3" in result.output
    assert "x 656 tokens" in result.output


def test_a_small_gpu_gets_changes_that_work_together() -> None:
    result = runner.invoke(app, ["plan", "paper/kepo-tau1", "--gpu-memory", "20"])
    assert result.exit_code == 1
    assert "together" in result.output


def test_a_recipe_without_image_size_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match="image_size"):
        runner.invoke(
            app,
            ["plan", "medical/grpo", "--model_name_or_path", "Qwen/Qwen3-VL-2B-Instruct", "--data_path", "x"],
            catch_exceptions=False,
        )
