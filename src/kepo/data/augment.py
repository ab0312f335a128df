"""Copies of questions that ask the same in another order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from kepo.errors import ConfigError
from kepo.types import Question, option_letters


def shuffle_options(questions: Sequence[Question], copies: int, seed: int) -> list[Question]:
    """`questions`, followed by `copies` copies of each with its options in another order.

    A policy can only learn to match an option's text to its letter if the letter changes while the text stays.

    Args:
        questions: The originals, kept as they are; open questions get no copies.
        copies: How many copies of each question, >= 0. Orders are drawn one by one, so two may be alike.
        seed: Seeds the orders.

    Returns:
        The originals in order, then copy after copy, with ids `ID~1`, `ID~2`, ...

    Raises:
        ConfigError: `copies` is negative.
    """
    if copies < 0:
        raise ConfigError(f"option_shuffles is {copies}; give a whole number of at least 0.")
    order = random.Random(seed)
    shuffled = [
        _in_another_order(question, copy, order)
        for copy in range(1, copies + 1)
        for question in questions
        if question.options
    ]
    return [*questions, *shuffled]


def _in_another_order(question: Question, copy: int, order: random.Random) -> Question:
    places = list(range(len(question.options)))
    order.shuffle(places)
    old_letters = option_letters(question.options)
    correct = places.index(old_letters.index(question.answer))
    return replace(
        question,
        id=f"{question.id}~{copy}",
        options=tuple(question.options[place] for place in places),
        answer=old_letters[correct],
    )
