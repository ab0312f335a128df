"""Whoever does not look at the lesions is at chance: not letters, words, options or background tell the answer.

Every check is a function that returns how many standard errors lie between what was found and chance, and is run twice:
on PhantomVQA, where it must find nothing, and on questions that were spoilt on purpose, where it must find that.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from string import ascii_uppercase

import numpy as np
import pytest
from numpy.typing import NDArray

from kepo.data.omnimedvqa import MODALITIES
from kepo.phantom.drawing.canvas import make_canvas
from kepo.phantom.files import scene_of
from kepo.phantom.questions import KINDS, phantom_questions
from kepo.phantom.reasoning import VALUES
from kepo.phantom.render import anatomy
from kepo.phantom.scene import ATTRIBUTES, Scene
from kepo.types import Question

NUMBER = 4032  # 72 rounds of 7 kinds x 8 modalities
CHANCE = 3.0  # standard errors


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return phantom_questions(NUMBER, seed=11)


# --- the checks -----------------------------------------------------------------------------------------------------


def uneven_letters(questions: Sequence[Question]) -> float:
    """Chi-square of the letters of the answers, given the number of options; in standard errors of its mean."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[len(question.options)][question.answer] += 1
    return _pooled_chi_square([(list(ascii_uppercase[:n]), found) for n, found in counts.items()])


def uneven_answers(questions: Sequence[Question]) -> float:
    """Chi-square of the right texts, given the set of options; in standard errors of its mean."""
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[tuple(sorted(question.options))][question.answer_text] += 1
    return _pooled_chi_square([(list(options), found) for options, found in counts.items()])


def _pooled_chi_square(groups: Sequence[tuple[list[str], Counter[str]]]) -> float:
    statistic = degrees = 0.0
    for names, counts in groups:
        expected = counts.total() / len(names)
        statistic += sum((counts[name] - expected) ** 2 / expected for name in names)
        degrees += len(names) - 1
    return (statistic - degrees) / math.sqrt(2 * degrees)


def most_frequent_letter(questions: Sequence[Question]) -> float:
    """Accuracy of whoever always says the letter that is most often right; in standard errors from chance."""
    letter, _ = Counter(question.answer for question in questions).most_common(1)[0]
    able = [question for question in questions if letter in question.letters]
    return _above_chance([question.answer == letter for question in able], able)


def text_only(questions: Sequence[Question]) -> float:
    """Accuracy of a naive Bayes classifier that reads the question and its options; in standard errors from chance.

    It learns on every second question and is asked the others.
    """
    learned = CountingReader(questions[::2])
    asked = questions[1::2]
    return _above_chance([learned.answer(question) == question.answer for question in asked], asked)


class CountingReader:
    """For every option, how often options with these features were right, all features counted alone."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._right: Counter[tuple[object, ...]] = Counter()
        self._wrong: Counter[tuple[object, ...]] = Counter()
        for question in questions:
            for place, letter in enumerate(question.letters):
                (self._right if letter == question.answer else self._wrong).update(_features(question, place))

    def answer(self, question: Question) -> str:
        scores = [
            sum(math.log((self._right[f] + 0.5) / (self._wrong[f] + 0.5)) for f in _features(question, place))
            for place in range(len(question.options))
        ]
        return ascii_uppercase[int(np.argmax(scores))]


def _features(question: Question, place: int) -> Iterator[tuple[object, ...]]:
    """What can be read about the option at `place`, without the image."""
    option, options = question.options[place], question.options
    yield "place", len(options), place
    yield "text", question.text, option
    yield "place and text", question.text, option, place
    yield "set", option, tuple(sorted(options))
    yield "order", option, options
    yield from (("beside", option, other) for other in options if other != option)
    yield "before", option, options[place - 1] if place else ""


def _above_chance(right: Sequence[bool], questions: Sequence[Question]) -> float:
    chances = [1 / len(question.options) for question in questions]
    spread = math.sqrt(sum(p * (1 - p) for p in chances))
    return (sum(right) - sum(chances)) / spread


READING: dict[str, Callable[[Sequence[Question]], float]] = {
    check.__name__: check for check in (uneven_letters, most_frequent_letter, uneven_answers, text_only)
}


# --- questions with a shortcut, to see that the checks find it -------------------------------------------------------


def _reordered(question: Question, options: Sequence[str]) -> Question:
    answer = ascii_uppercase[list(options).index(question.answer_text)]
    return replace(question, options=tuple(options), answer=answer)


def truth_first(questions: Sequence[Question]) -> list[Question]:
    """One of three right options comes first."""
    draw = random.Random(1)
    return [
        _reordered(q, sorted(q.options, key=lambda o: o != q.answer_text)) if draw.random() < 0.33 else q
        for q in questions
    ]


def nearest_distractors(questions: Sequence[Question]) -> list[Question]:
    """The wrong options are those that follow the right one in the list of values, so the set tells which is right."""
    draw, spoilt = random.Random(2), []
    for question in questions:
        values = VALUES[question.metadata["target"]]
        start = values.index(question.answer_text)
        options = [values[(start + step) % len(values)] for step in range(len(question.options))]
        draw.shuffle(options)
        spoilt.append(_reordered(question, options))
    return spoilt


def favourite_answers(questions: Sequence[Question]) -> list[Question]:
    """Every third question is replaced by one that has the first of the values as its answer."""
    by_target: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        target = question.metadata["target"]
        if question.answer_text == VALUES[target][0]:
            by_target[target].append(question)
    return [
        by_target[q.metadata["target"]][number % len(by_target[q.metadata["target"]])] if number % 3 == 0 else q
        for number, q in enumerate(questions)
    ]


def alphabetical(questions: Sequence[Question]) -> list[Question]:
    """The right option stands beside a fixed other one: wrong options in the order of the alphabet after it."""
    spoilt = []
    for question in questions:
        wrong = sorted(option for option in question.options if option != question.answer_text)
        place = len(question.text) % len(question.options)
        spoilt.append(_reordered(question, [*wrong[:place], question.answer_text, *wrong[place:]]))
    return spoilt


@pytest.mark.parametrize("check", READING)
def test_reading_alone_tells_nothing(questions: list[Question], check: str) -> None:
    assert abs(READING[check](questions)) < CHANCE


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        ("uneven_letters", truth_first),
        ("most_frequent_letter", truth_first),
        ("text_only", truth_first),
        ("text_only", nearest_distractors),
        ("text_only", favourite_answers),
        ("text_only", alphabetical),
        ("uneven_answers", nearest_distractors),
        ("uneven_answers", favourite_answers),
    ],
)
def test_the_checks_find_shortcuts_that_are_there(
    questions: list[Question], check: str, spoil: Callable[[Sequence[Question]], list[Question]]
) -> None:
    assert READING[check](spoil(questions)) > 2 * CHANCE


@pytest.mark.parametrize("kind", KINDS)
def test_reading_alone_tells_nothing_about_any_kind(kind: str) -> None:
    asked = phantom_questions(1600, seed=12, kinds=[kind])
    for name, check in READING.items():
        assert abs(check(asked)) < CHANCE, name


def test_within_one_modality_only_the_modality_itself_can_be_guessed() -> None:
    others = [kind for kind in KINDS if kind != "modality"]
    asked = phantom_questions(3000, seed=13, modalities=["MRI"], kinds=others)
    for name, check in READING.items():
        assert abs(check(asked)) < CHANCE, name
    recognition = phantom_questions(400, seed=13, modalities=["MRI"], kinds=["modality"])
    learned = CountingReader(recognition[::2])
    assert all(learned.answer(question) == question.answer for question in recognition[1::2])


# --- the background -------------------------------------------------------------------------------------------------

LESION_ATTRIBUTES = [name for name in ATTRIBUTES if name != "outline"]
PER_MODALITY = 160


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Scenes that questions are asked about, a half of the modalities: two grey, two coloured ones."""
    chosen = ["MRI", "Ultrasound", "Fundus", "Microscopy"]
    return [scene_of(question) for question in phantom_questions(PER_MODALITY * len(chosen), 14, modalities=chosen)]


@pytest.fixture(scope="module")
def backgrounds(scenes: list[Scene]) -> list[NDArray[np.float64]]:
    canvas = make_canvas(32)
    return [np.asarray(anatomy(scene, canvas), dtype=np.float64).ravel() for scene in scenes]


def nearest_mean(scenes: Sequence[Scene], pictures: Sequence[NDArray[np.float64]], name: str) -> float:
    """Accuracy of the nearest mean picture, within modality and outline; in standard errors from a fair guess.

    Means are taken of every second picture, the others are told apart. A fair guess is right as often as the values
    that were told would be right by chance.
    """
    right, chances = 0, []
    for modality, outline in {(scene.modality, scene.outline) for scene in scenes}:
        group = [
            (picture, getattr(scene, name))
            for scene, picture in zip(scenes, pictures, strict=True)
            if (scene.modality, scene.outline) == (modality, outline)
        ]
        values = ATTRIBUTES[name]
        means = [np.mean([picture for picture, value in group[::2] if value == one], axis=0) for one in values]
        for picture, value in group[1::2]:
            told = values[int(np.argmin([((picture - mean) ** 2).sum() for mean in means]))]
            right += told == value
            chances.append(Counter(value for _, value in group)[told] / len(group))
    return (right - sum(chances)) / math.sqrt(sum(p * (1 - p) for p in chances))


@pytest.mark.parametrize("name", LESION_ATTRIBUTES)
def test_the_background_tells_nothing_about_the_lesions(
    scenes: list[Scene], backgrounds: list[NDArray[np.float64]], name: str
) -> None:
    assert abs(nearest_mean(scenes, backgrounds, name)) < CHANCE


@pytest.mark.parametrize("name", LESION_ATTRIBUTES)
def test_a_background_that_is_a_little_brighter_by_what_the_lesions_are_gives_them_away(
    scenes: list[Scene], backgrounds: list[NDArray[np.float64]], name: str
) -> None:
    spoilt = [
        picture + 0.1 * ATTRIBUTES[name].index(getattr(scene, name))
        for scene, picture in zip(scenes, backgrounds, strict=True)
    ]
    assert nearest_mean(scenes, spoilt, name) > 2 * CHANCE


def test_every_modality_is_there_equally_often_whatever_is_right(questions: list[Question]) -> None:
    for kind in KINDS:
        asked = [question for question in questions if question.text == KINDS[kind].text]
        counts = Counter(question.modality for question in asked)
        assert counts == dict.fromkeys(MODALITIES, NUMBER // 56)
