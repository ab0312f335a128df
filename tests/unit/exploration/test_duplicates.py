"""Duplicates only where two hints say the same; the length of a hint in words."""

from __future__ import annotations

import time

import pytest

from kepo.exploration.duplicates import count_words, is_duplicate


@pytest.mark.parametrize(
    ("text", "words"), [("", 0), ("Look at the rim.", 4), ("T2-weighted, 3.5 mm", 5), ("看看病变的边缘", 1)]
)
def test_words(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "other", "duplicate"),
    [
        ("Look at the rim.", "look at  the RIM", True),
        ("Look at the rim", "Look at the edge", False),
        # Ten words each, nine in common: 2 * 9 / 20 = 0.9.
        ("a b c d e f g h i j", "a b c d e f g h i k", True),
        ("a b c d e f g h i j", "a b c d e f g h k l", False),
        ("看看病变的边缘和颜色", "看看病变的边缘和形色", True),
        ("看看病变的边缘", "比较两侧的颜色", False),
        ("", "", False),
        ("?", "!", False),
    ],
)
def test_duplicates(text: str, other: str, duplicate: bool) -> None:
    assert is_duplicate(text, ["something else altogether", other]) is duplicate


def test_a_teacher_that_repeats_itself_costs_no_time() -> None:
    start = time.perf_counter()
    assert is_duplicate("the " * 5000, ["the " * 4000 + "rim " * 1000])
    assert time.perf_counter() - start < 1.0


def test_nothing_is_a_duplicate_of_nothing() -> None:
    assert not is_duplicate("Look at the rim.", [])
