"""PhantomVQA's questions are drawn from a seed alone, evenly, and are right."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter

import pytest

from kepo.data.omnimedvqa import MODALITIES
from kepo.errors import ConfigError
from kepo.phantom.files import draw, scene_of
from kepo.phantom.knowledge import facts
from kepo.phantom.questions import KINDS, ask, level_of, phantom_questions
from kepo.phantom.reasoning import VALUES, steps
from kepo.phantom.scene import Scene
from kepo.types import Question


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return phantom_questions(1120, seed=3)  # twenty rounds of 7 kinds x 8 modalities


def test_a_question_is_right_about_its_scene(questions: list[Question]) -> None:
    for question in questions:
        target, known = question.metadata["target"], facts(scene_of(question))
        assert question.answer_text == known[target]
        assert question.metadata["facts"] == known
        assert question.modality == known["modality"]


def test_the_reasoning_states_facts_and_ends_with_the_answer(questions: list[Question]) -> None:
    for question in questions:
        known = question.metadata["facts"]
        stated = question.metadata["reasoning"].split("; ")
        assert stated == [f"{name} {known[name]}" for name in steps(question.metadata["target"])]
        assert len(stated) == question.metadata["steps"]
        assert stated[-1].endswith(question.answer_text)


def test_options_are_two_to_four_different_values_of_what_is_asked(questions: list[Question]) -> None:
    sizes = Counter(len(question.options) for question in questions if question.metadata["target"] == "disease")
    assert set(sizes) == {2, 3, 4}
    for question in questions:
        assert 2 <= len(question.options) <= 4
        assert len(set(question.options)) == len(question.options)
        assert set(question.options) <= set(VALUES[question.metadata["target"]])


def test_kinds_and_modalities_are_asked_equally_often(questions: list[Question]) -> None:
    pairs = Counter((question.text, question.modality) for question in questions)
    assert len(pairs) == len(KINDS) * len(MODALITIES)
    assert set(pairs.values()) == {20}


def test_a_part_of_a_round_is_drawn_in_a_random_order() -> None:
    first = phantom_questions(56, seed=1)
    assert [q.text for q in first] != [q.text for q in phantom_questions(56, seed=2)]
    assert [q.text for q in first] != [KINDS[kind].text for _ in MODALITIES for kind in KINDS]


def test_the_same_seed_gives_the_same_questions_and_fewer_are_the_first_of_many() -> None:
    many = phantom_questions(150, seed=9)
    assert phantom_questions(150, seed=9) == many
    assert phantom_questions(20, seed=9) == many[:20]


def test_questions_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    code = (
        "import json; from kepo.phantom.questions import phantom_questions as p;"
        "print(json.dumps([[q.id, q.text, q.answer, q.options, dict(q.metadata)] for q in p(60, 9)]))"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    here = [[q.id, q.text, q.answer, q.options, dict(q.metadata)] for q in phantom_questions(60, 9)]
    assert json.loads(texts[0]) == json.loads(json.dumps(here))


def test_different_seeds_share_no_scene_and_no_image() -> None:
    splits = [phantom_questions(400, seed) for seed in (2026, 2027, 2028, 2029)]
    seeds = [question.metadata["scene"]["seed"] for split in splits for question in split]
    assert len(set(seeds)) == len(seeds) == 1600
    images = [
        hashlib.sha256(question.images[0].tobytes()).hexdigest() for split in splits for question in draw(split[:40])
    ]
    assert len(set(images)) == len(images) == 160


def test_ids_are_unique_over_seeds() -> None:
    ids = [question.id for seed in (1, 2) for question in phantom_questions(60, seed)]
    assert len(set(ids)) == 120


def test_only_the_chosen_modalities_and_kinds_are_asked() -> None:
    found = phantom_questions(10, 1, modalities=["OCT"], kinds=["grade", "count"])
    assert {question.modality for question in found} == {"OCT"}
    assert Counter(question.text for question in found) == {KINDS["grade"].text: 5, KINDS["count"].text: 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 0}, "0 questions were asked for; give at least 1"),
        ({"number": -3}, "-3 questions"),
        ({"number": 1, "modalities": ["MRI", "PET"]}, "modality 'PET' is unknown; use one of MRI, CT"),
        ({"number": 1, "kinds": ["size"]}, "kind 'size' is unknown; use one of modality, region"),
        ({"number": 1, "modalities": []}, "no modality to draw from"),
        ({"number": 1, "kinds": []}, "no kind to draw from"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        phantom_questions(seed=1, **arguments)


def test_levels_are_seeing_one_combination_and_the_longest_chain() -> None:
    assert {target: level_of(target) for target in VALUES} == {
        "modality": 1,
        "region": 1,
        "count": 1,
        "border": 1,
        "size": 1,
        "tone": 1,
        "disease": 2,
        "grade": 2,
        "decision": 3,
    }


def test_questions_about_one_scene_differ_in_options_only() -> None:
    scene = Scene(1, "CT", "long", "right", "one", "large", "smooth", "dark")
    asked = [ask(scene, "decision", "decision", random.Random(seed)) for seed in range(40)]
    assert {question.answer_text for question in asked} == {"drainage"}  # dark, smooth: cyst; large: heavy
    assert {question.answer for question in asked} == set("ABCD")
