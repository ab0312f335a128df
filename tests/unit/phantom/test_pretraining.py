"""Supervised training of the base models: what is learned, what is shown, and that it is what training shows later."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from kepo import KEPOConfig, KEPOTrainer
from kepo.data.dataset import to_dataset
from kepo.models.encoding import encode
from kepo.phantom.files import draw, scene_of
from kepo.phantom.knowledge import facts
from kepo.phantom.lessons import DESCRIBE, Lesson
from kepo.phantom.pretraining import (
    LabelledImages,
    Lessons,
    Phase,
    WeightedLoss,
    pretrain,
    render_pool,
    scene_pool,
    warm_up_vision,
)
from kepo.phantom.questions import phantom_questions
from kepo.phantom.render import render
from kepo.phantom.scene import ATTRIBUTES, TEXTURES
from kepo.phantom.study import Questions
from kepo.prompts import build_prompt, hint_request, hinted_prompt
from kepo.rewards import choice_accuracy

SCENES = scene_pool(16, seed=3)
PIXELS = render_pool(SCENES, 48)
QUESTIONS = phantom_questions(8, seed=2)


@pytest.fixture(scope="module")
def processor(phantom_model: Path) -> Any:
    return AutoProcessor.from_pretrained(phantom_model)


def _lessons(processor: Any, **phase: Any) -> Lessons:
    return Lessons(Phase(**{"role": "student", "steps": 2, "batch_size": 4, **phase}), SCENES, PIXELS, processor, 5)


# --- lessons as tensors ---------------------------------------------------------------------------------------------


def test_only_the_target_and_the_end_are_learned(processor: Any) -> None:
    taught = Lesson(SCENES[0], [{"role": "user", "content": "Which disease is this?"}], "<think>", "tone dark</think>")
    encoded = _lessons(processor).encode(taught)
    tokenizer = processor.tokenizer
    learned = [label for label in encoded["labels"] if label != -100]
    assert tokenizer.decode(learned) == "tone dark</think><|eos|>"
    assert encoded["input_ids"][-len(learned) :] == learned
    assert encoded["labels"][: -len(learned)] == [-100] * (len(encoded["labels"]) - len(learned))
    shown = "<|bos|><|user|>" + "<|image|>" * 16 + "Which disease is this?<|eos|><|assistant|><think>"
    assert tokenizer.decode(encoded["input_ids"][: -len(learned)]) == shown


def test_without_images_there_are_no_image_tokens_and_no_pixels(processor: Any) -> None:
    lessons = _lessons(processor, images=False)
    batch = lessons.collate([lessons[0], lessons[1]])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert processor.tokenizer.image_token_id not in batch["input_ids"]


def test_lessons_are_counted_and_the_same_whenever_they_are_asked_for(processor: Any) -> None:
    lessons = _lessons(processor)
    assert len(lessons) == 8
    assert lessons[3] == _lessons(processor)[3]
    assert lessons[3] != lessons[4]


def test_shares_of_the_lessons_repeat_earlier_phases(processor: Any) -> None:
    repeated = (("answer-letters", 0.25), ("vision", 0.25))
    lessons = _lessons(processor, role="reliable", steps=100, repeated=repeated)
    prompts = [processor.tokenizer.decode(lessons[number]["input_ids"]) for number in range(len(lessons))]
    letter = len(processor.tokenizer("A</answer><|eos|>", add_special_tokens=False)["input_ids"])
    learned = [sum(label != -100 for label in lessons[number]["labels"]) for number in range(len(lessons))]
    assert 70 <= sum(length == letter for length in learned) <= 130
    assert 70 <= sum(DESCRIBE in prompt for prompt in prompts) <= 130


def test_a_batch_is_padded_on_the_right_and_padding_is_neither_seen_nor_learned(processor: Any) -> None:
    lessons = _lessons(processor)
    rows = [lessons[number] for number in range(4)]
    batch = lessons.collate(rows)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        assert batch["input_ids"][place, :length].tolist() == row["input_ids"]
        assert batch["attention_mask"][place].tolist() == [1] * length + [0] * (batch["labels"].size(1) - length)
        assert (batch["labels"][place, length:] == -100).all()


def test_pixels_are_normalised_as_the_processor_does_it(processor: Any) -> None:
    lessons = _lessons(processor)
    rows = [lessons[number] for number in range(4)]
    pictures = [Image.fromarray(PIXELS[row["number"]]) for row in rows]
    expected = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(lessons.collate(rows)["pixel_values"], expected, rtol=0, atol=1e-6)


def test_the_pool_is_drawn_from_its_seed_and_shows_its_scenes() -> None:
    assert scene_pool(16, 3) == SCENES != scene_pool(16, 4)
    assert PIXELS.shape == (16, 48, 48, 3)
    assert np.array_equal(PIXELS[5], np.asarray(render(SCENES[5], 48)))


def test_no_scene_of_the_pool_is_in_the_questions_of_a_study() -> None:
    pool = {scene.seed for scene in scene_pool(16384, 1)}
    asked = [question for questions in Questions().draw().values() for question in questions]
    assert len(pool) == 16384
    assert not pool & {question.metadata["scene"]["seed"] for question in asked}


# --- what is learned is what is asked later --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainer(phantom_model: Path, tmp_path_factory: pytest.TempPathFactory) -> KEPOTrainer:
    args = KEPOConfig(
        output_dir=str(tmp_path_factory.mktemp("run")),
        per_device_train_batch_size=8,
        num_generations=2,
        max_completion_length=4,
        exploration="none",
        distillation_weight=0.0,
        gradient_checkpointing=False,
        report_to="none",
    )
    return KEPOTrainer(str(phantom_model), [choice_accuracy], args, to_dataset(draw(QUESTIONS), "think"))


def _known(processor: Any, question: Any, prompt: Any) -> list[int]:
    return _lessons(processor).encode(Lesson(scene_of(question), prompt, "", ""))["input_ids"][:-1]


def test_training_asks_with_the_tokens_and_pixels_of_the_lessons(trainer: KEPOTrainer, processor: Any) -> None:
    rows = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    batch = trainer.make_generation_batch(rows)
    by_id = {question.id: question for question in QUESTIONS}
    for place, row in enumerate(rows):
        question = by_id[row["id"]]
        asked = batch["prompt_ids"][place][batch["prompt_mask"][place].bool()].tolist()
        assert asked == _known(processor, question, build_prompt(question))
        lessons = Lessons(Phase("student", 1), [], np.asarray(render(scene_of(question), 48))[None], processor, 0)
        shown = lessons.collate([{"number": 0, "input_ids": [1], "labels": [1]}])["pixel_values"]
        torch.testing.assert_close(batch["pixel_values"][place], shown[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("what", ["hinted", "hint request"])
def test_hinted_prompts_and_hint_requests_have_the_tokens_of_the_lessons(
    trainer: KEPOTrainer, processor: Any, what: str
) -> None:
    for question in draw(QUESTIONS[:4]):
        plain = build_prompt(question)
        parts = [{"type": "image", "image": question.images[0]}, {"type": "text", "text": plain[0]["content"]}]
        shown = [{"role": "user", "content": parts}]
        if what == "hinted":
            (asked,), _, _ = trainer._tokenize_prompts([hinted_prompt(shown, "burden by count")])
            assert asked == _known(processor, question, hinted_prompt(plain, "burden by count"))
        else:
            request = hint_request(shown, question.answer, question.options, 1)
            asked = encode(processor, [request], None, "cpu")["input_ids"][0].tolist()
            assert asked == _known(processor, question, hint_request(plain, question.answer, question.options, 1))


# --- the loss -------------------------------------------------------------------------------------------------------


def test_the_letter_counts_eight_times() -> None:
    # Two tokens of a vocabulary of 3; the student gives .5 to a word and .25 to a letter (token 2).
    logits = torch.log(torch.tensor([[[0.25, 0.5, 0.25], [0.25, 0.5, 0.25], [0.9, 0.05, 0.05]]]))
    labels = torch.tensor([[-100, 1, 2]])
    loss = WeightedLoss([2])(SimpleNamespace(logits=logits), labels)
    assert loss.item() == pytest.approx((1 * math.log(2) + 8 * math.log(4)) / 9)


def test_tokens_that_are_not_learned_have_no_gradient() -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([[-100, -100, 3, 2], [-100, 1, -100, -100]])
    WeightedLoss([2])(SimpleNamespace(logits=logits), labels).backward()
    learned = logits.grad.abs().sum(-1) > 0
    assert learned.tolist() == [[False, True, True, False], [True, False, False, False]]


@pytest.mark.slow
def test_a_phase_lowers_the_loss_and_writes_half_precision(phantom_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(phantom_model, folder)
    phase = Phase("answer-letters", 12, batch_size=16, learning_rate=1e-2, images=False)
    pretrain(folder, phase, SCENES, PIXELS, seed=1)
    lessons = Lessons(phase, SCENES, PIXELS, AutoProcessor.from_pretrained(folder), 99)
    batch = lessons.collate([lessons[number] for number in range(32)])
    labels = batch.pop("labels")
    losses = []
    for name in (phantom_model, folder):
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float32)
        with torch.no_grad():
            losses.append(WeightedLoss([])(model(**batch), labels).item())
    assert losses[1] < 0.7 * losses[0]
    assert AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").dtype == torch.float16


def test_labelled_images_carry_the_pixels_of_an_image_and_what_is_true_of_it() -> None:
    images = LabelledImages(Phase("vision", 2, batch_size=4), SCENES, PIXELS, seed=1)
    numbers = [images[index] for index in range(len(images))]
    assert len(numbers) == 8
    assert numbers == [
        LabelledImages(Phase("vision", 2, batch_size=4), SCENES, PIXELS, seed=1)[index] for index in range(8)
    ]
    batch = images.collate(numbers)
    assert batch["pixel_values"].shape == (8, 3, 48, 48)
    for row, number in zip(batch["labels"].tolist(), numbers, strict=True):
        known = facts(SCENES[number])
        names = {"texture": tuple(TEXTURES.values()), **ATTRIBUTES}
        assert [values[place] for values, place in zip(names.values(), row, strict=True)] == [known[n] for n in names]


@pytest.mark.slow
def test_the_vision_warm_up_changes_tower_and_projector_and_leaves_the_decoder_alone(
    phantom_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(phantom_model, folder)
    warm_up_vision(folder, Phase("vision", 3, batch_size=8, learning_rate=1e-3), SCENES, PIXELS, seed=1)
    before, after = (
        AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float16).state_dict()
        for name in (phantom_model, folder)
    )
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("vision_tower" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed)
    assert not any("language_model" in name or "lm_head" in name for name in changed)
