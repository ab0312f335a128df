"""What `KEPOTrainer` is given: settings, rewards, teacher and data that fit together; each check raises `ConfigError`.

`check_dataset` raises a `DataError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kepo.errors import ConfigError, DataError
from kepo.teachers.base import Teacher
from kepo.trainer.config import TOTAL_REWARD, KEPOConfig
from kepo.trainer.probe.data import check_input, check_rewarded, is_sized, owns_rollouts
from kepo.types import Prompt


def check_given(
    args: KEPOConfig,
    teacher: Teacher | None,
    functions: Sequence[Any],
    names: Sequence[str],
    dataset: Any,
    evaluation: Any,
    own: Mapping[str, Any],
) -> None:
    """All checks of what a trainer is given that need no model.

    Args:
        args: Of the run.
        teacher: Of the run.
        functions: Reward functions, without those of an environment.
        names: Their names, each once.
        dataset: `train_dataset`.
        evaluation: `eval_dataset`.
        own: `rollout_func` and `environment_factory`.
    """
    if not own.get("environment_factory"):  # which may add rewards, known when TRL has made one
        reward_indices(args, names, functions)
    check_teacher(args, teacher)
    check_dataset(args, dataset)
    check_input(args, functions, names, dataset, own)
    check_evaluation(functions, names, evaluation, own)
    check_generation(args, own)


def reward_indices(args: KEPOConfig, names: Sequence[str], functions: Sequence[Any]) -> tuple[int, int | None]:
    """Index of the correctness reward, and of the gate's; None: the gate looks at the weighted sum.

    `names` are those of the reward functions `functions`; each is there once.
    """
    known = f"the reward functions are {', '.join(names) or 'none'}. Use one of "
    if args.correctness_reward not in (None, *names):
        raise ConfigError(f"correctness_reward is {args.correctness_reward!r}, but {known}these names.")
    correctness = 0 if args.correctness_reward is None else list(names).index(args.correctness_reward)
    if args.exploration != "none" and not functions:
        raise ConfigError("Exploration needs a reward function that says what is correct; pass reward_funcs.")
    if args.exploration != "none" and isinstance(functions[correctness], (str, torch.nn.Module)):
        raise ConfigError(
            f"correctness_reward is the reward model {names[correctness]!r}. Exploration verifies answers, so it needs "
            "a reward FUNCTION: set correctness_reward to one, or exploration to 'none'."
        )
    if args.gate_reward not in (None, TOTAL_REWARD, *names):
        raise ConfigError(
            f"gate_reward is {args.gate_reward!r}, but {known}these names, or '{TOTAL_REWARD}' for their weighted sum."
        )
    if args.uses_teacher_scores and args.gate != "always" and not names:
        raise ConfigError(
            f"gate {args.gate!r} looks at rewards, but there are none. Pass reward_funcs, or gate='always'."
        )
    if args.gate_reward == TOTAL_REWARD or not names:
        return correctness, None
    return correctness, correctness if args.gate_reward is None else list(names).index(args.gate_reward)


def check_teacher(args: KEPOConfig, teacher: Teacher | None) -> None:
    """There is a teacher, or nothing needs one."""
    if args.uses_teacher_scores and teacher is None:
        raise ConfigError(
            "distillation_weight is above 0 but there is no teacher. Pass teacher=, or set it to 0; KEPOConfig(..., "
            "distillation_weight=0, exploration='none') is TRL's GRPO."
        )
    if args.uses_hints and teacher is None and args.hint_bank is None:
        raise ConfigError(
            "exploration is 'hint' but there is no teacher to write hints. Pass teacher=, or a hint_bank that has "
            "them, or set exploration to 'resample' or 'none'."
        )


def check_dataset(args: KEPOConfig, dataset: Any) -> None:
    """The data set has rows, and reference completions where some are needed."""
    if is_sized(dataset) and len(dataset) == 0:
        raise DataError("train_dataset has no rows. Check the path and the filters (modality, task, num_train).")
    if args.lmbda < 1.0 and "reference" not in (getattr(dataset, "column_names", None) or ()):
        raise DataError(
            f"lmbda is {args.lmbda:g}, so some groups are learned from the data's own completions, but the data "
            "set has no column 'reference'. Build it with kepo.data.to_dataset from questions that have a 'reasoning' "
            "in their metadata, or set lmbda to 1."
        )


def check_evaluation(functions: Sequence[Any], names: Sequence[str], given: Any, grpo: Mapping[str, Any]) -> None:
    """The data sets of evaluation have rows that the reward functions can reward; streamed ones are not looked at.

    Args:
        functions: Reward functions.
        names: Their names.
        given: `eval_dataset`: a data set, several by name, or None.
        grpo: What else `GRPOTrainer` is given.
    """
    named = {f"eval_dataset {name!r}": one for name, one in given.items()} if isinstance(given, Mapping) else None
    for called, dataset in (named or {"eval_dataset": given}).items():
        if not is_sized(dataset):
            continue
        if len(dataset) == 0:
            raise DataError(f"{called} has no rows. Check how it was split and filtered, or leave it out.")
        if not owns_rollouts(grpo):
            check_rewarded(functions, names, dataset, called)


def check_generation(args: KEPOConfig, grpo: Mapping[str, Any]) -> None:
    """What replaces a rollout leaves nothing of it behind; `grpo` is what `GRPOTrainer` is given."""
    if args.exploration != "none" and grpo.get("rollout_func"):
        raise ConfigError(
            "exploration samples again under other prompts, which a rollout_func does not have to allow: it may expect "
            "whole groups, or keep state of its own. Set exploration to 'none', or use tools."
        )
    replaces = f"lmbda is {args.lmbda:g}" if args.lmbda < 1 else f"exploration is {args.exploration!r}"
    if (args.exploration != "none" or args.lmbda < 1) and grpo.get("environment_factory"):
        raise ConfigError(
            f"{replaces}, so some rollouts are replaced, but the environment of such a rollout would keep the state "
            "that the rollout left, and rewards would be read from it. Set exploration to 'none' and lmbda to 1, or "
            "pass functions without state as tools."
        )


def first_prompt(dataset: Any, grpo: Mapping[str, Any]) -> Prompt | None:
    """The prompt of the first row as the policy reads it; None where only the first batch of rollouts has it.

    A row of a stream may come only once, and an environment changes prompts or makes them.
    """
    if not is_sized(dataset) or owns_rollouts(grpo) or "prompt" not in dataset.column_names:
        return None
    prompt: Prompt = dataset[0]["prompt"]
    return prompt


def check_chat_template(processing_class: Any, prompt: Prompt) -> None:
    """Conversations have a chat template to be written with."""
    if not isinstance(prompt, str) and getattr(processing_class, "chat_template", None) is None:
        raise ConfigError(
            f"The processor of {getattr(processing_class, 'name_or_path', 'the model')!r} has no chat template, but "
            "the data set's prompts are conversations. Use an instruction-tuned model, set processor.chat_template, "
            "or give prompts as plain text."
        )
