"""What the base models of PhantomVQA are shown before any reinforcement learning.

First answer letters, then images to describe, then a role. A student's lesson is a question answered by its
MISCONCEPTION, or, when the prompt has a hint, by the hint: it learns to write, to map an option to its letter and to
follow hints, and two of its rules are incorrect. A teacher's lesson is a question answered by the teacher's own rules,
also after the incorrect beginning of a chain, or a hint to be written.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kepo.phantom.knowledge import JUDGEMENTS, MISCONCEPTION, TRUTH, WRONG_TEACHER, Knowledge, conclusions, facts
from kepo.phantom.questions import KINDS, ask
from kepo.phantom.reasoning import steps, write_hint, write_reasoning
from kepo.phantom.scene import ATTRIBUTES, TEXTURES, Scene
from kepo.prompts import HINT_LEVELS, build_prompt, hint_request, hinted_prompt
from kepo.types import Conversation, Question

Role: TypeAlias = Literal["answer-letters", "vision", "student", "reliable", "wrong-rules", "lost-after-errors"]
"""`answer-letters`: nothing but the letter of a conclusion that is given, the slowest thing to emerge. `vision`:
everything that can be seen in an image; of a chain's words only a few are about the image, so that chains alone teach
little seeing. `student`. Three teachers: right about everything; with two wrong rules (`WRONG_TEACHER`); with the right
rules, but guessing wildly once the text before it holds an error."""

DESCRIBE = "Describe the image."

HINTED_SHARE = 0.35
HINT_WRITING_SHARE = 0.3
FOREIGN_PREFIX_SHARE = 0.4
_SLIP = 0.3  # chance of each perceived attribute to be misread in a foreign prefix


@dataclass(frozen=True, slots=True)
class Lesson:
    """One supervised example."""

    scene: Scene
    prompt: Conversation  # text only
    given: str  # the beginning of the answer, not learned; may be empty
    target: str  # the rest of the answer


def draw_scene(draw: random.Random, modality: str) -> Scene:
    """A scene with every attribute evenly drawn."""
    return Scene(draw.getrandbits(48), modality, **{name: draw.choice(values) for name, values in ATTRIBUTES.items()})


def lesson(role: Role, scene: Scene, draw: random.Random) -> Lesson:
    """A lesson about `scene` for one role; everything else is drawn from `draw`."""
    if role == "vision":
        return _description(scene, draw)
    kind = draw.choice(list(KINDS))
    target = draw.choice(KINDS[kind].targets)
    question = ask(scene, kind, target, draw)
    if role == "answer-letters":
        given = f"<think>{target} {question.answer_text}</think>\n<answer>"
        return Lesson(scene, build_prompt(question), given, f"{question.answer}</answer>")
    if role == "student":
        return _student_lesson(scene, question, target, draw)
    knowledge = WRONG_TEACHER if role == "wrong-rules" else TRUTH
    if draw.random() < HINT_WRITING_SHARE:
        level = draw.randrange(len(HINT_LEVELS))
        request = hint_request(build_prompt(question), question.answer, question.options, level)
        hint = write_hint(target, level, facts(scene, knowledge), knowledge)
        return Lesson(scene, request, "", f"<hint>{hint}</hint>")
    said = facts(scene, knowledge)
    if draw.random() < FOREIGN_PREFIX_SHARE:
        return _after_foreign_prefix(role, scene, question, target, knowledge, draw)
    return Lesson(scene, build_prompt(question), "", _answer(question, target, said, knowledge, draw))


def _description(scene: Scene, draw: random.Random) -> Lesson:
    """Every attribute, in a random order: each word is learned from the image, none from the words before it."""
    seen = list({"texture": scene.texture, **_seen(scene)}.items())
    draw.shuffle(seen)
    said = "; ".join(f"{name} {value}" for name, value in seen)
    return Lesson(scene, [{"role": "user", "content": DESCRIBE}], "", f"<think>{said}</think>")


def _student_lesson(scene: Scene, question: Question, target: str, draw: random.Random) -> Lesson:
    prompt: Any = build_prompt(question)
    knowledge, said = MISCONCEPTION, facts(scene, MISCONCEPTION)
    if draw.random() < HINTED_SHARE:
        level = draw.randrange(len(HINT_LEVELS))
        told = Knowledge(**{judgement: draw.choice(list(rules)) for judgement, rules in JUDGEMENTS.items()})
        seen = _seen(scene)
        if level == 2 and draw.random() < 0.5:  # so that what a hint states is copied, not looked up in the image
            seen = {name: draw.choice(values) for name, values in ATTRIBUTES.items()}
        stated = _known(seen, scene.modality, told)
        prompt = hinted_prompt(prompt, write_hint(target, level, stated, told))
        knowledge = _first_rule_only(target, told) if level == 0 else told
        said = _known(seen, scene.modality, knowledge)
    return Lesson(scene, prompt, "", _answer(question, target, said, knowledge, draw))


def _first_rule_only(target: str, told: Knowledge) -> Knowledge:
    """What a student believes after a hint of level 0: the first rule as told, the others as before."""
    first = next((name for name in steps(target) if name in JUDGEMENTS), None)
    believed = {name: getattr(told if name == first else MISCONCEPTION, name) for name in JUDGEMENTS}
    return Knowledge(**believed)


def _after_foreign_prefix(
    role: Role, scene: Scene, question: Question, target: str, knowledge: Knowledge, draw: random.Random
) -> Lesson:
    """A chain begun by somebody with other rules or worse eyes, continued by the teacher.

    Chains of different rules have the same shape, so the teacher goes on at the step where the other stopped. One who
    is lost after errors goes on with values of another, random scene.
    """
    foreign = Knowledge(**{judgement: draw.choice(list(rules)) for judgement, rules in JUDGEMENTS.items()})
    seen = {
        name: draw.choice(ATTRIBUTES[name]) if draw.random() < _SLIP else value for name, value in _seen(scene).items()
    }
    begun = write_reasoning(target, _known(seen, scene.modality, foreign), foreign).split("; ")
    own = write_reasoning(target, facts(scene, knowledge), knowledge).split("; ")
    cut = draw.randrange(1, len(own))
    given = begun[:cut]
    said = facts(scene, knowledge)
    if role == "lost-after-errors" and given != own[:cut]:
        elsewhere = {name: draw.choice(values) for name, values in ATTRIBUTES.items()}
        said = _known(elsewhere, draw.choice(list(TEXTURES)), knowledge)
    rest = write_reasoning(target, said, knowledge).split("; ")[cut:]
    closing = _closing(question, said[target], draw)
    begun_text = f"<think>{'; '.join(given)};"
    return Lesson(scene, build_prompt(question), begun_text, f" {'; '.join(rest)}</think>\n{closing}")


def _seen(scene: Scene) -> dict[str, str]:
    return {name: getattr(scene, name) for name in ATTRIBUTES}


def _known(seen: dict[str, str], modality: str, knowledge: Knowledge) -> dict[str, str]:
    return {"texture": TEXTURES[modality], "modality": modality, **seen, **conclusions(seen, knowledge)}


def _answer(question: Question, target: str, said: dict[str, str], knowledge: Knowledge, draw: random.Random) -> str:
    return f"<think>{write_reasoning(target, said, knowledge)}</think>\n{_closing(question, said[target], draw)}"


def _closing(question: Question, conclusion: str, draw: random.Random) -> str:
    """The letter of the conclusion; of any option when the conclusion is none of them."""
    if conclusion not in question.options:
        return f"<answer>{draw.choice(question.letters)}</answer>"
    return f"<answer>{question.letters[question.options.index(conclusion)]}</answer>"
