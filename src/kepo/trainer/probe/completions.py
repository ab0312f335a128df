"""Completions that a run must and must not reward: the true answer, and an incorrect one, in the form of the prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from kepo.trainer.rows import row_answer, row_options
from kepo.types import option_letters

_REASONING = "Reasoning."  # stands for any; formats want some
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_NONE_OF_THEM = "none of these"

FORMS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "plain": lambda answer: answer,
        "answer": lambda answer: f"<answer>{answer}</answer>",
        "boxed": lambda answer: rf"\boxed{{{answer}}}",
        "think": lambda answer: f"<think>{_REASONING}</think>\n<answer>{answer}</answer>",
    }
)
"""Ways to write an answer, by name; all but "boxed" are prompt styles."""


def true_answer(row: Mapping[str, Any]) -> str | None:
    """The answer of a data set row: `answer`, else `solution`; of GSM8K's texts what follows `####`. None: it has none.

    With options it is the letter of the correct one, as `kepo.data.to_dataset` writes it.
    """
    value = row_answer(row)
    if value is None or isinstance(value, list | dict):
        return None
    return str(value).rpartition("####")[2].strip() or None


def incorrect_answer(row: Mapping[str, Any]) -> str | None:
    """An answer of the same kind that is not the true one; None where every answer is true."""
    answer, options = true_answer(row), row_options(row)
    if answer is None:
        return None
    letters = option_letters(options)
    if answer in letters:
        return next((letter for letter in letters if letter != answer), None)
    others = [option for option in options if option != answer]
    if others:
        return str(others[0])
    if _NUMBER.fullmatch(answer):
        return str(int(answer) + 1) if "." not in answer else f"{answer}1"
    return _NONE_OF_THEM


def write(form: str, answer: str, opened: bool = False) -> str:
    """`answer` in one of `FORMS`; `opened`: the prompt ends with `<think>` already, so the completion begins inside."""
    text = FORMS[form](answer)
    if not opened:
        return text
    return text.removeprefix("<think>") if text.startswith("<think>") else f"{_REASONING}</think>\n{text}"


def forms_to_try(style: str | None, ours: bool) -> list[str]:
    """The forms in which the perfect completion may be written: that of the prompt first, else the shortest first.

    Args:
        style: The prompt style; None: unknown, the prompts are the user's own.
        ours: Whether the correctness reward is of this package, which must then read the form that the prompt asks for.
    """
    others = [form for form in FORMS if form != style]
    if style is None:
        return others
    return [style] if ours else [style, *others]
