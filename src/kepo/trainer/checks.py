"""What `KEPOTrainer` is given: settings, rewards, teacher and data that fit together.

All of them raise `ConfigError`, `check_dataset` a `DataError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kepo.errors import ConfigError, DataError
from kepo.teachers.base import Teacher
from kepo.trainer.config import TOTAL_REWARD, KEPOConfig


def correctness_index(args: KEPOConfig, names: Sequence[str], functions: Sequence[Any]) -> int:
    """Index of the reward function that says what is correct."""
    if args.correctness_reward is None:
        index = 0
    elif args.correctness_reward in names:
        index = list(names).index(args.correctness_reward)
    else:
        raise ConfigError(
            f"correctness_reward is {args.correctness_reward!r}, but the reward functions are "
            f"{', '.join(names) or 'none'}. Use one of these names."
        )
    needed = args.exploration != "none"
    if needed and not functions:
        raise ConfigError("Exploration needs a reward function that says what is correct; pass reward_funcs.")
    if needed and (isinstance(functions[index], (str, torch.nn.Module))):
        raise ConfigError(
            f"correctness_reward is the reward model {names[index]!r}. Exploration verifies answers, so it needs a "
            "reward FUNCTION: set correctness_reward to one, or exploration to 'none'."
        )
    return index


def check_gate_reward(args: KEPOConfig, names: Sequence[str]) -> None:
    """The gate looks at a reward that is there; `names` are those of the reward functions."""
    if args.gate_reward not in (None, TOTAL_REWARD, *names):
        raise ConfigError(
            f"gate_reward is {args.gate_reward!r}, but the reward functions are {', '.join(names) or 'none'}. Use one "
            f"of these names, or '{TOTAL_REWARD}' for their weighted sum."
        )
    if args.uses_teacher_scores and args.gate != "always" and not names:
        raise ConfigError(
            f"gate {args.gate!r} looks at rewards, but there are none. Pass reward_funcs, or gate='always'."
        )


def check_teacher(args: KEPOConfig, teacher: Teacher | None) -> None:
    """There is a teacher, or nothing needs one."""
    if teacher is not None:
        return
    if args.uses_teacher_scores:
        raise ConfigError("distillation_weight is above 0 but there is no teacher. Pass teacher=, or set it to 0.")
    if args.uses_hints and args.hint_bank is None:
        raise ConfigError(
            "exploration is 'hint' but there is no teacher to write hints. Pass teacher=, or a hint_bank that has "
            "them, or set exploration to 'resample' or 'none'."
        )


def check_dataset(dataset: Any) -> None:
    """The data set has rows."""
    if dataset is not None and hasattr(dataset, "__len__") and len(dataset) == 0:
        raise DataError("train_dataset has no rows. Check the path and the filters (modality, task, num_train).")


def check_generation(args: KEPOConfig, grpo: Mapping[str, Any]) -> None:
    """Exploration is not combined with TRL's own ways of making rollouts; `grpo` is what `GRPOTrainer` is given."""
    used = [name for name in ("tools", "rollout_func", "environment_factory") if grpo.get(name)]
    if used and args.exploration != "none":
        raise ConfigError(
            f"exploration replaces whole rollouts, which does not work with {', '.join(used)}. "
            "Set exploration to 'none', or leave them out."
        )


def check_chat_template(processing_class: Any, dataset: Any) -> None:
    """Conversations have a chat template to be written with."""
    conversational = dataset is not None and not isinstance(next(iter(dataset))["prompt"], str)
    if conversational and getattr(processing_class, "chat_template", None) is None:
        raise ConfigError(
            f"The processor of {getattr(processing_class, 'name_or_path', 'the model')!r} has no chat template, but "
            "the data set's prompts are conversations. Use an instruction-tuned model, set processor.chat_template, "
            "or give prompts as plain text."
        )
