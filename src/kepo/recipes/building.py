"""The trainer and the teacher of a recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from transformers import BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer, get_quantization_config

from kepo.errors import ConfigError, check_choice
from kepo.models.adapters import is_adapter
from kepo.recipes.arguments import TeacherArguments
from kepo.recipes.inputs import Inputs
from kepo.recipes.recipe import Recipe
from kepo.recipes.requirements import check_device, check_packages, check_reachable
from kepo.servers.endpoint import read_api_key
from kepo.teachers.base import Teacher
from kepo.teachers.local import LocalTeacher
from kepo.teachers.remote import RemoteTeacher
from kepo.trainer.config import KEPOConfig
from kepo.trainer.model_card import create_model_card
from kepo.trainer.phases import WithPhases
from kepo.trainer.run_folder import RunRecord
from kepo.trainer.students import load_adapter, load_student_processor
from kepo.trainer.trainer import KEPOTrainer

logger = logging.getLogger(__name__)


class SupervisedTrainer(WithPhases, SFTTrainer):
    """TRL's `SFTTrainer` with the model card of this package, and a clock."""

    def create_model_card(self, model_name: Any = None, dataset_name: Any = None, tags: Any = None) -> None:
        """As `KEPOTrainer.create_model_card`."""
        create_model_card(self, RunRecord(self), model_name, tags)


def build_trainer(recipe: Recipe, inputs: Inputs) -> Any:
    """The trainer of a recipe: a `KEPOTrainer`, or for supervised training a `SupervisedTrainer`."""
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
        "train_dataset": inputs.train,
        "eval_dataset": inputs.evaluation if args.eval_strategy != "no" else None,
        "peft_config": recipe.peft_config(),
        "quantization_config": get_quantization_config(model),
    }
    if is_adapter(str(model.model_name_or_path)):
        shared |= _of_adapter(recipe)
    if isinstance(args, SFTConfig):
        return SupervisedTrainer(**shared)
    return KEPOTrainer(reward_funcs=inputs.rewards, teacher=teacher_of(recipe.teacher, args), **shared)


def _of_adapter(recipe: Recipe) -> dict[str, Any]:
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


def teacher_of(settings: TeacherArguments, args: KEPOConfig) -> Teacher | None:
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
    share = args.share_prompt is not False
    return load_teacher(settings, args.chat_template_kwargs, args.trust_remote_code, share_prompt=share)


def load_teacher(
    settings: TeacherArguments,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    *,
    share_prompt: bool = True,
) -> Teacher:
    """The teacher that `settings` name, on a server or loaded here.

    Args:
        settings: With a name in `teacher_model_name_or_path`.
        chat_template_kwargs: Variables of the chat template, as the student's.
        trust_remote_code: Run code that comes with the model.
        share_prompt: Of a teacher that is loaded here: compute a prompt once for the rows that share it.

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
    if settings.teacher_url:
        return _served(settings.teacher_url, name, settings, shared)
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
        share_prompt=share_prompt,
        trust_remote_code=trust_remote_code,
        **shared,
    )


def _served(urls: list[str], name: str, settings: TeacherArguments, shared: Mapping[str, Any]) -> RemoteTeacher:
    for field in ("teacher_device", "teacher_load_in_4bit"):
        if getattr(settings, field):
            raise ConfigError(
                f"{field} says how a teacher is loaded here, but teacher_url names a server that has it loaded. Leave "
                "out one of the two."
            )
    return RemoteTeacher(
        urls,
        name,
        top_k=settings.teacher_top_k,
        api_key=read_api_key(settings.teacher_api_key_env, settings.teacher_api_key_file),
        concurrency=settings.teacher_concurrency,
        timeout=settings.teacher_timeout,
        attempts=settings.teacher_attempts,
        on_failure=settings.teacher_on_failure,
        **shared,
    )
