"""PhantomVQA's chains and hints: complete, in order, and silent about the answer."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from kepo.exploration.leaks import audit
from kepo.phantom.knowledge import JUDGEMENTS, MISCONCEPTION, TRUTH, WRONG_TEACHER, Knowledge, facts
from kepo.phantom.questions import phantom_questions
from kepo.phantom.reasoning import VALUES, steps, write_hint, write_reasoning
from kepo.phantom.scene import ATTRIBUTES, Scene
from kepo.prompts import HINT_LEVELS

SCENE = Scene(7, "MRI", "round", "left", "one", "large", "ragged", "dark")
EVERY_KNOWLEDGE = [Knowledge(*by) for by in product(*JUDGEMENTS.values())]


@pytest.mark.parametrize(
    ("target", "chain"),
    [
        ("modality", "texture layered; modality MRI"),
        ("region", "outline round; side left; region left lobe"),
        ("border", "count one; border ragged"),
        ("disease", "tone dark; nature cystic; size large; behaviour invasive; disease abscess"),
        ("grade", "count one; burden light; size large; behaviour invasive; grade mild"),
        (
            "decision",
            "tone dark; nature cystic; size large; behaviour invasive; disease abscess; count one; "
            "burden light; decision drainage",
        ),
    ],
)
def test_chains_by_hand(target: str, chain: str) -> None:
    assert write_reasoning(target, facts(SCENE)) == chain


def test_the_students_chain_names_the_attributes_of_their_own_rules() -> None:
    said = facts(SCENE, MISCONCEPTION)
    assert write_reasoning("grade", said, MISCONCEPTION) == (
        "size large; burden heavy; outline round; behaviour calm; grade moderate"
    )


@pytest.mark.parametrize("target", VALUES)
def test_a_chain_has_two_to_eight_steps_whoever_writes_it_and_ends_with_the_answer(target: str) -> None:
    lengths = {len(steps(target, knowledge)) for knowledge in EVERY_KNOWLEDGE}
    assert len(lengths) == 1, "chains of different rules have the same shape"
    assert 2 <= lengths.pop() <= 8
    assert all(steps(target, knowledge)[-1] == target for knowledge in EVERY_KNOWLEDGE)


@pytest.mark.parametrize("knowledge", [TRUTH, MISCONCEPTION, WRONG_TEACHER], ids=["truth", "students", "wrong"])
@pytest.mark.parametrize("target", VALUES)
def test_every_step_follows_from_the_steps_before_it(target: str, knowledge: Knowledge) -> None:
    needs = {
        "modality": {"texture"},
        "region": {"outline", "side"},
        "disease": {"nature", "behaviour"},
        "grade": {"burden", "behaviour"},
        "decision": {"disease", "burden"},
        **{judgement: {getattr(knowledge, judgement)} for judgement in JUDGEMENTS},
    }
    stated: set[str] = set()
    for name in steps(target, knowledge):
        assert needs.get(name, set()) <= stated
        stated.add(name)


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        steps("colour")


@pytest.mark.parametrize(
    ("target", "hints"),
    [
        ("modality", ["modality by texture", "modality by texture", "texture layered"]),
        ("region", ["region by outline and side", "region by outline and side", "outline round; side left"]),
        (
            "grade",
            [
                "burden by count",
                "burden by count; behaviour by size",
                "count one; burden light; size large; behaviour invasive",
            ],
        ),
    ],
)
def test_hints_by_hand(target: str, hints: list[str]) -> None:
    assert [write_hint(target, level, facts(SCENE)) for level in range(len(HINT_LEVELS))] == hints


def test_a_wrong_teacher_hints_at_its_own_rules() -> None:
    said = facts(SCENE, WRONG_TEACHER)
    assert write_hint("disease", 1, said, WRONG_TEACHER) == "nature by outline; behaviour by size"
    assert write_hint("disease", 2, said, WRONG_TEACHER) == (
        "outline round; nature solid; size large; behaviour invasive"
    )


def test_no_true_hint_of_any_level_gives_the_answer_away() -> None:
    leaks: Counter[tuple[str, int]] = Counter()
    for question in phantom_questions(1120, seed=5):
        for level in range(len(HINT_LEVELS)):
            hint = write_hint(question.metadata["target"], level, question.metadata["facts"])
            if audit(hint, question.answer, question.options):
                leaks[question.metadata["target"], level] += 1
    assert not leaks


def test_the_audit_would_find_the_last_step_of_a_chain() -> None:
    for question in phantom_questions(112, seed=5):
        assert audit(question.metadata["reasoning"], question.answer, question.options) == ("option",)


def test_hints_say_nothing_that_is_not_seen_or_concluded() -> None:
    names = {*ATTRIBUTES, *JUDGEMENTS, *VALUES, "texture"}
    for target, level in product(VALUES, (0, 1)):
        words = set(write_hint(target, level, facts(SCENE)).replace(";", "").split())
        assert words <= names | {"by", "and"}, "levels 0 and 1 name rules and state no value"
