"""Train and evaluation questions, drawn so that no image is in both."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from kepo.errors import DataError
from kepo.files import image_hash
from kepo.types import Question


def split_disjoint(
    questions: Sequence[Question], num_train: int | None, num_eval: int, seed: int
) -> tuple[list[Question], list[Question]]:
    """Draws `num_eval` questions for evaluation, then `num_train` of the rest for training.

    Questions that share an image (directly, or through a question that has both images) stay together, and so do
    questions without images that read the same. What is drawn for evaluation depends on `seed` only, not on
    `num_train`. Both keep the order of `questions`.

    Args:
        questions: Where to draw from.
        num_train: How many to train on; None: all that are not drawn for evaluation.
        num_eval: How many to evaluate on; 0 for none.
        seed: Seeds the draw.

    Raises:
        DataError: more are asked for than there are.
    """
    total = len(questions)
    wanted = num_eval + (num_train or 0)
    if num_eval < 0 or (num_train is not None and num_train < 1):
        raise DataError(f"num_train={num_train}, num_eval={num_eval}: num_train is at least 1, num_eval at least 0")
    if wanted > total or (num_train is None and num_eval >= total):
        asked = f"{num_train} for training" if num_train is not None else "the rest for training"
        raise DataError(
            f"{asked} and {num_eval} for evaluation were asked for, but there are {total} questions; lower num_train "
            "or num_eval, or widen the filters"
        )
    groups = _groups(questions)
    random.Random(seed).shuffle(groups)
    evaluation: list[int] = []
    while len(evaluation) < num_eval:
        evaluation += groups.pop()
    rest = [index for group in groups for index in group]
    if len(rest) < (num_train or 1):
        held = len(evaluation) - num_eval
        raise DataError(
            f"num_train={num_train} and num_eval={num_eval} do not fit into {total} questions: {len(rest)} are left "
            f"for training, because {held} share an image with those for evaluation; lower num_train or num_eval"
        )
    train = rest if num_train is None else rest[:num_train]
    return [questions[i] for i in sorted(train)], [questions[i] for i in sorted(evaluation[:num_eval])]


def _groups(questions: Sequence[Question]) -> list[list[int]]:
    return groups_sharing([_contents(question) for question in questions])


def groups_sharing(contents: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Indices of what must stay together, in order of their first one.

    Args:
        contents: What each one holds; two that hold the same, directly or through others, are in one group.
    """
    parent = list(range(len(contents)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[Hashable, int] = {}
    for index, held in enumerate(contents):
        for content in held:
            one, other = find(index), find(first_with.setdefault(content, index))
            parent[max(one, other)] = min(one, other)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(contents)):
        groups[find(index)].append(index)
    return list(groups.values())


def _contents(question: Question) -> list[Hashable]:
    if not question.images:
        return [(question.text, question.options)]
    return [_content(image) for image in question.images]


def _content(image: Any) -> Hashable:
    if isinstance(image, str | Path):
        return str(image)
    return image_hash(image)
