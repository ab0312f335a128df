"""Reward functions in TRL's form, and by name: `f(completions, **columns) -> list`, one number per completion.

`completions` and the columns of the data set arrive as parallel lists. 1.0 is correct, 0.0 is incorrect, None means
that the function has nothing to say about a row (TRL leaves it out of the sum).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from kepo.errors import ConfigError, DataError
from kepo.rewards.answers import (
    Completion,
    after_reasoning,
    completion_text,
    extract_answer,
    normalized,
    predicted_letter,
)
from kepo.rewards.imported import import_reward
from kepo.rewards.mathematics import math_accuracy
from kepo.rewards.verifiers import reasoning_gym_score
from kepo.types import option_letters

RewardFunction: TypeAlias = Callable[..., Sequence[float | None]]

_THINK_THEN_ANSWER = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_ANSWER_ALONE = re.compile(r"\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_ANSWER_TAGS = ("<answer>", "</answer>")
_THINK_TAGS = ("<think>", "</think>")


def choice_accuracy(
    completions: Sequence[Completion],
    answer: Sequence[str],
    options: Sequence[Sequence[str] | None],
    prompt_style: Sequence[str] | None = None,
    **columns: Any,
) -> list[float]:
    """1.0 where the option inside `<answer>` is the correct one, else 0.0; format does not count.

    A row of the prompt style "plain" was not asked for tags; its answer is read as evaluation reads it.

    Args:
        completions: B completions.
        answer: B letters of the correct options; free text for a row without options.
        options: B lists of option texts; a row without options is scored as by `exact_match`.
        prompt_style: B prompt styles (`kepo.data.to_dataset` writes them for "plain"); None where all ask for tags.
        columns: Other columns, ignored.

    Raises:
        DataError: an answer is not the letter of one of its options.
    """
    rewards = []
    styles = [None] * len(completions) if prompt_style is None else prompt_style
    for row, (completion, truth, choices, style) in enumerate(zip(completions, answer, options, styles, strict=True)):
        text = completion_text(completion)
        if not choices:
            rewards.append(_matches(text, truth))
            continue
        letters = option_letters(choices)
        if truth not in letters:
            raise DataError(
                f"choice_accuracy, row {row} of the batch, field 'answer': {truth!r} is not the letter of one of the "
                f"{len(choices)} options ({', '.join(letters)}); build the data set with kepo.data.to_dataset, which "
                "turns option texts into letters"
            )
        rewards.append(float(predicted_letter(text, choices, strict=style != "plain") == truth))
    return rewards


def exact_match(completions: Sequence[Completion], answer: Sequence[str], **columns: Any) -> list[float]:
    """1.0 where the answer reads the same as the true one, up to case, blanks, quotes and a final stop.

    The answer is the inside of `<answer>`; without such a tag, all that follows the reasoning.
    """
    return [_matches(completion_text(given), truth) for given, truth in zip(completions, answer, strict=True)]


def _matches(text: str, truth: str) -> float:
    given = extract_answer(text)
    if given is None:
        given = after_reasoning(text)
    return float(bool(given) and normalized(given) == normalized(truth))


def think_format(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """1.0 for one `<think>...</think>` followed by one `<answer>...</answer>`, neither empty, and nothing else."""
    return [_is_formatted(_THINK_THEN_ANSWER, completion_text(given), _THINK_TAGS) for given in completions]


def answer_format(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """1.0 for one `<answer>...</answer>` that is not empty, and nothing else."""
    return [_is_formatted(_ANSWER_ALONE, completion_text(given), ()) for given in completions]


def _is_formatted(pattern: re.Pattern[str], text: str, once: tuple[str, ...]) -> float:
    """`once` and the answer tags must occur exactly once, any other tag of ours not at all."""
    allowed = {*_ANSWER_TAGS, *once}
    if any(text.count(tag) != (tag in allowed) for tag in (*_ANSWER_TAGS, *_THINK_TAGS)):
        return 0.0
    match = pattern.fullmatch(text)
    return float(match is not None and all(part.strip() for part in match.groups()))


_ALL = (choice_accuracy, exact_match, think_format, answer_format, math_accuracy, reasoning_gym_score)
REWARDS: Mapping[str, RewardFunction] = MappingProxyType({function.__name__: function for function in _ALL})
"""The functions of this package, by the name under which TRL logs them."""


def get_rewards(names: Sequence[str]) -> list[RewardFunction]:
    """The reward functions called `names`, in order.

    A name is one of `REWARDS`, or `package.module:function` for any other function of TRL's form, for example
    `trl.rewards:accuracy_reward`.

    Raises:
        ConfigError: a name is unknown, or cannot be imported.
    """
    return [import_reward(name) if ":" in name else _built_in(name) for name in names]


def _built_in(name: str) -> RewardFunction:
    if name in REWARDS:
        return REWARDS[name]
    close = difflib.get_close_matches(name, REWARDS, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    raise ConfigError(
        f"reward {name!r} is unknown{meant}; use one of {', '.join(REWARDS)}, or 'package.module:function' for a "
        "function of your own"
    )
