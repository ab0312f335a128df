"""From a recipe to a trained model: the Python function behind `kepo train`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import BitsAndBytesConfig, PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer, get_quantization_config

from kepo.data.arguments import DataArguments, load_questions, load_splits
from kepo.data.contents import contents_of
from kepo.data.dataset import option_as_reasoning, to_dataset, to_sft_dataset
from kepo.data.images import check_images
from kepo.errors import ConfigError, check_choice
from kepo.evaluation.contamination import questions_of_run
from kepo.evaluation.settings import EvaluationSettings
from kepo.files import write_text
from kepo.models.adapters import is_adapter
from kepo.recipes.arguments import TeacherArguments
from kepo.recipes.recipe import Recipe
from kepo.recipes.requirements import (
    check_device,
    check_model,
    check_packages,
    check_processes,
    check_reachable,
    readable_errors,
)
from kepo.rewards import get_rewards
from kepo.rewards.imported import reward_called
from kepo.runs.folder import claim, older_run_set_aside
from kepo.runs.trained_on import write_trained_on
from kepo.servers.endpoint import read_api_key
from kepo.teachers.base import Teacher
from kepo.teachers.local import LocalTeacher
from kepo.teachers.remote import RemoteTeacher
from kepo.trainer.config import KEPOConfig
from kepo.trainer.model_card import create_model_card, refresh_model_card
from kepo.trainer.probe import WHOLE, Probe, check_steps, check_trained, look_at_hint, look_at_supervised, say
from kepo.trainer.resuming import CheckpointWeights
from kepo.trainer.run_folder import RunRecord
from kepo.trainer.students import load_adapter, load_student_processor
from kepo.trainer.trainer import KEPOTrainer
from kepo.trainer.validation import Validation
from kepo.types import Question

logger = logging.getLogger(__name__)

RECIPE = "recipe.yaml"  # file of a run folder: what its recipes and its command line said, as one recipe


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    folder: Path  # with the trained model and its processor
    history: list[dict[str, Any]]  # every log of the run
    device: str  # where it computed, in words


class SupervisedTrainer(SFTTrainer):
    """TRL's `SFTTrainer` with the model card of this package."""

    def create_model_card(self, model_name: Any = None, dataset_name: Any = None, tags: Any = None) -> None:
        """As `KEPOTrainer.create_model_card`."""
        create_model_card(self, RunRecord(self), model_name, tags)


def train(recipe: Recipe, display: TrainerCallback | None = None) -> Result:
    """Run a recipe. All input is checked before anything is trained, and before an older run is touched.

    Args:
        recipe: As `load_recipe` gives it.
        display: A callback that shows the progress; None: transformers' own.
    """
    folder = Path(recipe.training.output_dir)
    _check_model(recipe.model.model_name_or_path)
    check_requirements(recipe)
    train_set, eval_set = _datasets(recipe)
    validation = load_validation(recipe)
    rewards = get_rewards(recipe.run.reward_funcs) if recipe.run.method == "kepo" else []
    state = PartialState()
    checkpoint = claim(folder, overwrite=recipe.run.overwrite, resume=recipe.training.resume_from_checkpoint)
    recipe.training.resume_from_checkpoint = checkpoint
    state.wait_for_everyone()  # all have looked at the folder before one of them changes it
    fresh = checkpoint is None and state.is_main_process
    with older_run_set_aside(folder) if fresh else nullcontext(), readable_errors("The run cannot start"):
        trainer = _build(recipe, train_set, eval_set, rewards)
        say(_probe(trainer, recipe), but=trainer.first_look if isinstance(trainer, KEPOTrainer) else None)
    record = _record(trainer)
    record.describe({"recipe": {"source": recipe.source}, **recipe.parts}, stated=dict(recipe.stated))
    if trainer.is_world_process_zero():
        write_text(recipe.as_yaml(), folder / RECIPE)
        if not isinstance(trainer, KEPOTrainer):  # whose rows are its questions
            asked = contents_of(questions_of_run(asdict(recipe.data)))
            write_trained_on(folder, asked, resumed=checkpoint is not None)
    trainer.accelerator.print(f"Training on {record.device}; everything is written to {folder}.")
    if checkpoint is not None and not isinstance(trainer, KEPOTrainer):  # which does so itself
        trainer.add_callback(CheckpointWeights(trainer, checkpoint))
    if validation is not None:
        trainer.add_callback(validation(trainer))
    if display is not None:
        for shown in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(shown)
        trainer.add_callback(display)
    with record.writing():
        trainer.train(resume_from_checkpoint=checkpoint)
        check_trained(trainer.state.global_step)
        trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        refresh_model_card(folder)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    return Result(folder, list(trainer.state.log_history), record.device)


def check(recipe: Recipe) -> Probe:
    """What `train` checks before the first step, and one hint of the teacher; nothing is trained or written.

    Raises:
        KepoError: What `train` would stop for.
    """
    _check_model(recipe.model.model_name_or_path)
    check_requirements(recipe)
    train_set, eval_set = _datasets(recipe)
    load_validation(recipe)
    rewards = get_rewards(recipe.run.reward_funcs) if recipe.run.method == "kepo" else []
    args = recipe.training
    args.report_to, args.push_to_hub = [], False
    if isinstance(args, KEPOConfig):
        args.use_vllm = False  # whose engine takes the GPU; nothing is sampled from the student here
    with TemporaryDirectory() as nowhere, readable_errors("The run cannot start"):
        args.output_dir = nowhere
        trainer = _build(recipe, train_set, eval_set, rewards)
        probe = _probe(trainer, recipe)
        if isinstance(trainer, KEPOTrainer) and trainer.teacher is not None and args.uses_hints:
            probe = replace(probe, hint=look_at_hint(trainer, trainer.teacher))
    return probe


def _probe(trainer: Any, recipe: Recipe) -> Probe:
    if isinstance(trainer, KEPOTrainer):
        return trainer.probe(WHOLE, recipe.data.prompt_style)
    return look_at_supervised(trainer, WHOLE)


def _record(trainer: Any) -> RunRecord:
    """Who writes the run folder: a `KEPOTrainer` by itself; TRL's trainers are given one that does."""
    if isinstance(trainer, KEPOTrainer):
        return trainer.run_record
    record = RunRecord(trainer)
    trainer.add_callback(record)
    return record


def _check_model(name: str | None) -> None:
    """A folder that is given as the student must be a model; a hub name is left to transformers."""
    if not name:
        raise ConfigError("model_name_or_path is missing: name the folder or the hub name of the student.")
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file() and not is_adapter(name):
        raise ConfigError(
            f"model_name_or_path {name!r} is a folder without config.json or adapter_config.json; it does not hold a "
            "model."
        )
    if not Path(name).exists() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise ConfigError(
            f"model_name_or_path {name!r} does not exist. Build it first (`kepo models --help`; `kepo benchmark "
            "models FOLDER` writes those of PhantomVQA), or give a hub name."
        )


def check_requirements(recipe: Recipe) -> None:
    """There are steps to make, and optional packages, devices and models that they need; else a ConfigError."""
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


def _datasets(recipe: Recipe) -> tuple[Dataset, Dataset | None]:
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
    return convert(train_questions), evaluation


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


def _build(recipe: Recipe, train_set: Dataset, eval_set: Dataset | None, rewards: list[Any]) -> Any:
    args, model = recipe.training, recipe.model
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),
    }
    shared: dict[str, Any] = {
        "model": model.model_name_or_path,
        "args": args,
        "train_dataset": train_set,
        "eval_dataset": eval_set if args.eval_strategy != "no" else None,
        "peft_config": recipe.peft_config(),
        "quantization_config": get_quantization_config(model),
    }
    if is_adapter(str(model.model_name_or_path)):
        shared |= _adapted(recipe)
    if isinstance(args, SFTConfig):
        return SupervisedTrainer(**shared)
    return KEPOTrainer(reward_funcs=rewards, teacher=_teacher(recipe.teacher, args), **shared)


def _adapted(recipe: Recipe) -> dict[str, Any]:
    """What TRL's trainer is given for a student that is an adapter: it goes on, or is merged and trained whole."""
    args, folder = recipe.training, str(recipe.model.model_name_or_path)
    options = {**(args.model_init_kwargs or {}), "quantization_config": get_quantization_config(recipe.model)}
    options = {name: value for name, value in options.items() if value is not None}
    trust = bool(args.trust_remote_code)
    go_on = recipe.peft_config() is not None
    further = "the adapter is trained further, with its own settings (lora_* are not used)"
    whole = "it is merged into its base model, and all weights are trained"
    logger.warning("The student %s is an adapter: %s.", folder, further if go_on else whole)
    args.model_init_kwargs = None
    return {
        "model": load_adapter(folder, options, go_on=go_on, trust_remote_code=trust),
        "processing_class": load_student_processor(folder, trust),
        "peft_config": None,
        "quantization_config": None,
    }


def _teacher(settings: TeacherArguments, args: KEPOConfig) -> Teacher | None:
    """The teacher, if this run needs one; an arm without teacher never loads it."""
    if not (args.uses_teacher_scores or args.uses_hints):
        return None
    if settings.teacher_model_name_or_path is None:
        if not args.uses_teacher_scores and args.hint_bank is not None:
            return None
        raise ConfigError(
            "This arm needs a teacher (distillation loss or hints). Set teacher_model_name_or_path, or switch both "
            "off: distillation_weight: 0 and exploration: none (or resample). Hints alone can come from a hint_bank."
        )
    return load_teacher(settings, args.chat_template_kwargs, args.trust_remote_code)


def load_teacher(
    settings: TeacherArguments, chat_template_kwargs: Mapping[str, Any] | None = None, trust_remote_code: bool = False
) -> Teacher:
    """The teacher that `settings` name, on a server or loaded here.

    Args:
        settings: With a name in `teacher_model_name_or_path`.
        chat_template_kwargs: Variables of the chat template, as the student's.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ConfigError: Settings that cannot work together.
    """
    name = settings.teacher_model_name_or_path
    assert name is not None
    shared: dict[str, Any] = {
        "hint_max_new_tokens": settings.hint_max_new_tokens,
        "hint_temperature": settings.hint_temperature,
        "chat_template_kwargs": chat_template_kwargs,
    }
    if not settings.teacher_url:
        check_choice("teacher_dtype", settings.teacher_dtype, ("auto", "float32", "bfloat16", "float16"))
        check_device("teacher_device", settings.teacher_device)
        check_packages({"teacher_load_in_4bit": settings.teacher_load_in_4bit})
        check_reachable("teacher_model_name_or_path", name)
        four_bit = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16}
        return LocalTeacher(
            name,
            device=settings.teacher_device,
            dtype=settings.teacher_dtype,
            quantization_config=BitsAndBytesConfig(**four_bit) if settings.teacher_load_in_4bit else None,
            batch_size=settings.teacher_batch_size,
            trust_remote_code=trust_remote_code,
            **shared,
        )
    for field in ("teacher_device", "teacher_load_in_4bit"):
        if getattr(settings, field):
            raise ConfigError(
                f"{field} says how a teacher is loaded here, but teacher_url names a server that has it loaded. Leave "
                "out one of the two."
            )
    return RemoteTeacher(
        settings.teacher_url,
        name,
        top_k=settings.teacher_top_k,
        api_key=read_api_key(settings.teacher_api_key_env, settings.teacher_api_key_file),
        concurrency=settings.teacher_concurrency,
        timeout=settings.teacher_timeout,
        attempts=settings.teacher_attempts,
        on_failure=settings.teacher_on_failure,
        **shared,
    )
