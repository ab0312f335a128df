"""Validation while training: what is logged, and which weights the run ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch

from kepo.errors import ConfigError
from kepo.evaluation.settings import EvaluationSettings
from kepo.phantom.questions import phantom_questions
from kepo.runs import read_metrics
from kepo.trainer import validation
from kepo.trainer.validation import Validation
from kepo.types import Question

QUESTIONS = [
    *phantom_questions(4, 1, modalities=["MRI"]),
    *phantom_questions(2, 2, modalities=["CT"]),
]
SETTINGS = EvaluationSettings(max_new_tokens=4)


class Run:
    """A run whose weight is the number of steps, and whose accuracies are written down beforehand."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, inside: Sequence[int], **arguments: Any) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.folder, self.asked = folder, 0
        self._inside = list(inside)
        monkeypatch.setattr(validation, "TransformersBackend", lambda *_, **__: None)
        monkeypatch.setattr(validation, "ask", self._ask)
        args = SimpleNamespace(output_dir=str(folder))
        trainer = SimpleNamespace(args=args, model=self.model, processing_class=None)
        fields = {"questions": QUESTIONS, "in_domain": "MRI", "every": 2, "settings": SETTINGS, **arguments}
        self.callback = Validation(trainer, **fields)

    def _ask(self, questions: Sequence[Question], backend: Any, settings: EvaluationSettings) -> pa.Table:
        right = self._inside[self.asked]
        self.asked += 1
        modalities = [question.modality for question in questions]
        correct = [number < right if name == "MRI" else self.asked % 2 == 0 for number, name in enumerate(modalities)]
        return pa.table({"modality": modalities, "correct": correct})

    def train(self, steps: int) -> float:
        """The weight that the run ends with."""
        state = SimpleNamespace(global_step=0, max_steps=steps)
        self._set(0)
        self.callback.on_train_begin(None, state, None)
        for step in range(1, steps + 1):
            state.global_step = step
            self._set(step)
            self.callback.on_step_end(None, state, None)
        self.callback.on_train_end(None, state, None)
        return self.model.weight.item()

    def _set(self, value: float) -> None:
        with torch.no_grad():
            self.model.weight.fill_(value)


def test_the_run_ends_with_the_weights_that_were_best_in_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, monkeypatch, inside=[1, 2, 4, 3])  # before training, then after 2, 4 and 6 steps
    assert run.train(6) == 4.0
    assert read_metrics(tmp_path)[-1] == {"step": 6, "validation/best_step": 4}


def test_of_equally_good_checkpoints_the_earliest_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Run(tmp_path, monkeypatch, inside=[1, 3, 3, 3]).train(6) == 2.0


def test_training_that_only_harms_ends_with_the_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Run(tmp_path, monkeypatch, inside=[4, 3, 2, 1]).train(6) == 0.0


def test_accuracies_in_and_out_of_domain_are_logged_and_only_the_former_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, monkeypatch, inside=[2, 1])  # out of domain it is 0 before and 1 after
    assert run.train(2) == 0.0
    assert read_metrics(tmp_path)[:2] == [
        {"step": 0, "validation/in_domain": 0.5, "validation/out_of_domain": 0.0},
        {"step": 2, "validation/in_domain": 0.25, "validation/out_of_domain": 1.0},
    ]


def test_the_last_step_is_validated_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, monkeypatch, inside=[0, 1, 2, 3])
    assert run.train(5) == 5.0
    assert run.asked == 4  # 0, 2, 4 and 5


def test_without_other_modalities_only_the_domain_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(tmp_path, monkeypatch, inside=[1, 1], questions=QUESTIONS[:4]).train(2)
    assert read_metrics(tmp_path)[0] == {"step": 0, "validation/in_domain": 0.25}


def test_questions_without_one_of_the_domain_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = [replace(question, modality="OCT") for question in QUESTIONS]
    with pytest.raises(ConfigError, match="no validation question about MRI"):
        Run(tmp_path, monkeypatch, inside=[], questions=outside)


def test_validation_at_no_interval_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="validate_every is 0"):
        Run(tmp_path, monkeypatch, inside=[], every=0)
