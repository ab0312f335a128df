"""Reward functions that ask an optional package whether an answer is correct: math-verify and reasoning-gym."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kepo.errors import DataError, MissingExtraError
from kepo.rewards.answers import Completion, after_reasoning, completion_text, extract_answer

# What verifiers are seen to raise on answers that do not parse ("[1,2", "-1.5e400"). Such an answer is incorrect; it is
# not a reason to end a training run.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError)


def math_accuracy(completions: Sequence[Completion], answer: Sequence[str], **columns: Any) -> list[float | None]:
    """1.0 where the answer is mathematically equal to the true one (math-verify), else 0.0.

    The answer is the inside of `<answer>`; without such a tag, all that follows the reasoning. A row whose true answer
    is not mathematics gives None.

    Raises:
        MissingExtraError: math-verify is not installed.
    """
    package = _optional("math_verify", "math-verify", "math", "the reward 'math_accuracy'")
    # The package's time limits are alarm signals, which only the main thread may set.
    limit = 5 if threading.current_thread() is threading.main_thread() else None

    def parse(text: str) -> list[Any]:
        bare = "$" not in text and "\\boxed" not in text
        return package.parse(text, parsing_timeout=limit) or (
            package.parse(f"${text}$", parsing_timeout=limit) if bare else []
        )

    rewards: list[float | None] = []
    for completion, truth in zip(completions, answer, strict=True):
        gold = parse(truth)
        if not gold:
            rewards.append(None)
            continue
        text = completion_text(completion)
        given = parse(extract_answer(text) or after_reasoning(text))
        rewards.append(float(bool(given) and package.verify(gold, given, timeout_seconds=limit)))
    return rewards


def reasoning_gym_score(
    completions: Sequence[Completion],
    answer: Sequence[str],
    metadata: Sequence[Mapping[str, Any] | str],
    **columns: Any,
) -> list[float]:
    """The score in 0..1 that a reasoning-gym task gives to the inside of `<answer>`; 0.0 without such a tag.

    Args:
        completions: B completions.
        answer: B reference answers.
        metadata: B records as `kepo.data.load_reasoning_gym` writes them (or their JSON), with `source_dataset`.
        columns: Other columns, ignored.

    Raises:
        MissingExtraError: reasoning-gym is not installed.
        DataError: a row's metadata names no task, or one that the installed version does not have.
    """
    package = _optional("reasoning_gym", "reasoning-gym", "reasoning", "the reward 'reasoning_gym_score'")
    scorers: dict[str, Callable[[str, dict[str, Any]], float]] = {}
    rewards = []
    for row, (completion, truth, record) in enumerate(zip(completions, answer, metadata, strict=True)):
        decoded = decode_metadata(json.loads(record) if isinstance(record, str) else record)
        task = decoded.get("source_dataset")
        if task not in scorers:
            scorers[task] = _scorer(package, task, row)
        given = extract_answer(completion_text(completion))
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


def _optional(module: str, package: str, extra: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingExtraError(package, f"pip install 'kepo[{extra}]'", purpose) from error
