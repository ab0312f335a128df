"""Typing errors, missing files, wrong types, no permission, empty files: one readable error and exit code 2."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from kepo.cli.main import main
from tests.tiny_models import build_text_model

# Command -> words of its error; FILE.yaml, questions.jsonl, empty.*, student and a folder without files are there.
COMMANDS = {
    "train recip.yaml": ["recipe.yaml"],
    "train recipe.yaml --learning_rate x": ["the command line", "learning_rate"],
    "train empty.yaml": ["empty.yaml", "it is empty"],
    "train recipe.yaml --model_name_or_path no/model": ["model_name_or_path 'no/model'", "hf download"],
    "train recipe.yaml --teacher_device cuda:7": ["teacher_device", "cuda:7"],
    "train recipe.yaml --teacher_dtype fp8": ["teacher_dtype", "bfloat16"],
    "train recipe.yaml --use_vllm true --report_to wandb": ["kepo[vllm]", "pip install wandb"],
    "train recipe.yaml --deepspeed ds.json": ["kepo[deepspeed]"],
    "train recipe.yaml --load_in_4bit true": ["kepo[quantization]"],
    "train recipe.yaml --accelerate-config multi_gpu": ["8 processes"],
    "train recipe.yaml --accelerate-config recipe.yaml": ["no accelerate config|not an accelerate config"],
    "train recipe.yaml --data_path data.json": ["looks like csv"],
    "train recipe.yaml --data_path nowhere.jsonl": ["nowhere.jsonl"],
    "train recipe.yaml --reward_funcs own.py:reward": ["there is no file own.py"],
    "train recipe.yaml --output_dir recipe.yaml": ["recipe.yaml"],
    "train recipe.yaml --use_peft true --lora_target_modules foo": ["foo"],
    "train recipe.yaml --attn_implementation foo": ["attn_implementation"],
    "check recip.yaml": ["recipe.yaml"],
    "plan recip.yaml": ["recipe.yaml"],
    "plan recipe.yaml --model_name_or_path no/model": ["no/model"],
    "recipes arms/kpeo": ["arms/kepo"],
    "fields gate_tresh": ["gate_threshold"],
    "eval student --data questions.jsonl --out e --device cuda:7": ["--device", "cuda:7"],
    "eval student --data questions.jsonl --out e --dtype fp8": ["--dtype", "bfloat16"],
    "eval no/model --data questions.jsonl --out e": ["no/model"],
    "eval student --data empty.jsonl --out e": ["empty.jsonl"],
    "hints questions.jsonl --teacher student --out h.jsonl --device cuda:7": ["cuda:7"],
    "hints questions.jsonl --teacher no/model --out h.jsonl": ["no/model"],
    "study studies/papr": ["studies/paper"],
    "study studies/phantom-demo --only kpeo": ["did you mean 'kepo'"],
    "demo --out recipe.yaml": ["recipe.yaml"],
    "benchmark data recipe.yaml --train 1 --validation 0 --test 0 --modality MRI": ["recipe.yaml"],
    "benchmark sheet x.foo --size 8": ["x.foo"],
    "inspect recipe.yaml": ["recipe.yaml"],
    "report folder": ["folder"],
    "prepare table data.json --out d": ["looks like csv"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    build_text_model(root / "student")
    row = '{"id": "q%d", "question": "What is in %d?", "options": ["MRI", "CT"], "answer": "A"}\n'
    (root / "questions.jsonl").write_text("".join(row % (i, i) for i in range(8)))
    (root / "recipe.yaml").write_text(
        "base: arms/kepo\nmodel_name_or_path: student\nteacher_model_name_or_path: student\n"
        "data_path: questions.jsonl\n"
        "num_generations: 4\nper_device_train_batch_size: 8\nreport_to: none\noutput_dir: run\n"
    )
    (root / "data.json").write_text("question,answer\nWhat?,yes\n")
    for name in ("empty.yaml", "empty.jsonl"):
        (root / name).touch()
    (root / "folder").mkdir()
    return root


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistake_is_one_readable_error(
    command: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.accelerator.is_available() and "multi_gpu" in command:
        pytest.skip("this machine has GPUs")
    monkeypatch.chdir(project)
    monkeypatch.setattr("sys.argv", ["kepo", *shlex.split(command)])
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    with pytest.raises(SystemExit) as end:
        main()
    message = capsys.readouterr().err
    assert end.value.code == 2, message
    assert "error: " in message
    assert "Traceback" not in message
    for words in COMMANDS[command]:
        assert any(word in message for word in words.split("|")), message


def test_a_file_that_may_not_be_written_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*args: object) -> None:
        raise PermissionError(13, "Permission denied", "/protected/rows")

    monkeypatch.setattr("kepo.cli.main.app", refused)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "error: /protected/rows: Permission denied" in capsys.readouterr().err


def test_the_whole_recipe_is_printed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr("sys.argv", ["kepo", "recipes", "recipe.yaml", "--resolved"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for line in (
        "num_generations: 4",
        "gate: trajectory",
        "weight_decay:",
        "teacher_batch_size: 8",
        "lora_r:",
        "num_eval: 0",
    ):
        assert line in shown
