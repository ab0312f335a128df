"""The chains of PhantomVQA's questions: what has to be stated, in which order, to come to the answer.

A chain is written as statements, "size large; behaviour invasive; ...". Every statement rests on those before it, so
an early slip spoils what follows.
"""

from __future__ import annotations

from collections.abc import Mapping

from kepo.data.omnimedvqa import MODALITIES
from kepo.phantom.knowledge import JUDGEMENTS, TRUTH, Knowledge
from kepo.phantom.scene import ATTRIBUTES

_STEPS: dict[str, tuple[str, ...]] = {
    "modality": ("texture", "modality"),
    "region": ("outline", "side", "region"),
    "count": ("side", "count"),
    "border": ("count", "border"),
    "size": ("count", "size"),
    "tone": ("count", "tone"),
    "disease": ("nature", "behaviour", "disease"),
    "grade": ("burden", "behaviour", "grade"),
    "decision": ("nature", "behaviour", "disease", "burden", "decision"),
}

VALUES: dict[str, tuple[str, ...]] = {
    "modality": MODALITIES,
    "region": ("left lobe", "right lobe", "left pole", "right pole"),
    "count": ATTRIBUTES["count"],
    "border": ATTRIBUTES["border"],
    "size": ATTRIBUTES["size"],
    "tone": ATTRIBUTES["tone"],
    "disease": ("carcinoma", "adenoma", "abscess", "cyst"),
    "grade": ("minimal", "mild", "moderate", "severe"),
    "decision": ("surgery", "biopsy", "drainage", "monitoring"),
}
"""What is asked for -> the values it can have, all equally likely."""


def steps(target: str, knowledge: Knowledge = TRUTH) -> tuple[str, ...]:
    """The names stated on the way to `target`, in order, the target last; 2 to 8 of them.

    Every judgement is preceded by the attribute it is made by, which depends on `knowledge`.
    """
    names: list[str] = []
    for name in _STEPS[target]:
        names += [getattr(knowledge, name), name] if name in JUDGEMENTS else [name]
    return tuple(names)


def write_reasoning(target: str, said: Mapping[str, str], knowledge: Knowledge = TRUTH) -> str:
    """The chain to `target` as text; `said` holds the value of every name of `steps(target, knowledge)`."""
    return "; ".join(f"{name} {said[name]}" for name in steps(target, knowledge))


def write_hint(target: str, level: int, said: Mapping[str, str], knowledge: Knowledge = TRUTH) -> str:
    """The hint of a teacher with `knowledge`, by level as in `kepo.prompts.HINT_LEVELS`.

    Level 0 names by what the FIRST judgement is made, level 1 by what each is made, level 2 states all but the last
    step. A question without judgement gets, at levels 0 and 1, the names of what leads to the answer.
    """
    if level >= 2:
        return "; ".join(f"{name} {said[name]}" for name in steps(target, knowledge)[:-1])
    judgements = [name for name in _STEPS[target] if name in JUDGEMENTS]
    if not judgements:
        return f"{target} by {' and '.join(steps(target)[:-1])}"
    rules = [f"{name} by {getattr(knowledge, name)}" for name in judgements]
    return rules[0] if level == 0 else "; ".join(rules)
