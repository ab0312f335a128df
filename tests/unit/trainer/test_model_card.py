"""The model card of a run folder: everything known is in it, nothing that is not, and no path of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from kepo.data.contents import contents_of
from kepo.runs import append_metrics
from kepo.runs.trained_on import write_trained_on
from kepo.trainer.model_card import CARD, MARKER, refresh_model_card, write_model_card
from kepo.types import Question
from tests.unit.reports.study import write_answers


def run_in(folder: Path, **config: dict[str, Any]) -> Path:
    """A run folder with a model."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, dict[str, Any]] = {
        "recipe": {"source": "kepo/qwen3-vl-2b arms/kepo"},
        "run": {"arm": "kepo", "method": "kepo", "reward_funcs": ["choice_accuracy", "think_format"]},
        "model": {"model_name_or_path": "Qwen/Qwen3-VL-2B-Instruct", "use_peft": False},
        "data": {"data_path": str(folder.parent / "data" / "train.jsonl"), "prompt_style": "think", "modality": "CT"},
        "teacher": {"teacher_model_name_or_path": "Qwen/Qwen3-VL-8B-Instruct", "teacher_url": ["http://10.1.2.3/v1"]},
        "training": {
            "learning_rate": 1e-6,
            "max_steps": -1,
            "num_train_epochs": 1.0,
            "num_generations": 8,
            "seed": 3,
            "distillation_weight": 1.0,
            "distillation_weight_end": None,
            "gate": "outcome",
            "exploration": "hint",
            "output_dir": str(folder),
        },
    }
    for part, fields in config.items():
        parts[part] = {**parts[part], **fields}
    manifest = {"status": "finished", "seed": 3, "steps": 40, "device": "cuda, bfloat16", "config": parts}
    manifest |= {"versions": {"kepo": "0.1.0", "trl": "1.16.0"}, "command": f"kepo train {folder}/recipe.yaml"}
    (folder / "run.json").write_text(json.dumps(manifest))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_vl", "vision_config": {}}))
    return folder


def card_of(run: Path) -> str:
    file = refresh_model_card(run)
    assert file is not None
    return file.read_text()


def test_a_model_of_the_hub(tmp_path: Path) -> None:
    run = run_in(tmp_path / "my-run")
    write_trained_on(run, contents_of([Question(str(n), f"Question {n}", "x") for n in range(1234)]), resumed=False)
    text = card_of(run)
    data = ModelCard(text).data
    assert data.base_model == "Qwen/Qwen3-VL-2B-Instruct"
    assert (data.model_name, data.pipeline_tag, data.library_name) == ("my-run", "image-text-to-text", "transformers")
    assert data.license is None
    for expected in (
        "# my-run\n",
        "[Qwen/Qwen3-VL-2B-Instruct](https://huggingface.co/Qwen/Qwen3-VL-2B-Instruct) after post-training with GRPO, "
        "on-policy distillation gated by `outcome` and exploration with hints",
        "| teacher | Qwen/Qwen3-VL-8B-Instruct |",
        "| data | 1,234 questions of data/train.jsonl |",
        "| recipe | kepo/qwen3-vl-2b, arms/kepo |",
        "| learning_rate | 1e-06 |",
        "| optimizer steps | 40 |",
        "Not evaluated yet.",
        "neither is known here",
        "kepo 0.1.0, trl 1.16.0",
        "@article{yang2026kepo,",
        "{{KEPO}: Knowledge-Enhanced",
        "AutoModelForImageTextToText",
    ):
        assert expected in text, expected
    for secret in ("None", str(tmp_path), "10.1.2.3", "max_steps", "command"):
        assert secret not in text, secret


def test_a_local_model_is_no_name_of_the_hub_and_gives_its_license(tmp_path: Path) -> None:
    base = tmp_path / "models" / "student"
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Student\n")
    text = card_of(run_in(tmp_path / "run", model={"model_name_or_path": str(base)}))
    data = ModelCard(text).data
    assert (data.base_model, data.license) == (None, "apache-2.0")
    assert "| base model | `student` (a local model) |" in text
    assert "`apache-2.0`, that of the base model" in text
    assert str(tmp_path) not in text


def test_a_run_that_began_from_a_run_names_both_and_the_root_on_the_hub(tmp_path: Path) -> None:
    first = run_in(tmp_path / "sft-run", run={"method": "sft"})
    run = run_in(tmp_path / "run", model={"model_name_or_path": str(first)})
    text = card_of(run)
    assert ModelCard(text).data.base_model == "Qwen/Qwen3-VL-2B-Instruct"
    assert "`sft-run` (a local model) ([Qwen/Qwen3-VL-2B-Instruct](" in text
    assert "after supervised fine-tuning)" in text


def test_a_relative_folder_stays_a_folder_when_the_card_is_written_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "student").mkdir(parents=True)
    (tmp_path / "data" / "set").mkdir(parents=True)
    run = run_in(tmp_path / "run", model={"model_name_or_path": "models/student"}, data={"data_path": "data/set"})
    monkeypatch.chdir(tmp_path)
    card_of(run)
    monkeypatch.chdir(run)
    data = ModelCard(card_of(run)).data
    assert (data.base_model, data.datasets) == (None, None)


def test_results_have_intervals_and_say_on_what_and_with_which_weights(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    write_answers(run, [0] * 9)
    file = run / "evaluation" / "test.json"
    found = {"asked": 9, "same": 4, "alike": 0, "image": 0, "examples": ["test-1"]}
    more = {"trained_on": found, "data": "/home/me/data/test.jsonl"}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    append_metrics(run, 40, {"validation/best_step": 0})
    text = card_of(run)
    assert "| test | all | 9 | 0.0 | 0.0 to 29.9 | 25.0 |" in text
    assert "test: data/test.jsonl, temperature 0, the weights are those of step 0, the best on validation" in text
    assert "which is the model before training" in text
    assert "Contamination: Of 9 questions 4 were trained on" in text
    assert "/home/me" not in text
    [result] = ModelCard(text).data.eval_results
    assert (result.metric_value, result.metric_args["interval_95"], result.metric_args["questions"]) == (
        0,
        [0, 0.2991],
        9,
    )


def test_in_and_out_of_domain_are_told_apart(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    write_answers(run, [1, 0, 1], modality="MRI", in_domain=["CT"])
    text = card_of(run)
    assert "| test | all | 3 | 66.7 |" in text
    assert "out of domain" not in text  # all are
    assert text.count("| test |") == 1


def test_an_own_card_is_left_alone_and_one_of_trl_is_replaced(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    (run / CARD).write_text("# Mine\n")
    assert refresh_model_card(run) is None
    assert (run / CARD).read_text() == "# Mine\n"
    (run / CARD).write_text("---\ntags:\n- generated_from_trainer\n---\n# None\n")
    assert MARKER in card_of(run)
    (run / CARD).write_text(card_of(run).replace(MARKER, ""))
    assert refresh_model_card(run) is None


def test_a_folder_without_model_has_no_card(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    (run / "config.json").unlink()
    assert refresh_model_card(run) is None
    assert not (run / CARD).exists()


def test_little_is_enough_and_hostile_names_are_text(tmp_path: Path) -> None:
    file = write_model_card(tmp_path, {}, name="a | <script>\n# b", hub_id="me/model")
    assert file is not None
    text = file.read_text()
    assert "None" not in text
    assert "<script>" not in text.split("---", 2)[2]
    assert 'AutoModelForCausalLM.from_pretrained("me/model")' in text


def test_plain_grpo_and_supervised_runs_are_called_so(tmp_path: Path) -> None:
    off = {"distillation_weight": 0.0, "exploration": "none"}
    grpo = card_of(run_in(tmp_path / "a", training=off))
    assert "after post-training with GRPO alone" in grpo
    assert "| teacher |" not in grpo
    assert "| gate |" not in grpo  # which did nothing
    sft = card_of(run_in(tmp_path / "b", run={"method": "sft"}))
    assert "after supervised fine-tuning," in sft
    assert "| teacher |" not in sft
    assert "| rewards |" not in sft
