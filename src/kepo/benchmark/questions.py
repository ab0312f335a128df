"""The questions of a study, written once and then only read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from kepo.benchmark.arms import TRAINED_ON
from kepo.benchmark.plan import DATA, StudySettings
from kepo.data.omnimedvqa import MODALITIES
from kepo.errors import ConfigError
from kepo.phantom.files import write_questions
from kepo.phantom.questions import phantom_questions
from kepo.types import Question

_NOTE = "data.json"
_QUESTIONS = ("train", "validation", "watched", "test", "test_others", "data_seed")
"""The settings that decide the questions."""


def study_questions(settings: StudySettings) -> dict[str, list[Question]]:
    """Training, validation and test questions by the name of their file; no two of them share a scene.

    Training questions are of one modality. Validation questions of the others are watched, and decide nothing.
    """
    others = [modality for modality in MODALITIES if modality != TRAINED_ON]
    seed = settings.data_seed

    def inside(number: int, offset: int) -> list[Question]:
        return phantom_questions(number, seed + offset, modalities=[TRAINED_ON])

    def outside(number: int, offset: int) -> list[Question]:
        return phantom_questions(number * len(others), seed + offset, modalities=others)

    return {
        "train": inside(settings.train, 0),
        "validation": [*inside(settings.validation, 1), *outside(settings.watched, 2)],
        "test": [*inside(settings.test, 3), *outside(settings.test_others, 4)],
    }


def write_study_questions(study: Path, settings: StudySettings) -> None:
    """Write `data/{train,validation,test}.jsonl` with their images, unless they are there.

    Raises:
        ConfigError: other questions are there.
    """
    numbers = asdict(settings)
    wanted = {name: numbers[name] for name in _QUESTIONS}
    note = study / DATA / _NOTE
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if found != wanted:
            raise ConfigError(f"{study} holds a study with other questions ({found}); choose another folder.")
        return
    for name, questions in study_questions(settings).items():
        write_questions(study / DATA / f"{name}.jsonl", questions)
    note.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
