"""Validation while a model trains, and the choice of the weights that were best on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from kepo.errors import ConfigError
from kepo.evaluation.generate import TransformersBackend
from kepo.evaluation.run import ask
from kepo.evaluation.settings import EvaluationSettings
from kepo.runs import append_metrics
from kepo.trainer.phases import EVALUATION, phase_of
from kepo.types import Question


class Validation(TrainerCallback):
    """Asks validation questions greedily every few steps; the run ends with the weights that were best in domain.

    Adds `validation/in_domain` and `validation/out_of_domain` (accuracies, 0..1) to the run's metrics, and at the end
    `validation/best_step`. Of weights that are equally good in domain the earliest are taken. Out-of-domain questions
    are looked at but never decide.

    Args:
        trainer: Any of TRL's trainers; one process, weights not sharded.
        questions: Validation questions with their images.
        in_domain: The modality trained on.
        every: Optimizer steps between two validations, >= 1.
        settings: How questions are asked.

    Raises:
        ConfigError: No question is of the modality trained on, or `every` is below 1.
    """

    def __init__(
        self, trainer: Any, questions: Sequence[Question], in_domain: str, every: int, settings: EvaluationSettings
    ) -> None:
        if every < 1:
            raise ConfigError(f"validate_every is {every}; it must be at least 1.")
        if all(question.modality != in_domain for question in questions):
            raise ConfigError(f"there is no validation question about {in_domain}, so no checkpoint could be chosen.")
        self._trainer, self._folder = trainer, Path(trainer.args.output_dir)
        self._backend = TransformersBackend(trainer.model, trainer.processing_class, batch_size=256)
        self._model = trainer.model
        self._questions, self._in_domain, self._every, self._settings = list(questions), in_domain, every, settings
        self._best: tuple[float, int] | None = None
        self._weights: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._validate(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._validate(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._best is not None:
            self._model.load_state_dict(self._weights)
            append_metrics(self._folder, state.global_step, {"validation/best_step": self._best[1]})

    def _validate(self, step: int) -> None:
        with phase_of(self._trainer, EVALUATION):
            table = ask(self._questions, self._backend, self._settings)
        correct = np.array(table["correct"].to_pylist())
        inside = np.array([modality == self._in_domain for modality in table["modality"].to_pylist()])
        accuracy = float(correct[inside].mean())
        found = {"validation/in_domain": accuracy}
        if not inside.all():
            found["validation/out_of_domain"] = float(correct[~inside].mean())
        append_metrics(self._folder, step, found)
        if self._best is None or accuracy > self._best[0]:
            self._best = (accuracy, step)
            self._weights = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
