"""The numbers of a data card, worked out by hand, and the card as text."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kepo.data.prepare.card import render
from kepo.data.prepare.splitting import Item
from kepo.data.prepare.statistics import baselines, of_split, shared_images, shortfalls, unusable_counts
from kepo.data.sources import Unusable
from kepo.types import Question


def item(answer: str, options: int, content: str = "i", modality: str = "CT", task: str | None = None) -> Item:
    question = Question(
        id=f"{answer}{content}",
        text="?",
        answer=answer,
        options=tuple("wxyz"[:options]),
        images=("a.png",),
        modality=modality,
        task=task,
        metadata={"dataset": "one"},
    )
    return Item(question, (content,))


def test_baselines() -> None:
    questions = [one.question for one in (item("B", 2), item("B", 4), item("A", 4), item("D", 4))]
    # Chance: (1/2 + 3 * 1/4) / 4.
    assert baselines(questions) == {"chance": 0.3125, "majority_answer": "B", "majority": 0.5}
    # A tie goes to the first letter; an open question has no chance.
    assert baselines([item("B", 4).question, item("A", 4).question, item("a lung", 0).question]) == {
        "chance": 0.25,
        "majority_answer": "A",
        "majority": pytest.approx(1 / 3),
    }
    assert baselines([]) == {"chance": None, "majority_answer": None, "majority": None}


def test_of_split() -> None:
    items = [item("A", 2, "i", task="Grading"), item("B", 4, "i"), item("B", 4, "j", "MRI")]
    numbers = of_split(items, available=9)
    assert (numbers["questions"], numbers["available"], numbers["images"]) == (3, 9, 2)
    assert numbers["options"] == {"2": 1, "4": 2}
    assert numbers["tasks"] == {"Grading": 1, "unknown": 2}
    assert numbers["datasets"] == {"one": 3}
    assert numbers["modalities"]["CT"]["questions"] == 2
    assert numbers["modalities"]["CT"]["chance"] == 0.375
    assert numbers["modalities"]["MRI"]["options"] == {"4": 1}


def test_shortfalls_and_shared_images() -> None:
    drawn = {"train": [item("A", 2, "i"), item("B", 2, "j")], "validation": [], "test": [item("A", 2, "i", "MRI")]}
    assert shortfalls(drawn, {"train": 2, "validation": 0, "test": None}, ["MRI", "CT"]) == [
        {"split": "train", "modality": "MRI", "asked": 2, "taken": 0}
    ]
    assert shared_images(drawn) == {
        "train and validation": {"images": 0, "validation_questions": 0},
        "train and test": {"images": 1, "test_questions": 1},
        "validation and test": {"images": 0, "test_questions": 0},
    }


def test_unusable_counts() -> None:
    rows = [Unusable("f", number, "image", "does not exist", str(number)) for number in range(2)]
    assert unusable_counts([Unusable("f", 9, "answer", "is missing", ""), *rows]) == [
        {"field": "image", "reason": "does not exist", "rows": 2},
        {"field": "answer", "reason": "is missing", "rows": 1},
    ]


def test_the_card_is_one_that_the_hub_reads(tmp_path: Path) -> None:
    splits = {"train": [item("A", 2, "i")], "validation": [], "test": [item("B", 4, "j", "MRI", "a|b")]}
    card = {
        "name": "Scans",
        "command": "kepo prepare x",
        "seed": 42,
        "settings": {"split": "paper", "image_disjoint": False, "seed": 42, "size": None, "longest_side": 512},
        "identity": {"images": True, "files": [{"name": "a.json", "bytes": 7, "sha256": "00"}]},
        "rows": {"total": 3, "usable": 2, "unusable": 1, "left_out": 0},
        "unusable": [{"field": "image", "reason": "does not exist", "rows": 1}],
        "splits": {name: of_split(items, len(items)) for name, items in splits.items()},
        "shortfalls": [{"split": "test", "modality": "MRI", "asked": 2, "taken": 1}],
        "images": {
            "names": 2,
            "contents": 2,
            "repeated": 0,
            "shared_images": shared_images(splits),
            "shared_drawn": shared_images(splits),
        },
        "licenses": {"one": "CC BY 4.0"},
        "notes": ["A note."],
    }
    text = render(card)
    _, header, body = text.split("---\n", 2)
    configs = yaml.safe_load(header)["configs"]
    assert [file["split"] for file in configs[0]["data_files"]] == ["train", "test"]
    assert "an image can be in several splits. Seed: 42." in body
    assert "at most 512 pixels on the longer side" in body
    assert "| test | MRI | 1 | 25.0% | B | 100.0% | 4: 1 |" in body
    assert "| test | MRI | 2 | 1 |" in body
    assert "| MRI | a\\|b | 0 | 0 | 1 |" in body
    assert "| image | does not exist | 1 |" in body
    assert "| one | CC BY 4.0 |" in body
    assert "kepo prepare x" in body
