"""The student's prompt with the teacher's images, and what is said where that cannot be."""

from __future__ import annotations

import logging

import pytest

from kepo.teachers.base import ScoreRequest
from kepo.teachers.reading import Difference, rendered_difference, shown_prompt, with_images_of
from tests.fake_vllm import ToyTokenizer

I = 99  # noqa: E741 - the token of an image


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [
        ([1, 2, 3], [7], [1, 2, 3]),
        ([1, I, I, 2], [7, I, I], [1, I, I, 2]),
        ([1, I, I, 2, I, I], [I, I, I, 7, I], [1, I, I, I, 2, I]),
        ([1, I, 2], [7], None),
        ([1, 2], [7, I], None),
        ([I, 1, I], [I, I], None),
    ],
)
def test_images_are_as_long_as_the_teacher_takes_them(given: list[int], own: list[int], expected: list[int]) -> None:
    assert with_images_of(given, own, I) == expected


def test_the_difference_is_said_once_and_short(caplog: pytest.LogCaptureFixture) -> None:
    difference = Difference()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            difference.say([0, 1, 2, 3], [0, 1, 5, 3, 4], _Toy())
    [record] = caplog.records
    text = record.getMessage()
    assert "The student reads 4 tokens, the teacher 5" in text
    assert "From character 2 on" in text
    assert "'abcd'" in text
    assert "'abfde'" in text


def test_long_prompts_are_shown_around_their_first_difference() -> None:
    text = rendered_difference([1] * 500 + [2], [1] * 500 + [3])
    assert len(text) < 500
    assert "'...1 1" in text


class _Toy(ToyTokenizer):
    def decode(self, ids: list[int], **_: object) -> str:  # type: ignore[override]
        return super().decode(ids)


def test_images_of_tools_stand_behind_the_prompt() -> None:
    prompt = [{"role": "user", "content": "What is there?"}]
    shown = shown_prompt(ScoreRequest(prompt, (1,), (2,), ("an image",)))
    assert shown == [*prompt, {"role": "user", "content": [{"type": "image", "image": "an image"}]}]
    assert shown_prompt(ScoreRequest(prompt, (1,), (2,))) is prompt
