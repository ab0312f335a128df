"""The tiny LLaVA is an ordinary model folder: it reloads, reads images, generates, and comes out the same twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, LlavaForConditionalGeneration

from kepo.errors import ConfigError
from kepo.models import build_llava, count_parameters, tokenizer_texts
from kepo.models.llava import load_tokenizer
from kepo.prompts import build_prompt, hinted_prompt, prompt_text
from kepo.types import Question

QUESTIONS = [
    Question(f"q{index}", text, "B", ("liver", "spleen", "left kidney"), modality="MRI")
    for index, text in enumerate(["Which organ is shown?", "Which organ is enlarged in this image?"])
]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_llava(tmp_path_factory.mktemp("models") / "student", QUESTIONS, image_size=24, patch_size=12)


@pytest.fixture(scope="module")
def model(student: Path) -> LlavaForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(student)


def _inputs(folder: Path, *sides: tuple[int, int]) -> dict[str, torch.Tensor]:
    """One question per image; the images have the given sizes and are noise in grey levels."""
    processor = AutoProcessor.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    images = [
        Image.fromarray(torch.randint(0, 256, side, generator=generator, dtype=torch.uint8).numpy()) for side in sides
    ]
    text = build_prompt(QUESTIONS[0], "answer")[0]["content"]
    conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    prompt = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    return processor(images=[[i] for i in images], text=[prompt] * len(images), return_tensors="pt", padding=True)


def test_processor_makes_one_token_per_patch_of_the_resized_image(student: Path) -> None:
    inputs = _inputs(student, (40, 90), (24, 24))
    processor = AutoProcessor.from_pretrained(student)
    assert inputs["pixel_values"].shape == (2, 3, 24, 24)
    assert (inputs["input_ids"] == processor.image_token_id).sum(1).tolist() == [4, 4]  # (24 / 12)^2


def test_reloaded_model_gives_identical_logits(student: Path, model: LlavaForConditionalGeneration) -> None:
    inputs = _inputs(student, (30, 30))
    again = AutoModelForImageTextToText.from_pretrained(student)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)


def test_the_image_changes_the_logits(student: Path, model: LlavaForConditionalGeneration) -> None:
    inputs = _inputs(student, (30, 30))
    with torch.no_grad():
        seen = model(**inputs).logits
        black = model(**{**inputs, "pixel_values": -torch.ones_like(inputs["pixel_values"])}).logits
    assert (seen - black).abs().max() > 1e-3


def test_generation_runs_and_never_makes_an_image_token(student: Path, model: LlavaForConditionalGeneration) -> None:
    inputs = _inputs(student, (30, 30), (50, 20))
    settings = model.generation_config
    assert (settings.pad_token_id, settings.eos_token_id, settings.suppress_tokens) == (0, 2, [3])
    generated = model.generate(**inputs, max_new_tokens=5, do_sample=True)[:, inputs["input_ids"].shape[1] :]
    assert 1 <= generated.shape[1] <= 5
    assert not (generated == model.config.image_token_id).any()


@pytest.mark.parametrize(("size", "low", "high"), [("student", 0.9e6, 1.4e6), ("teacher", 2.5e6, 3.4e6)])
def test_parameter_counts_with_a_full_vocabulary(tmp_path: Path, size: Any, low: float, high: float) -> None:
    words = [replace(QUESTIONS[0], text=f"{index:x}word{index * 7919:x} of{index * 104729:x}") for index in range(400)]
    folder = build_llava(tmp_path / size, words, size=size)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.config.text_config.vocab_size == 1024
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert low < count_parameters(folder) == model.num_parameters() < high


def test_the_seed_decides_every_byte_and_the_callers_random_state_is_left_alone(tmp_path: Path, student: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    again = build_llava(tmp_path / "again", QUESTIONS, image_size=24, patch_size=12)
    assert torch.equal(torch.rand(1), expected)
    other = build_llava(tmp_path / "other", QUESTIONS, image_size=24, patch_size=12, seed=1)
    names = ["model.safetensors", "tokenizer.json", "config.json", "processor_config.json"]
    assert [(again / name).read_bytes() == (student / name).read_bytes() for name in names] == [True] * 4
    assert (other / "model.safetensors").read_bytes() != (student / "model.safetensors").read_bytes()


def test_a_teacher_takes_over_the_students_tokenizer(tmp_path: Path, student: Path) -> None:
    teacher = build_llava(
        tmp_path / "teacher", [], size="teacher", tokenizer_from=student, image_size=24, patch_size=12
    )
    assert (teacher / "tokenizer.json").read_bytes() == (student / "tokenizer.json").read_bytes()
    assert json.loads((teacher / "config.json").read_text())["text_config"]["hidden_size"] == 192
    assert load_tokenizer(teacher).get_vocab() == load_tokenizer(student).get_vocab()
    assert AutoModelForImageTextToText.from_pretrained(teacher)(**_inputs(teacher, (24, 24))).logits.isfinite().all()


def test_every_weight_that_reaches_the_loss_has_a_gradient(student: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(student)
    inputs = _inputs(student, (24, 24))
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    silent = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    # LLaVA reads the tower before its last norm.
    assert {name for name in silent if "post_layernorm" not in name and not name.endswith("k_proj.bias")} == set()


def test_tokenizer_texts_cover_prompts_hints_and_answers_once() -> None:
    texts = list(tokenizer_texts([*QUESTIONS, *QUESTIONS]))
    prompt = build_prompt(QUESTIONS[0], "think")
    assert len(texts) == len(set(texts))
    assert prompt_text(prompt) in texts
    assert prompt_text(hinted_prompt(prompt, "spleen")) in texts
    assert "left kidney" in texts


def test_own_generation_settings_still_suppress_the_image_token(student: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(student)
    image_token = model.config.image_token_id
    inputs = _inputs(student, (24, 24))
    # A head that puts the image token first, whatever it has seen.
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    model.lm_head.register_forward_hook(lambda *call: call[2].index_fill(-1, torch.tensor([image_token]), 9.0))
    settings = GenerationConfig(max_new_tokens=3, do_sample=True)
    generated = model.generate(**inputs, generation_config=settings)[:, inputs["input_ids"].shape[1] :]
    assert not (generated == image_token).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "size 'huge' is unknown; use one of student, teacher"),
        ({"image_size": 50, "patch_size": 12}, "image_size = 50 is not a multiple of patch_size = 12"),
        ({"questions": []}, "no questions"),
        ({"tokenizer_from": Path("nowhere")}, "nowhere has no tokenizer.json"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_llava(tmp_path / "model", **{"questions": QUESTIONS, **arguments})
    assert list(tmp_path.iterdir()) == []
