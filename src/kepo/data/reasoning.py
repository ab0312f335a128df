"""Questions of procedural reasoning tasks, made by the optional package reasoning-gym."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from kepo.errors import DataError, MissingExtraError
from kepo.types import Question


def load_reasoning_gym(task: str, size: int, seed: int, config: Mapping[str, Any] | None = None) -> list[Question]:
    """`size` open questions of one task, the same ones for the same seed and config.

    Args:
        task: Name of a reasoning-gym data set, for example "chain_sum".
        size: How many, at least 1.
        seed: Seeds the generator.
        config: Further settings of the task, for example `{"max_terms": 3}`.

    Returns:
        Questions without options. `metadata` is what `kepo.rewards.reasoning_gym_score` needs, in a JSON-safe form.
        Tasks with many correct answers have none to show: their `answer` is empty.

    Raises:
        MissingExtraError: reasoning-gym is not installed.
        DataError: unknown task, or settings that it refuses.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError as error:
        if error.name not in ("reasoning_gym", "reasoning_gym.factory"):
            raise
        raise MissingExtraError("reasoning-gym", "pip install 'kepo[reasoning]'", f"the task {task!r}") from error
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=5, cutoff=0.4) or sorted(DATASETS)
        raise DataError(
            f"reasoning_tasks: {task!r} is unknown to reasoning-gym; it has, among others, {', '.join(close)}"
        )
    if size < 1:
        raise DataError(f"reasoning task {task!r}: size is {size}; ask for at least 1 question")
    settings = dict(config or {})
    try:
        dataset = reasoning_gym.create_dataset(task, **{**settings, "size": size, "seed": seed})
    except (AssertionError, TypeError, ValueError) as error:
        raise DataError(f"reasoning_config: the task {task!r} refuses {settings!r}: {error}") from error
    return [_question(dataset[index], f"{task}-{seed}-{index}", task) for index in range(size)]


def _question(entry: Mapping[str, Any], question_id: str, task: str) -> Question:
    answer = entry["answer"]
    metadata = encode_metadata(entry["metadata"])
    try:
        json.dumps(metadata)
    except TypeError as error:
        raise DataError(f"reasoning task {task!r}, question {question_id!r}, field 'metadata': {error}") from error
    return Question(
        id=question_id,
        text=str(entry["question"]),
        answer="" if answer is None else str(answer),
        task=task,
        metadata=metadata,
    )


def encode_metadata(value: Any) -> Any:
    """`value` in a form that survives JSON; `kepo.rewards.verifiers.decode_metadata` undoes it.

    A tuple becomes `{"__tuple__": [...]}`, a mapping whose keys are not all text `{"__items__": [[key, value], ...]}`:
    some tasks compare with tuples, for which a list would never be correct.
    """
    if isinstance(value, tuple):
        return {"__tuple__": [encode_metadata(item) for item in value]}
    if isinstance(value, list):
        return [encode_metadata(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if all(isinstance(key, str) for key in value):
        return {key: encode_metadata(item) for key, item in value.items()}
    return {"__items__": [[encode_metadata(key), encode_metadata(item)] for key, item in value.items()]}
