"""PhantomVQA on disk: in this package's own layout, and in the raw layout of OmniMedVQA."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kepo.data.omnimedvqa import QUESTION_FOLDER
from kepo.files import write_json, write_text
from kepo.phantom.render import render
from kepo.phantom.scene import Scene
from kepo.types import Question

IMAGE_SIZE = 48


def draw(questions: Iterable[Question], size: int = IMAGE_SIZE) -> list[Question]:
    """The questions with their images, drawn in memory at `size` pixels a side."""
    return [replace(question, images=(render(scene_of(question), size),)) for question in questions]


def scene_of(question: Question) -> Scene:
    """The scene that a question of PhantomVQA is about."""
    return Scene(**question.metadata["scene"])


def write_questions(file: Path, questions: Sequence[Question], size: int = IMAGE_SIZE) -> None:
    """Write `file` (JSON lines) and an image of `size` pixels for each question into `images/` beside it."""
    rows = [
        {
            "id": question.id,
            "image": _write_image(file.parent, Path("images"), question, size),
            "question": question.text,
            "options": list(question.options),
            "answer": question.answer,
            "modality": question.modality,
            "task": question.task,
            "metadata": dict(question.metadata),
        }
        for question in questions
    ]
    write_text("".join(json.dumps(row) + "\n" for row in rows), file)


def write_omnimedvqa(root: Path, name: str, questions: Sequence[Question], size: int = IMAGE_SIZE) -> None:
    """Write `root/QA_information/Open-access/NAME.json` and `root/Images/NAME/`, as OmniMedVQA is published.

    The layout has no place for facts and reasoning; they are left out.
    """
    rows: list[dict[str, Any]] = [
        {
            "dataset": name,
            "question_id": question.id,
            "question_type": question.task,
            "question": question.text,
            "gt_answer": question.answer_text,
            "image_path": _write_image(root, Path("Images") / name, question, size),
            **{f"option_{letter}": text for letter, text in zip(question.letters, question.options, strict=True)},
            "modality_type": question.modality,
        }
        for question in questions
    ]
    write_json(rows, root / QUESTION_FOLDER / f"{name}.json")


def _write_image(root: Path, folder: Path, question: Question, size: int) -> str:
    path = folder / f"{question.id}.png"
    (root / folder).mkdir(parents=True, exist_ok=True)
    render(scene_of(question), size).save(root / path)
    return path.as_posix()
