"""One KEPO step on every architecture users bring, full and LoRA, text and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from kepo import KEPOTrainer, LocalTeacher
from tests.tiny_models import ARCHITECTURES_TEXT, ARCHITECTURES_VLM, UnavailableHere, build_text_model, build_vlm

from .conftest import even_start, has_magic, questions, well_formed


def _changed(trainer: KEPOTrainer, before: dict[str, torch.Tensor]) -> int:
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    return sum(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


def _parameters(trainer: KEPOTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def _log(trainer: KEPOTrainer) -> dict[str, Any]:
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


@pytest.mark.parametrize("architecture", ARCHITECTURES_TEXT)
def test_one_step_on_a_language_model(
    make_trainer: Callable[..., KEPOTrainer], tmp_path: Path, architecture: str
) -> None:
    folder = build_text_model(tmp_path / "student", architecture, seed=0)
    trainer = make_trainer((even_start, well_formed), model=str(folder))
    before = _parameters(trainer)
    trainer.train()
    assert _changed(trainer, before) > 0
    assert _log(trainer)["distillation/loss"] > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES_VLM)
def test_one_step_on_a_vision_language_model(
    make_trainer: Callable[..., KEPOTrainer],
    rescuing_sampler: list[list[Any]],
    tmp_path: Path,
    architecture: str,
) -> None:
    """The whole method: dead groups, hints from a teacher that sees the image, rescue, and the teacher term."""
    try:
        student = build_vlm(tmp_path / "student", architecture, seed=0)
        teacher = LocalTeacher(str(build_vlm(tmp_path / "teacher", architecture, seed=1)), hint_max_new_tokens=4)
    except UnavailableHere as reason:
        pytest.skip(str(reason))
    trainer = make_trainer(
        (has_magic, well_formed),
        model=str(student),
        teacher=teacher,
        dataset=questions(images=True),
        hint_leak_policy="allow",
    )
    before = _parameters(trainer)
    trainer.train()
    log = _log(trainer)
    assert log["exploration/injected_share"] == 0.5
    assert log["gate/open_share"] == 0.5
    assert log["distillation/loss"] > 0
    assert _changed(trainer, before) > 0
    shown = rescuing_sampler[0][0][-1]["content"]
    assert [part["type"] for part in shown].count("image") == 1


@pytest.mark.parametrize("kind", ["text", "vlm"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_lora(
    make_trainer: Callable[..., KEPOTrainer], student: str, vlm: str, tmp_path: Path, kind: str, checkpointing: bool
) -> None:
    teacher = "local"
    if kind == "vlm":
        teacher = LocalTeacher(str(build_vlm(tmp_path / "teacher", "llava", seed=1)), hint_max_new_tokens=4)
    trainer = make_trainer(
        (even_start, well_formed),
        model=student if kind == "text" else vlm,
        teacher=teacher,
        dataset=questions(images=kind == "vlm"),
        gradient_checkpointing=checkpointing,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    )
    before = _parameters(trainer)
    trainer.train()
    changed = [n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])]
    assert changed
    assert all("lora_" in name for name in changed)
    assert _log(trainer)["distillation/loss"] > 0


def test_plain_text_prompts_work_too(make_trainer: Callable[..., KEPOTrainer]) -> None:
    dataset = questions().map(lambda row: {"prompt": f"Question: {row['id']}. Answer:"})
    trainer = make_trainer((has_magic, well_formed), dataset=dataset, hint_attempts=1, hint_leak_policy="allow")
    trainer.train()
    assert _log(trainer)["exploration/dead_groups"] == 1.0


def test_a_model_object_and_a_processor_can_be_passed_as_in_trl(
    make_trainer: Callable[..., KEPOTrainer], student: str
) -> None:
    from transformers import AutoModelForCausalLM

    trainer = make_trainer(model=AutoModelForCausalLM.from_pretrained(student))
    trainer.train()
    assert _log(trainer)["distillation/loss"] > 0
