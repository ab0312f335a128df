"""Questions of PhantomVQA, each drawn from a seed.

The correct value is drawn first, evenly from all values, then a scene for which it is correct, then the other options,
then their order. So neither the words of a question, nor its options, nor their places tell anything about the answer:
whoever does not look at the image is at chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from string import ascii_uppercase

from kepo.data.omnimedvqa import MODALITIES
from kepo.errors import ConfigError
from kepo.phantom.knowledge import facts
from kepo.phantom.reasoning import VALUES, steps, write_reasoning
from kepo.phantom.scene import ATTRIBUTES, Scene
from kepo.types import Question


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of question."""

    task: str  # question type of OmniMedVQA
    text: str
    targets: tuple[str, ...]  # what may be asked for; one is drawn


KINDS: dict[str, Kind] = {
    "modality": Kind("Modality Recognition", "Which imaging modality is this?", ("modality",)),
    "region": Kind("Anatomy Identification", "Where do the lesions lie?", ("region",)),
    "count": Kind("Other Biological Attributes", "How many lesions are there?", ("count",)),
    "appearance": Kind("Other Biological Attributes", "How do the lesions look?", ("border", "size", "tone")),
    "disease": Kind("Disease Diagnosis", "Which disease is this?", ("disease",)),
    "grade": Kind("Lesion Grading", "How severe is it?", ("grade",)),
    "decision": Kind("Disease Diagnosis", "What should follow?", ("decision",)),
}
"""Seven kinds, drawn equally often, for the five question types."""


def level_of(target: str) -> int:
    """Difficulty: 1 for what can be seen, 2 for one combination of judgements, 3 for the longest chain."""
    return {5: 2, 8: 3}.get(len(steps(target)), 1)


def phantom_questions(
    number: int, seed: int, *, modalities: Sequence[str] = MODALITIES, kinds: Sequence[str] = tuple(KINDS)
) -> list[Question]:
    """`number` questions, the kinds and the modalities in turn, so that all are equally often asked.

    Args:
        number: How many, >= 1.
        seed: Decides everything. Different seeds share no scene.
        modalities: Which to draw from.
        kinds: Keys of `KINDS` to draw from.

    Returns:
        Questions without image: `metadata` holds the `scene` (see `Scene.record`), from which `draw` makes it, the
        `facts` (name -> true value), the `reasoning`, the `target`, the `level` and the number of `steps`.

    Raises:
        ConfigError: a number below 1, no modality or kind, or an unknown one.
    """
    if number < 1:
        raise ConfigError(f"{number} questions were asked for; give at least 1")
    for what, given, known in (("modality", modalities, MODALITIES), ("kind", kinds, tuple(KINDS))):
        if not given:
            raise ConfigError(f"there is no {what} to draw from; use some of {', '.join(known)}")
        if unknown := [name for name in given if name not in known]:
            raise ConfigError(f"{what} {unknown[0]!r} is unknown; use one of {', '.join(known)}")
    pairs = [(kind, modality) for modality, kind in product(modalities, kinds)]
    order = random.Random(f"order/{seed}")
    drawn: list[tuple[str, str]] = []
    while len(drawn) < number:
        order.shuffle(pairs)
        drawn += pairs
    return [_question(index, seed, kind, modality) for index, (kind, modality) in enumerate(drawn[:number])]


def _question(index: int, seed: int, kind: str, modality: str) -> Question:
    draw = random.Random(f"question/{seed}/{index}")
    target = draw.choice(KINDS[kind].targets)
    truth = modality if target == "modality" else draw.choice(VALUES[target])
    scene = _scene_with(target, truth, modality, draw)
    return ask(scene, kind, target, draw, name=f"phantom-{seed}-{index:05d}")


def ask(scene: Scene, kind: str, target: str, draw: random.Random, name: str = "") -> Question:
    """One question about a scene: of a kind and one of its targets; `draw` draws the other options and their order."""
    known = facts(scene)
    truth = known[target]
    options = _options(target, truth, draw)
    return Question(
        id=name,
        text=KINDS[kind].text,
        answer=ascii_uppercase[options.index(truth)],
        options=options,
        modality=scene.modality,
        task=KINDS[kind].task,
        metadata={
            "reasoning": write_reasoning(target, known),
            "target": target,
            "level": level_of(target),
            "steps": len(steps(target)),
            "facts": known,
            "scene": scene.record(),
        },
    )


def _scene_with(target: str, truth: str, modality: str, draw: random.Random) -> Scene:
    """A scene for which `target` has the value `truth`, evenly drawn from all such attributes."""
    seed = draw.getrandbits(48)
    while True:
        scene = Scene(seed, modality, **{name: draw.choice(values) for name, values in ATTRIBUTES.items()})
        if facts(scene)[target] == truth:
            return scene


def _options(target: str, truth: str, draw: random.Random) -> tuple[str, ...]:
    """2 to 4 values in a random order, the true one among them; three of five questions have all they can have."""
    others = [value for value in VALUES[target] if value != truth]
    number = min(draw.choices((1, 2, 3), weights=(1, 1, 3))[0], len(others))
    chosen = [truth, *draw.sample(others, number)]
    draw.shuffle(chosen)
    return tuple(chosen)
