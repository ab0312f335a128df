"""A small folder in OmniMedVQA's layout, for tests; each image has its own noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TASKS = ("Disease Diagnosis", "Modality Recognition")


def picture(path: Path, seed: int, side: int = 24) -> Path:
    """Writes the picture that `seed` stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def row(
    number: int, modality: str = "MR (Mag-netic Resonance Imaging)", dataset: str = "Scans", **changes: Any
) -> dict:
    """One row as it is published."""
    return {
        "dataset": dataset,
        "question_id": f"{dataset}_{number:04d}",
        "question_type": TASKS[number % 2],
        "question": "What is seen?",
        "gt_answer": ("cyst", "Tumour.", "stone", "nothing")[number % 4],
        "image_path": f"Images/{dataset}/{number}.png",
        "option_A": "Cyst",
        "option_B": "Tumour",
        "option_C": "Stone",
        "option_D": "Nothing",
        "modality_type": modality,
        **changes,
    }


def write_rows(root: Path, rows: list[Any], name: str = "Scans") -> Path:
    """Writes the rows of one file; returns it."""
    file = root / "QA_information" / "Open-access" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))
    return file


def whole_folder(root: Path, count: int = 40) -> Path:
    """`count` usable questions about as many images, of two modalities."""
    rows = [row(number) for number in range(count // 2)]
    more = [row(number, "ultrasound", "Sono") for number in range(count // 2, count)]
    write_rows(root, rows)
    write_rows(root, more, "Sono")
    for number, one in enumerate([*rows, *more]):
        picture(root / one["image_path"], number)
    return root
