"""What a data set must have before a model is loaded: enough rows, the columns of the rewards, answers that are text.

All of it is read from columns; a data set that is streamed is not looked at, because its rows may come only once.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from kepo.errors import DataError
from kepo.rewards import check_math_answers, choice_accuracy, math_accuracy
from kepo.rewards.functions import REWARDS
from kepo.rewards.languages import note_unread_languages
from kepo.trainer.config import KEPOConfig
from kepo.trainer.probe.records import row_name
from kepo.types import option_letters

# What TRL and this package hand to a reward function beside the columns of the data set.
_GIVEN = frozenset(
    {
        *("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"),
        *("environments", "completion_finished", "reasoning_opened"),
    }
)
_FLEXIBLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def check_input(args: KEPOConfig, functions: Sequence[Any], names: Sequence[str], dataset: Any, grpo: Any) -> None:
    """Refuse training data that cannot be trained on with these rewards, before a model is loaded.

    Args:
        args: Of the run.
        functions: Reward functions.
        names: Their names.
        dataset: The training data; None where an environment owns it.
        grpo: What else `GRPOTrainer` is given.

    Raises:
        DataError: Too few questions for one generation batch, a column that a reward function reads is missing, or an
            answer in it cannot be read.
    """
    if not is_sized(dataset):
        return
    check_batch(args, len(dataset))
    if owns_rollouts(grpo):  # whose rollouts may bring columns of their own
        return
    check_rewarded(functions, names, dataset, "train_dataset")


def check_rewarded(functions: Sequence[Any], names: Sequence[str], dataset: Any, called: str) -> None:
    """Refuse a data set that these reward functions cannot reward; `called` is what errors call it.

    Options in a script that answers are not read in are noted.

    Raises:
        DataError: A column that a reward function reads is missing, or an answer in it cannot be read.
    """
    check_columns(functions, names, dataset.column_names, called)
    check_answers(functions, dataset, called)
    if math_accuracy in functions:
        check_math_answers(list(dataset["answer"]))
    if choice_accuracy in functions:
        note_unread_languages(dataset["options"])


def is_sized(dataset: Any) -> bool:
    """Whether rows can be looked at without being used up: a data set that is there, and not streamed."""
    return isinstance(dataset, Dataset)


def owns_rollouts(grpo: Mapping[str, Any]) -> bool:
    """Whether prompts or completions come from the user's own code, so that rows say little about them."""
    return bool(grpo.get("rollout_func") or grpo.get("environment_factory"))


def questions_per_batch(args: KEPOConfig) -> int:
    """Questions of one generation batch, over all processes."""
    return int(args.generation_batch_size) // int(args.num_generations)


def check_batch(args: KEPOConfig, rows: int) -> None:
    """Refuse fewer questions than one generation batch takes: TRL drops incomplete ones, so nothing would be trained.

    Raises:
        DataError: Names both numbers.
    """
    needed = questions_per_batch(args)
    if rows >= needed:
        return
    there = "is 1 question" if rows == 1 else f"are {rows} questions"
    raise DataError(
        f"There {there} to train on, but one generation batch takes {needed}, and incomplete batches are "
        f"left out: not one step would be trained. {needed} is {args.generation_batch_size} rollouts "
        f"(per_device_train_batch_size {args.per_device_train_batch_size} x steps_per_generation "
        f"{args.steps_per_generation} x {args.world_size} processes) of num_generations {args.num_generations} each. "
        f"Use at least {needed} questions, or lower per_device_train_batch_size or gradient_accumulation_steps."
    )


def check_columns(
    functions: Sequence[Any], names: Sequence[str], columns: Sequence[str], called: str = "train_dataset"
) -> None:
    """Refuse a data set that lacks a column which a reward function reads.

    Raises:
        DataError: Names the function, the column and those that are there.
    """
    for function, name in zip(functions, names, strict=True):
        missing = [column for column in read_columns(function) if column not in columns]
        if not missing:
            continue
        advice = "Add it."
        if missing == ["answer"] and "solution" in columns:
            advice = "Rename it: dataset.rename_column('solution', 'answer')."
        elif function in REWARDS.values():
            advice = "Name the columns so (dataset.rename_column), or make the data set with kepo.data.to_dataset."
        raise DataError(
            f"The reward function {name!r} reads the column{'s' * (len(missing) > 1)} "
            f"{' and '.join(map(repr, missing))}, but {called} has only {', '.join(columns)}. {advice}"
        )


def read_columns(function: Any) -> list[str]:
    """The columns that a reward function cannot do without; empty where nobody can tell (reward models)."""
    if isinstance(function, str) or not callable(function) or hasattr(function, "forward"):
        return []
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a function without signature, such as one written in C
        return []
    needed = [p for p in parameters if p.default is inspect.Parameter.empty and p.kind not in _FLEXIBLE]
    return [p.name for p in needed if p.name not in _GIVEN]


def check_answers(functions: Sequence[Any], dataset: Any, called: str = "train_dataset") -> None:
    """Refuse true answers that the reward functions of this package cannot read, in any row.

    Raises:
        DataError: Names row, column and value.
    """
    ours = [function for function in functions if function in REWARDS.values()]
    readers = [function for function in ours if "answer" in read_columns(function)]
    if not readers:
        return
    texts_only = [function.__name__ for function in readers if function is not math_accuracy]
    answers = list(dataset["answer"])
    for number, answer in enumerate(answers):
        if answer is None or (isinstance(answer, str) and not answer.strip()):
            _refuse(
                dataset, called, number, answer, f"{readers[0].__name__} has nothing to compare with. Remove the row."
            )
        if texts_only and not isinstance(answer, str):
            advice = "dataset.map(lambda row: {'answer': str(row['answer'])})"
            _refuse(dataset, called, number, answer, f"{texts_only[0]} compares texts. Make the column text: {advice}.")
    if choice_accuracy in readers:
        _check_letters(answers, list(dataset["options"]), dataset, called)


def _check_letters(answers: Sequence[str], options: Sequence[Any], dataset: Any, called: str) -> None:
    for number, (answer, choices) in enumerate(zip(answers, options, strict=True)):
        letters = option_letters(choices or ())
        if choices and answer not in letters:
            problem = (
                f"it is not the letter of one of the {len(choices)} options ({', '.join(letters)}). Give the letter, "
                "or make the data set with kepo.data.to_dataset, which finds it."
            )
            _refuse(dataset, called, number, answer, problem)


def _refuse(dataset: Any, called: str, number: int, value: Any, problem: str) -> None:
    identity = dataset[number]["id"] if "id" in dataset.column_names else None
    raise DataError(f"{row_name(called, number, identity)}, column 'answer' is {value!r}: {problem}")
