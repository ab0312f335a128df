"""The reward that asks reasoning-gym whether an answer is correct."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kepo.errors import DataError
from kepo.rewards.answers import Completion, completion_texts, extract_answer
from kepo.rewards.mathematics import optional_package

# What verifiers are seen to raise on answers that do not parse ("[1,2", "-1.5e400"). Such an answer is incorrect; it is
# not a reason to end a training run.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError)


def reasoning_gym_score(
    completions: Sequence[Completion],
    answer: Sequence[str],
    metadata: Sequence[Mapping[str, Any] | str],
    reasoning_opened: Sequence[bool] | None = None,
    **columns: Any,
) -> list[float]:
    """The score in 0..1 that a reasoning-gym task gives to the inside of `<answer>`; 0.0 without such a tag.

    Args:
        completions: B completions.
        answer: B reference answers.
        metadata: B records as `kepo.data.load_reasoning_gym` writes them (or their JSON), with `source_dataset`.
        reasoning_opened: B flags, whether a prompt ended with an opened `<think>` (`KEPOTrainer` tells it).
        columns: Other columns, ignored.

    Raises:
        MissingExtraError: reasoning-gym is not installed.
        DataError: a row's metadata names no task, or one that the installed version does not have.
    """
    package = optional_package("reasoning_gym", "reasoning-gym", "reasoning", "the reward 'reasoning_gym_score'")
    scorers: dict[str, Callable[[str, dict[str, Any]], float]] = {}
    rewards = []
    texts = completion_texts(completions, reasoning_opened)
    for row, (text, truth, record) in enumerate(zip(texts, answer, metadata, strict=True)):
        decoded = decode_metadata(json.loads(record) if isinstance(record, str) else record)
        task = decoded.get("source_dataset")
        if task not in scorers:
            scorers[task] = _scorer(package, task, row)
        given = extract_answer(text)
        rewards.append(_score(scorers[task], given, {"answer": truth, "metadata": decoded}))
    return rewards


def _scorer(package: Any, task: Any, row: int) -> Callable[[str, dict[str, Any]], float]:
    where = f"reasoning_gym_score, row {row} of the batch, field 'metadata': "
    if not isinstance(task, str):
        raise DataError(f"{where}it has no 'source_dataset'; load the questions with kepo.data.load_reasoning_gym")
    try:
        return package.get_score_answer_fn(task)
    except ValueError as error:
        raise DataError(f"{where}the installed reasoning-gym has no task {task!r}") from error


def _score(scorer: Callable[[str, dict[str, Any]], float], given: str | None, entry: dict[str, Any]) -> float:
    if given is None:
        return 0.0
    try:
        return float(scorer(given, entry))
    except _UNREADABLE:
        return 0.0


def decode_metadata(value: Any) -> Any:
    """Undoes the JSON-safe writing of `kepo.data.reasoning`.

    `{"__tuple__": [...]}` is a tuple and `{"__items__": [[key, value], ...]}` a mapping whose keys are not all text:
    some tasks compare with tuples, for which a list would never be correct.
    """
    if isinstance(value, list):
        return [decode_metadata(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"__tuple__"}:
        return tuple(decode_metadata(item) for item in value["__tuple__"])
    if value.keys() == {"__items__"}:
        return {decode_metadata(key): decode_metadata(item) for key, item in value["__items__"]}
    return {key: decode_metadata(item) for key, item in value.items()}
