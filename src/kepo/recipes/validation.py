"""Validation while a model trains, as a recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from kepo.data.arguments import DataArguments, load_questions
from kepo.data.images import check_images
from kepo.errors import ConfigError
from kepo.evaluation.settings import EvaluationSettings
from kepo.recipes.recipe import Recipe
from kepo.trainer.validation import Validation


def load_validation(recipe: Recipe) -> Callable[[Any], TrainerCallback] | None:
    """What makes the callback once the trainer is built; None where the recipe names no validation questions.

    Raises:
        ConfigError: Settings that it cannot work with.
        DataError: The questions cannot be used.
    """
    run, training = recipe.run, recipe.training
    if run.validation_path is None:
        return None
    if not recipe.data.modality:
        raise ConfigError("validation_path: set modality too; the best weights are those that are best in it.")
    if PartialState().num_processes > 1:
        raise ConfigError("validation_path keeps the best weights in one process; train with one, or leave it out.")
    if training.save_strategy != "no":
        raise ConfigError(
            f"validation_path: set save_strategy to 'no', it is {str(training.save_strategy)!r}. The best weights are "
            "kept in memory, so a run that goes on from a checkpoint would have lost them."
        )
    data = recipe.data
    questions = load_questions(DataArguments(data_path=run.validation_path))
    check_images(questions)
    settings = EvaluationSettings(
        prompt_style=data.prompt_style,
        image_size=data.image_size,
        max_new_tokens=run.validation_max_new_tokens or getattr(training, "max_completion_length", None) or 1024,
        reward=getattr(training, "correctness_reward", None) or run.reward_funcs[0],
    )
    modality, every = recipe.data.modality, run.validate_every
    return lambda trainer: Validation(trainer, questions, modality, every, settings)
