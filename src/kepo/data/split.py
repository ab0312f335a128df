"""Train and evaluation questions, drawn so that no image is in both, and copies with their options in another order."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kepo.data.contents import contents_of, text_key
from kepo.data.option_order import shuffled
from kepo.errors import ConfigError, DataError
from kepo.files import image_hash
from kepo.types import Question

logger = logging.getLogger(__name__)


def split_disjoint(
    questions: Sequence[Question], num_train: int | None, num_eval: int, seed: int
) -> tuple[list[Question], list[Question]]:
    """Draws `num_eval` questions for evaluation, then `num_train` of the rest (None: all) for training.

    Questions that share an image (directly, or through a question that has both images) stay together, and so do
    questions without images that read the same. What is drawn for evaluation depends on `seed` only, not on
    `num_train`. Both keep the order of `questions`.

    Raises:
        DataError: more are asked for than there are.
    """
    total = len(questions)
    wanted = num_eval + (num_train or 0)
    if num_eval < 0 or (num_train is not None and num_train < 1):
        raise DataError(f"num_train={num_train}, num_eval={num_eval}: num_train is at least 1, num_eval at least 0")
    if wanted > total or (num_train is None and num_eval >= total):
        asked = f"{num_train} for training" if num_train is not None else "the rest for training"
        problem = f"{asked} and {num_eval} for evaluation were asked for, but there are {total} questions"
        raise DataError(f"{problem}; lower num_train or num_eval, or widen the filters")
    groups = groups_sharing(_contents(questions, by_pixels=num_eval > 0))
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


def groups_sharing(contents: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Indices in groups, in order of their first one: two that hold the same `contents` are in one, also by others."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes: dict[Hashable, int] = {}
    # Every content is a node too, numbered after the indices.
    edges = [(i, len(contents) + nodes.setdefault(one, len(nodes))) for i, held in enumerate(contents) for one in held]
    size, pairs = len(contents) + len(nodes), np.array(edges, dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    groups: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(connected_components(graph, directed=False)[1][: len(contents)].tolist()):
        groups[label].append(index)
    return list(groups.values())


def _contents(questions: Sequence[Question], by_pixels: bool) -> list[Sequence[Hashable]]:
    """What may not be in two splits: the images of each question, or its text where it has none."""
    if by_pixels:
        # A file that cannot be decoded is reported by `check_images`, with all others.
        return [one.images or (one.text,) for one in contents_of(questions, strict=False)]
    return [tuple(map(_name, one.images)) or (text_key(one.text, one.options),) for one in questions]


def _name(image: Any) -> str:
    return str(image) if isinstance(image, str | Path) else image_hash(image)


def shuffle_options(questions: Sequence[Question], copies: int, seed: int) -> list[Question]:
    """`questions`, then `copies` (>= 0) copies of each with its options in another order, ids `ID~1`, `ID~2`, ...

    Open questions have none, and questions whose options refer to others by place ("Both A and B") have none; how many
    these are is said. A policy can only learn to match an option's text to its letter if the letter changes.
    """
    if copies < 0:
        raise ConfigError(f"option_shuffles is {copies}; give a whole number of at least 0.")
    order = random.Random(seed)
    closed = [question for question in questions if question.options]
    drawn = [(one, copy, shuffled(one, order)) for copy in range(1, copies + 1) for one in closed]
    kept = sum(copy == 1 and other is None for _, copy, other in drawn)
    if kept:
        logger.warning(
            "%d of %d questions keep the order of their options, because these refer to each other.", kept, len(closed)
        )
    return [*questions, *(replace(other, id=f"{one.id}~{copy}") for one, copy, other in drawn if other is not None)]
