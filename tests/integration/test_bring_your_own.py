"""The run of docs/bring-your-own.md, word for word but for the models, as a script and as a recipe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny_models import build_vlm

GUIDE = Path(__file__).parents[2] / "docs" / "bring-your-own.md"


def block(heading: str, language: str) -> str:
    """The first block of code in a section of the guide."""
    section = GUIDE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]  # type: ignore[index]


def on_small_models(text: str) -> str:
    """`text` with small models on the CPU, and a short completion."""
    for published, ours in {
        "Qwen/Qwen3-VL-2B-Instruct": "student",
        "Qwen/Qwen3-VL-8B-Instruct": "teacher",
        ', device="cuda:1", dtype="bfloat16"': "",
        "teacher_device: cuda:1\nteacher_dtype: bfloat16\n": "",
        "max_completion_length=512": "max_completion_length=4, max_steps=1, report_to='none'",
        "max_completion_length: 512": "max_completion_length: 4\nmax_steps: 1\nreport_to: none\nhint_max_new_tokens: 4",
    }.items():
        text = text.replace(published, ours)
    assert "Qwen" not in text
    assert "cuda" not in text
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    build_vlm(folder / "student", "llava", seed=0)
    build_vlm(folder / "teacher", "llava", seed=1)
    (folder / "images").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (16, 16), "grey").save(folder / "images" / name)
    (folder / "questions.jsonl").write_text(block("The data", "json"))
    (folder / "rewards.py").write_text(block("The reward", "python"))
    (folder / "train.py").write_text(on_small_models(block("As a script", "python")))
    (folder / "mine.yaml").write_text(on_small_models(block("As a recipe", "yaml")))
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_script_runs_and_leaves_a_run_folder(folder: Path) -> None:
    run(folder, "train.py")
    manifest = json.loads((folder / "runs/mine/run.json").read_text())
    assert (manifest["status"], manifest["steps"]) == ("finished", 1)
    assert (folder / "runs/mine/model.safetensors").is_file()
    assert "exact_letter" in (folder / "runs/mine/metrics.jsonl").read_text()


@pytest.mark.slow
def test_the_recipe_is_checked_and_runs(folder: Path) -> None:
    said = run(folder, "-m", "kepo", "check", "mine.yaml", "--output_dir", "runs/recipe")
    assert "exact_letter" in said
    assert not (folder / "runs/recipe").exists()
    run(folder, "-m", "kepo", "train", "mine.yaml", "--output_dir", "runs/recipe")
    assert json.loads((folder / "runs/recipe/run.json").read_text())["status"] == "finished"
