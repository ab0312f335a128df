"""One KEPO step on every architecture users bring, full and LoRA, text and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForImageTextToText

from kepo import KEPOTrainer, LocalTeacher
from kepo.models.shared_images import share_image_features
from tests.tiny_models import (
    ARCHITECTURES_TEXT,
    ARCHITECTURES_VLM,
    UnavailableHere,
    build_qwen_vl_model,
    build_text_model,
    build_tokenizer,
    build_vlm,
)
from tests.tiny_runs import even_start, has_magic, questions, well_formed


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
    """The whole method: all-failed groups, hints from a teacher that sees the image, rescue, distillation loss."""
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
    trainer = make_trainer((has_magic, well_formed), dataset=dataset, exploration_attempts=1, hint_leak_policy="allow")
    trainer.train()
    assert _log(trainer)["exploration/all_failed_groups"] == 1.0


def test_a_model_object_and_a_processor_can_be_passed_as_in_trl(
    make_trainer: Callable[..., KEPOTrainer], student: str
) -> None:
    from transformers import AutoModelForCausalLM

    trainer = make_trainer(model=AutoModelForCausalLM.from_pretrained(student))
    trainer.train()
    assert _log(trainer)["distillation/loss"] > 0


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl"])
def test_qwen_vl_on_text_alone(make_trainer: Callable[..., KEPOTrainer], tmp_path: Path, architecture: str) -> None:
    """Its processor needs torchvision; model, output head and shared image features do not."""
    tokenizer = build_tokenizer()
    folder = build_qwen_vl_model(tmp_path / "student", architecture, seed=0)
    teacher = LocalTeacher(
        AutoModelForImageTextToText.from_pretrained(build_qwen_vl_model(tmp_path / "teacher", architecture, seed=1)),
        processor=tokenizer,
        hint_max_new_tokens=4,
    )
    trainer = make_trainer(
        (even_start, well_formed),
        model=AutoModelForImageTextToText.from_pretrained(folder),
        processing_class=tokenizer,
        teacher=teacher,
    )
    before = _parameters(trainer)
    trainer.train()
    assert _log(trainer)["distillation/loss"] > 0
    assert _changed(trainer, before) > 0


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl"])
def test_qwen_vl_encodes_equal_images_once(tmp_path: Path, architecture: str) -> None:
    folder = build_qwen_vl_model(tmp_path / "model", architecture, seed=0)
    torch.manual_seed(0)
    small, large = torch.randn(16, 384), torch.randn(32, 384)  # 4 x 4 and 4 x 8 patches of 8 x 8 pixels, two frames
    patches = torch.cat([small, large, small])
    grid = torch.tensor([[1, 4, 4], [1, 4, 8], [1, 4, 4]])
    features = []
    for share in (False, True):
        model = AutoModelForImageTextToText.from_pretrained(folder)
        if share:
            share_image_features(model)
            given: list[int] = []
            model.model.visual.register_forward_pre_hook(lambda _module, args, seen=given: seen.append(len(args[0])))
        output = model.model.get_image_features(patches, grid, return_dict=True)
        deepstack = getattr(output, "deepstack_features", None) or []
        features.append([torch.cat(list(output.pooler_output)), *(torch.cat(list(part)) for part in deepstack)])
    assert given == [48]
    assert len(features[0]) == (2 if architecture == "qwen3_vl" else 1)
    torch.testing.assert_close(features[0], features[1], rtol=1e-4, atol=1e-4)
