"""Reward functions in TRL's form, and by name: `f(completions, **columns) -> list`, one number per completion.

`completions` and the columns of the data set arrive as parallel lists. 1.0 is correct, 0.0 is incorrect, None means
that the function has nothing to say about a row (TRL leaves it out of the sum).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from kepo.errors import ConfigError, DataError, nearest
from kepo.rewards.answers import (
    Completion,
    after_reasoning,
    completion_texts,
    extract_answer,
    normalized,
    predicted_letter,
)
from kepo.rewards.imported import import_reward
from kepo.rewards.mathematics import math_accuracy
from kepo.rewards.verifiers import reasoning_gym_score
from kepo.types import option_letters

RewardFunction: TypeAlias = Callable[..., Sequence[float | None]]

_PLAIN = "plain"
_THINK_THEN_ANSWER = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_ANSWER_ALONE = re.compile(r"\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_ANSWER_TAGS = ("<answer>", "</answer>")
_THINK_TAGS = ("<think>", "</think>")


def choice_accuracy(
    completions: Sequence[Completion],
    answer: Sequence[str],
    options: Sequence[Sequence[str] | None],
    prompt_style: Sequence[str] | None = None,
    reasoning_opened: Sequence[bool] | None = None,
    **columns: Any,
) -> list[float]:
    """1.0 where the option inside `<answer>` is the correct one, else 0.0; format does not count.

    A row of the prompt style "plain" was not asked for tags; its answer is read as evaluation reads it.

    Args:
        completions: B completions.
        answer: B letters of the correct options; free text for a row without options.
        options: B lists of option texts; a row without options is scored as by `exact_match`.
        prompt_style: B prompt styles (`kepo.data.to_dataset` writes them for "plain"); None where all ask for tags.
        reasoning_opened: B flags, whether a prompt ended with an opened `<think>` (`KEPOTrainer` tells it).
        columns: Other columns, ignored.

    Raises:
        DataError: an answer is not the letter of one of its options.
    """
    rewards = []
    texts = completion_texts(completions, reasoning_opened)
    rows = zip(texts, answer, options, _styles(prompt_style, texts), strict=True)
    for row, (text, truth, choices, style) in enumerate(rows):
        if not choices:
            rewards.append(_matches(text, truth))
            continue
        letters = option_letters(choices)
        truth = extract_answer(truth) or truth
        if truth not in letters:
            raise DataError(
                f"choice_accuracy, row {row} of the batch, field 'answer': {truth!r} is not the letter of one of the "
                f"{len(choices)} options ({', '.join(letters)}); build the data set with kepo.data.to_dataset, which "
                "turns option texts into letters"
            )
        rewards.append(float(predicted_letter(text, choices, strict=style != _PLAIN) == truth))
    return rewards


def _styles(prompt_style: Sequence[str] | None, rows: Sequence[object]) -> Sequence[str | None]:
    return [None] * len(rows) if prompt_style is None else prompt_style


def exact_match(
    completions: Sequence[Completion],
    answer: Sequence[str],
    reasoning_opened: Sequence[bool] | None = None,
    **columns: Any,
) -> list[float]:
    """1.0 where the answer reads the same as the true one, up to case, blanks, quotes and a final stop.

    The answer is the inside of `<answer>`; without such a tag, all that follows the reasoning.

    Args:
        completions: As TRL gives them: texts, or lists of messages.
        answer: The true answer of each row.
        reasoning_opened: Whether the prompt of each row ended with an opened `<think>`; None: not known.
        **columns: The other columns of the data set; not read.
    """
    texts = completion_texts(completions, reasoning_opened)
    return [_matches(text, truth) for text, truth in zip(texts, answer, strict=True)]


def _matches(text: str, truth: str) -> float:
    given = extract_answer(text)
    if given is None:
        given = after_reasoning(text)
    true = extract_answer(truth) or truth
    return float(bool(given) and normalized(given) == normalized(true))


def think_format(
    completions: Sequence[Completion],
    prompt_style: Sequence[str] | None = None,
    reasoning_opened: Sequence[bool] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1.0 for one `<think>...</think>` followed by one `<answer>...</answer>`, neither empty, and nothing else.

    Where the prompt ended with an opened `<think>`, the completion need not repeat it. Where nobody tells
    (`reasoning_opened` is None), a lone `</think>` is taken for the end of such reasoning. None for a row of the prompt
    style "plain", which did not ask for tags.

    Args:
        completions: As TRL gives them: texts, or lists of messages.
        prompt_style: Prompt style of each row, see `kepo.prompts`; None: not known.
        reasoning_opened: Whether the prompt of each row ended with an opened `<think>`; None: not known.
        **columns: The other columns of the data set; not read.
    """
    texts = completion_texts(completions, reasoning_opened)
    if reasoning_opened is None:
        texts = [text if "<think>" in text or "</think>" not in text else f"<think>{text}" for text in texts]
    return [
        None if style == _PLAIN else _is_formatted(_THINK_THEN_ANSWER, text, _THINK_TAGS)
        for text, style in zip(texts, _styles(prompt_style, texts), strict=True)
    ]


def answer_format(
    completions: Sequence[Completion],
    prompt_style: Sequence[str] | None = None,
    reasoning_opened: Sequence[bool] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1.0 for one `<answer>...</answer>` that is not empty, and nothing else; None for a row of the style "plain".

    Where the prompt ended with an opened `<think>`, the reasoning has to be ended first, and may say anything.

    Args:
        completions: As TRL gives them: texts, or lists of messages.
        prompt_style: Prompt style of each row, see `kepo.prompts`; None: not known.
        reasoning_opened: Whether the prompt of each row ended with an opened `<think>`; None: not known.
        **columns: The other columns of the data set; not read.
    """
    opened = [False] * len(completions) if reasoning_opened is None else reasoning_opened
    texts = [
        after_reasoning(text) if start else text
        for text, start in zip(completion_texts(completions, reasoning_opened), opened, strict=True)
    ]
    return [
        None if style == _PLAIN else _is_formatted(_ANSWER_ALONE, text, ())
        for text, style in zip(texts, _styles(prompt_style, texts), strict=True)
    ]


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

    A name is one of `REWARDS`, or `package.module:function` or `file.py:function` for any other function of TRL's form,
    for example `trl.rewards:accuracy_reward`.

    Raises:
        ConfigError: a name is unknown, or cannot be imported.
    """
    return [import_reward(name) if ":" in name else _built_in(name) for name in names]


def _built_in(name: str) -> RewardFunction:
    if name in REWARDS:
        return REWARDS[name]
    close = nearest(name, REWARDS)
    meant = f" (did you mean {close!r}?)" if close else ""
    raise ConfigError(
        f"reward {name!r} is unknown{meant}; use one of {', '.join(REWARDS)}, or 'file.py:function' for a "
        "function of your own"
    )
