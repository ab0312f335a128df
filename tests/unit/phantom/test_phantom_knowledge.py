"""The rules of PhantomVQA: what follows from what is seen, and for whom."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from kepo.data.omnimedvqa import MODALITIES
from kepo.phantom.knowledge import (
    JUDGEMENTS,
    MISCONCEPTION,
    TRUTH,
    WRONG_TEACHER,
    Knowledge,
    conclusions,
    facts,
)
from kepo.phantom.reasoning import VALUES
from kepo.phantom.scene import ATTRIBUTES, TEXTURES, Scene

SCENE = Scene(7, "MRI", "round", "left", "one", "large", "ragged", "dark")
EVERYTHING_SEEN = [dict(zip(ATTRIBUTES, values, strict=True)) for values in product(*ATTRIBUTES.values())]


def test_the_truth_about_a_scene_by_hand() -> None:
    # dark: cystic; large: invasive; one: light. Cystic and invasive: abscess; light and invasive: mild.
    assert facts(SCENE) == {
        "texture": "layered",
        "modality": "MRI",
        "outline": "round",
        "side": "left",
        "count": "one",
        "size": "large",
        "border": "ragged",
        "tone": "dark",
        "region": "left lobe",
        "nature": "cystic",
        "behaviour": "invasive",
        "burden": "light",
        "disease": "abscess",
        "grade": "mild",
        "decision": "drainage",
    }


@pytest.mark.parametrize(
    ("knowledge", "expected"),
    [
        # behaviour by outline (round: calm), burden by size (large: heavy)
        (MISCONCEPTION, {"behaviour": "calm", "burden": "heavy", "disease": "cyst", "grade": "moderate"}),
        # nature by outline (round: solid), burden by size (large: heavy)
        (WRONG_TEACHER, {"nature": "solid", "burden": "heavy", "disease": "carcinoma", "decision": "surgery"}),
    ],
    ids=["students", "wrong teacher"],
)
def test_other_rules_lead_to_other_conclusions(knowledge: Knowledge, expected: dict[str, str]) -> None:
    found = facts(SCENE, knowledge)
    assert {name: found[name] for name in expected} == expected


def test_what_is_seen_does_not_depend_on_the_rules() -> None:
    perceived = ("texture", "modality", "region", *ATTRIBUTES)
    truth, belief = facts(SCENE), facts(SCENE, MISCONCEPTION)
    assert {name: truth[name] for name in perceived} == {name: belief[name] for name in perceived}


@pytest.mark.parametrize("target", ["region", "disease", "grade", "decision"])
def test_every_conclusion_that_can_be_asked_for_follows_from_some_scene(target: str) -> None:
    assert {conclusions(seen)[target] for seen in EVERYTHING_SEEN} == set(VALUES[target])


@pytest.mark.parametrize("judgement", JUDGEMENTS)
def test_both_attributes_of_a_judgement_lead_to_the_same_values(judgement: str) -> None:
    by_attribute = JUDGEMENTS[judgement]
    assert len(by_attribute) == 2
    assert len({frozenset(rule.values()) for rule in by_attribute.values()}) == 1
    for attribute, rule in by_attribute.items():
        assert tuple(rule) == ATTRIBUTES[attribute], "every value of the attribute is judged"


def test_students_are_wrong_about_two_rules_and_the_wrong_teacher_about_one_of_them_and_another() -> None:
    def wrong(knowledge: Knowledge) -> set[str]:
        return {name for name in JUDGEMENTS if getattr(knowledge, name) != getattr(TRUTH, name)}

    assert wrong(MISCONCEPTION) == {"behaviour", "burden"}
    assert wrong(WRONG_TEACHER) == {"nature", "burden"}


def test_a_judgement_by_something_that_does_not_bear_on_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"behaviour by 'tone': use one of size, outline"):
        Knowledge(behaviour="tone")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"modality": "PET"}, "modality 'PET' is unknown; use one of MRI, CT"),
        ({"count": "four"}, "count 'four' is unknown; use one of one, two, three"),
        ({"border": ""}, "border '' is unknown; use one of smooth, ragged"),
    ],
)
def test_a_scene_with_an_unknown_value_is_refused(field: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SCENE, **field)


def test_a_scene_comes_back_from_its_record() -> None:
    assert Scene(**SCENE.record()) == SCENE


def test_every_modality_has_a_look_of_its_own() -> None:
    assert tuple(TEXTURES) == MODALITIES
    assert len(set(TEXTURES.values())) == len(MODALITIES)
