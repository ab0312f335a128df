"""Rewards, questions and settings of the short runs that tests train on tiny models."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from tests.tiny_models import tiny_image

# Fields of a KEPOConfig: everything logged, nothing saved.
SHORT_RUN: dict[str, Any] = {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "seed": 3,
}

MAGIC = 65  # any ordinary token; its presence is what the reward below calls a right answer
ANSWER_IDS = (MAGIC, MAGIC, MAGIC)


def has_magic(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Right when the completion starts with the magic tokens, which a random policy practically never samples."""
    return [float(tuple(ids[:3]) == ANSWER_IDS) for ids in completion_ids]


def even_start(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Right for about every second completion of a random policy."""
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def well_formed(completions: Any, **_: Any) -> list[float]:
    """A format reward that every completion earns."""
    return [1.0] * len(completions)


def questions(count: int = 8, images: bool = False) -> Dataset:
    """`count` multiple-choice questions in TRL's format."""
    rows = {
        "id": [f"q{i}" for i in range(count)],
        "prompt": [[{"role": "user", "content": f"What does image {i} show?"}] for i in range(count)],
        "answer": ["A"] * count,
        "options": [["MRI", "CT"]] * count,
        "modality": ["MRI"] * count,
        "task": ["Modality Recognition"] * count,
    }
    if images:
        rows["images"] = [[tiny_image(i)] for i in range(count)]
    return Dataset.from_dict(rows)
