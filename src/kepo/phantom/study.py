"""What the studies of PhantomVQA run on: questions and base models, written once and then only read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kepo.data.omnimedvqa import MODALITIES
from kepo.errors import ConfigError
from kepo.files import write_json
from kepo.phantom.build import SHIPPED, build_models, copy_models
from kepo.phantom.files import write_questions
from kepo.phantom.questions import phantom_questions
from kepo.types import Question

TRAINED_ON = "MRI"
DATA = "data"
MODELS = "models"
_NOTE = "data.json"


@dataclass(frozen=True, slots=True)
class Questions:
    """How many questions there are, and their seed; no two of them share a scene."""

    train: int = 600  # of the modality trained on
    validation: int = 140  # of the modality trained on
    watched: int = 14  # validation questions of each other modality; they decide nothing
    test: int = 105  # of the modality trained on
    test_others: int = 105  # of each other modality
    data_seed: int = 2026

    def draw(self) -> dict[str, list[Question]]:
        """Training, validation and test questions by the name of their file."""
        others = [modality for modality in MODALITIES if modality != TRAINED_ON]

        def drawn(number: int, offset: int, modalities: Sequence[str] = (TRAINED_ON,)) -> list[Question]:
            return phantom_questions(number * len(modalities), self.data_seed + offset, modalities=modalities)

        return {
            "train": drawn(self.train, 0),
            "validation": [*drawn(self.validation, 1), *drawn(self.watched, 2, others)],
            "test": [*drawn(self.test, 3), *drawn(self.test_others, 4, others)],
        }

    def write(self, study: Path) -> None:
        """Write `data/{train,validation,test}.jsonl` with their images, unless they are there."""
        note = study / DATA / _NOTE
        if note.is_file():
            found = json.loads(note.read_text(encoding="utf-8"))
            if found != asdict(self):
                raise ConfigError(f"{study} holds a study with other questions ({found}); choose another folder.")
            return
        for name, questions in self.draw().items():
            write_questions(study / DATA / f"{name}.jsonl", questions)
        write_json(asdict(self), note)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a shipped study runs on."""

    study: str
    questions: Questions
    models: Sequence[str]

    def write(self, study: Path, tell: Callable[[str], None]) -> None:
        """Write the questions and base models into `study`, unless they are there; ConfigError for another study."""
        tell("Drawing the questions")
        self.questions.write(study)
        tell("Copying the base models")
        copy_models(study / MODELS, [name for name in self.models if name in SHIPPED])
        others = [name for name in self.models if name not in SHIPPED]
        if others:  # building imports torch, which the demo's own process does without
            build_models(study / MODELS, others, tell=lambda text: tell(f"Building base models: {text}"))


DEMO = Needs("studies/phantom-demo", Questions(test=210), ("student-1", "student-2", "teacher-reliable"))
FULL = Needs("studies/phantom", Questions(test=315), (*SHIPPED, "teacher-wrong-rules", "teacher-lost-after-errors"))
