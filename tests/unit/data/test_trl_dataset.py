"""Data sets in the formats of TRL's trainers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kepo.data import to_dataset, to_sft_dataset
from kepo.data.dataset import default_completion
from kepo.errors import DataError
from kepo.prompts import build_prompt
from kepo.types import Question

CHOICE = Question(
    id="q1",
    text="What is {it}?",
    answer="B",
    options=("Cyst", "Tumour"),
    modality="CT",
    task="Diagnosis",
    metadata={"reasoning": " It is dense. ", "n": [1]},
)
OPEN = Question(id="q2", text="1+1?", answer="2")


def with_images(question: Question, *images: object) -> Question:
    return Question(id=question.id, text=question.text, answer=question.answer, options=question.options, images=images)


def test_columns_without_images() -> None:
    dataset = to_dataset([CHOICE, OPEN], "think")
    assert "images" not in dataset.column_names
    assert dataset[0] == {
        "prompt": build_prompt(CHOICE, "think"),
        "id": "q1",
        "question": "What is {it}?",
        "options": ["Cyst", "Tumour"],
        "answer": "B",
        "solution": "Tumour",
        "modality": "CT",
        "task": "Diagnosis",
        "metadata": json.dumps({"reasoning": " It is dense. ", "n": [1]}),
    }
    row = dataset[1]
    assert (row["options"], row["answer"], row["solution"]) == ([], "2", "2")
    assert (row["modality"], row["task"], row["metadata"]) == (None, None, "{}")
    assert to_dataset([OPEN], "plain")[0]["prompt"] == [{"role": "user", "content": "1+1?"}]


def test_images_come_as_rgb_in_order(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("L", (6, 4), 100).save(path)
    decoded = Image.new("RGBA", (3, 5), (10, 20, 30, 255))
    dataset = to_dataset(
        [with_images(CHOICE, path, decoded), with_images(OPEN), with_images(OPEN, str(path))], "answer"
    )
    images = dataset[0]["images"]
    assert [(image.mode, image.size) for image in images] == [("RGB", (6, 4)), ("RGB", (3, 5))]
    assert [image.getpixel((0, 0)) for image in images] == [(100, 100, 100), (10, 20, 30)]
    assert dataset[1]["images"] == []
    assert list(dataset["image_paths"]) == [[str(path)], [], [str(path)]]
    assert dataset[2]["images"][0].size == (6, 4)
    assert dataset[0]["prompt"] == build_prompt(CHOICE, "answer")


def test_a_decoded_image_is_kept_as_it_is_not_as_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    image = Image.open(path)
    image.thumbnail((4, 4))
    assert to_dataset([with_images(OPEN, image)], "plain")[0]["images"][0].size == (4, 4)


def test_images_are_resized_when_a_row_is_read() -> None:
    questions = [with_images(OPEN, Image.new("L", (6, 4), 100), Image.new("L", (9, 9)))] * 3
    dataset = to_dataset(questions, "plain", image_size=5)
    assert [image.size for image in dataset[0]["images"]] == [(5, 5), (5, 5)]
    assert [[image.size for image in row["images"]] for row in dataset] == [[(5, 5), (5, 5)]] * 3
    assert dataset.select([2])[0]["images"][0].mode == "RGB"
    assert list(dataset["id"]) == ["q2"] * 3
    assert "image_size" not in dataset.column_names
    assert to_dataset([OPEN], "plain", image_size=5)[0]["id"] == "q2"


@pytest.mark.parametrize("build", [to_dataset, to_sft_dataset])
def test_what_cannot_be_built(build) -> None:
    with pytest.raises(DataError, match="there are no questions"):
        build([], "answer")
    with pytest.raises(DataError, match="image_size is 0"):
        build([OPEN], "answer", image_size=0)
    with pytest.raises(ValueError, match="prompt style 'loud' is unknown"):
        build([OPEN], "loud")


@pytest.mark.parametrize(
    ("question", "style", "text"),
    [
        (CHOICE, "think", "<think>It is dense.</think>\n<answer>B</answer>"),
        (CHOICE, "answer", "<answer>B</answer>"),
        (CHOICE, "plain", "B"),
        (OPEN, "answer", "<answer>2</answer>"),
    ],
)
def test_default_completion(question: Question, style, text: str) -> None:
    assert default_completion(question, style) == text
    row = to_sft_dataset([question], style)[0]
    assert row == {
        "prompt": build_prompt(question, style),
        "completion": [{"role": "assistant", "content": text}],
    }


def test_thinking_needs_something_to_think() -> None:
    with pytest.raises(DataError, match="question 'q2', field 'metadata': there is no 'reasoning'"):
        to_sft_dataset([OPEN], "think")


def test_a_completion_of_ones_own_and_images() -> None:
    dataset = to_sft_dataset([with_images(OPEN, Image.new("L", (6, 4)))], "think", lambda q: f"it is {q.answer}", 8)
    row = dataset[0]
    assert row["completion"] == [{"role": "assistant", "content": "it is 2"}]
    assert [(image.mode, image.size) for image in row["images"]] == [("RGB", (8, 8))]
    assert set(row) == {"prompt", "completion", "images"}


@pytest.mark.slow
def test_trl_takes_the_supervised_data_set(tmp_path: Path) -> None:
    """The collator of TRL's SFTTrainer puts one placeholder per image and trains on the completion only."""
    from transformers import AutoProcessor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from tests.tiny_models import build_vlm

    processor = AutoProcessor.from_pretrained(build_vlm(tmp_path / "llava", "llava"))
    questions = [with_images(CHOICE, Image.new("L", (20, 9))), with_images(CHOICE)]
    dataset = to_sft_dataset(questions, "answer", image_size=16)
    batch = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([dataset[0], dataset[1]])
    assert batch["pixel_values"].shape[0] == 1
    trained = [processor.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert all("<answer>B</answer>" in text and "Cyst" not in text for text in trained)
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert (batch["input_ids"] == image).any(dim=1).tolist() == [True, False]
