"""The rules of PhantomVQA, and what somebody who knows other rules would conclude.

A rule says by which attribute a judgement is made ("behaviour by size") and what two judgements mean together
(solid and invasive: carcinoma). The combinations are common knowledge; which attribute decides is what one may be wrong
about. The rules are invented. They look like medicine and are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kepo.phantom.scene import ATTRIBUTES, Scene

JUDGEMENTS: dict[str, dict[str, dict[str, str]]] = {
    "nature": {
        "tone": {"bright": "solid", "dark": "cystic"},
        "outline": {"round": "solid", "long": "cystic"},
    },
    "behaviour": {
        "size": {"small": "calm", "large": "invasive"},
        "outline": {"round": "calm", "long": "invasive"},
    },
    "burden": {
        "count": {"one": "light", "two": "heavy", "three": "heavy"},
        "size": {"small": "light", "large": "heavy"},
    },
}
"""judgement -> attribute it may be made by -> value of the attribute -> value of the judgement."""

_REGION = {
    ("left", "round"): "left lobe",
    ("right", "round"): "right lobe",
    ("left", "long"): "left pole",
    ("right", "long"): "right pole",
}
_DISEASE = {
    ("solid", "invasive"): "carcinoma",
    ("solid", "calm"): "adenoma",
    ("cystic", "invasive"): "abscess",
    ("cystic", "calm"): "cyst",
}
_GRADE = {
    ("light", "calm"): "minimal",
    ("light", "invasive"): "mild",
    ("heavy", "calm"): "moderate",
    ("heavy", "invasive"): "severe",
}
_DECISION = {
    ("carcinoma", "heavy"): "surgery",
    ("abscess", "heavy"): "surgery",
    ("carcinoma", "light"): "biopsy",
    ("adenoma", "heavy"): "biopsy",
    ("abscess", "light"): "drainage",
    ("cyst", "heavy"): "drainage",
    ("adenoma", "light"): "monitoring",
    ("cyst", "light"): "monitoring",
}


@dataclass(frozen=True, slots=True)
class Knowledge:
    """By which attribute, a key of `JUDGEMENTS[judgement]`, each judgement is made; the defaults are the truth."""

    nature: str = "tone"
    behaviour: str = "size"
    burden: str = "count"

    def __post_init__(self) -> None:
        """Raises ValueError for an attribute that a judgement cannot be made by."""
        for judgement, rules in JUDGEMENTS.items():
            if getattr(self, judgement) not in rules:
                raise ValueError(f"{judgement} by {getattr(self, judgement)!r}: use one of {', '.join(rules)}")


TRUTH = Knowledge()
MISCONCEPTION = Knowledge(behaviour="outline", burden="size")
"""What the base students believe: two of the three rules are wrong, and all that rests on them."""

WRONG_TEACHER = Knowledge(nature="outline", burden="size")
"""A teacher with two wrong rules: it would fix one of the students' mistakes, share the other and add a new one."""


def facts(scene: Scene, knowledge: Knowledge = TRUTH) -> dict[str, str]:
    """Everything that somebody with `knowledge` would say about `scene`, by name: what is seen, then what follows."""
    seen = {name: getattr(scene, name) for name in ATTRIBUTES}
    known = {"texture": scene.texture, "modality": scene.modality, **seen}
    return known | conclusions(known, knowledge)


def conclusions(seen: Mapping[str, str], knowledge: Knowledge = TRUTH) -> dict[str, str]:
    """What follows from `seen`, the value of every attribute, by somebody's rules."""
    deciding = {judgement: getattr(knowledge, judgement) for judgement in JUDGEMENTS}
    judged = {judgement: JUDGEMENTS[judgement][by][seen[by]] for judgement, by in deciding.items()}
    disease = _DISEASE[judged["nature"], judged["behaviour"]]
    return {
        "region": _REGION[seen["side"], seen["outline"]],
        **judged,
        "disease": disease,
        "grade": _GRADE[judged["burden"], judged["behaviour"]],
        "decision": _DECISION[disease, judged["burden"]],
    }
