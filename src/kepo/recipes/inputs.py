"""What a recipe reads, checked before a model is loaded: data, reward functions, and what the machine must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import TrainerCallback

from kepo.data.arguments import DataArguments, load_questions, load_splits
from kepo.data.dataset import option_as_reasoning, to_dataset, to_sft_dataset
from kepo.data.images import check_images
from kepo.errors import ConfigError
from kepo.evaluation.settings import EvaluationSettings
from kepo.models.adapters import is_adapter, looks_like_path
from kepo.recipes.recipe import Recipe
from kepo.recipes.requirements import check_device, check_model, check_packages, check_processes
from kepo.rewards import get_rewards
from kepo.rewards.imported import reward_called
from kepo.trainer.config import KEPOConfig
from kepo.trainer.probe import check_steps
from kepo.trainer.validation import Validation
from kepo.types import Question


@dataclass(frozen=True)
class Inputs:
    """What the trainer of a recipe is built from."""

    questions: list[Question]  # to train on
    train: Dataset  # the same, as the trainer reads it
    evaluation: Dataset | None
    validation: Callable[[Any], TrainerCallback] | None  # makes the callback of a trainer
    rewards: list[Any]  # none in supervised training


def read_inputs(recipe: Recipe) -> Inputs:
    """Check what a recipe needs, and read its data.

    Raises:
        ConfigError: A model, package or device that is not there, or settings that cannot work together.
        DataError: Data that cannot be trained on.
    """
    _check_requirements(recipe)
    questions, train, evaluation = load_datasets(recipe)
    validation = load_validation(recipe)
    rewards = get_rewards(recipe.run.reward_funcs) if recipe.run.method == "kepo" else []
    return Inputs(questions, train, evaluation, validation, rewards)


def _check_requirements(recipe: Recipe) -> None:
    """The student, optional packages, devices and models that the recipe needs are there; else a ConfigError."""
    _check_student(recipe.model.model_name_or_path)
    check_steps(recipe.training.max_steps, recipe.training.num_train_epochs)
    model, teacher, training = recipe.model, recipe.teacher, recipe.training
    taught = isinstance(training, KEPOConfig) and (training.uses_teacher_scores or training.uses_hints)
    loaded = taught and not teacher.teacher_url and teacher.teacher_model_name_or_path
    check_packages(
        {name: value for part in recipe.parts.values() for name, value in vars(part).items()}
        | ({} if loaded else {"teacher_load_in_4bit": False})
        | ({} if recipe.run.method == "kepo" else {"reward_funcs": []})
    )
    check_processes()
    name, code = str(model.model_name_or_path), training.trust_remote_code
    check_model("model_name_or_path", name, model.model_revision, code)
    if loaded:
        check_device("teacher_device", teacher.teacher_device)
        if loaded != name:
            check_model("teacher_model_name_or_path", loaded, None, code)


def _check_student(name: str | None) -> None:
    """A folder that is given as the student must be a model; a hub name is left to transformers."""
    if not name:
        raise ConfigError("model_name_or_path is missing: name the folder or the hub name of the student.")
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file() and not is_adapter(name):
        raise ConfigError(
            f"model_name_or_path {name!r} is a folder without config.json or adapter_config.json; it does not hold a "
            "model."
        )
    if not Path(name).exists() and looks_like_path(name):
        raise ConfigError(
            f"model_name_or_path {name!r} does not exist. Build it first (`kepo models --help`; `kepo benchmark "
            "models FOLDER` writes those of PhantomVQA), or give a hub name."
        )


def load_datasets(recipe: Recipe) -> tuple[list[Question], Dataset, Dataset | None]:
    """The questions to train on, and the data sets of training and evaluation as the recipe's trainer reads them."""
    data: DataArguments = recipe.data
    train_questions, eval_questions = load_splits(data)

    def convert(questions: list[Question]) -> Dataset:
        if recipe.run.method != "sft":
            return to_dataset(questions, data.prompt_style, image_size=data.image_size)
        if data.sft_think == "option":
            questions = [option_as_reasoning(question) for question in questions]
        return to_sft_dataset(questions, data.prompt_style, image_size=data.image_size)

    evaluation = convert(eval_questions) if eval_questions else None
    if recipe.training.eval_strategy != "no" and evaluation is None:
        raise ConfigError(
            f"eval_strategy is {str(recipe.training.eval_strategy)!r} but num_eval is 0. Set num_eval, or set "
            "eval_strategy to 'no'."
        )
    return train_questions, convert(train_questions), evaluation


def load_validation(recipe: Recipe) -> Callable[[Any], TrainerCallback] | None:
    """What makes the callback once the trainer is built; None where the recipe names no validation questions."""
    run, training, data = recipe.run, recipe.training, recipe.data
    if run.validation_path is None:
        return None
    if not data.modality:
        raise ConfigError("validation_path: set modality too; the best weights are those that are best in it.")
    if PartialState().num_processes > 1:
        raise ConfigError("validation_path keeps the best weights in one process; train with one, or leave it out.")
    if training.save_strategy != "no":
        raise ConfigError(
            f"validation_path: set save_strategy to 'no', it is {str(training.save_strategy)!r}. The best weights are "
            "kept in memory, so a run that goes on from a checkpoint would have lost them."
        )
    questions = load_questions(DataArguments(data_path=run.validation_path))
    check_images(questions)
    settings = EvaluationSettings(
        prompt_style=data.prompt_style,
        image_size=data.image_size,
        max_new_tokens=run.validation_max_new_tokens or getattr(training, "max_completion_length", None) or 1024,
        reward=reward_called(getattr(training, "correctness_reward", None) or run.reward_funcs[0], run.reward_funcs),
    )
    modality, every = data.modality, run.validate_every
    return lambda trainer: Validation(trainer, questions, modality, every, settings)
