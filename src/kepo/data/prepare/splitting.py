"""Which split a question is in, and which questions of a split are drawn.

Draws are ranks: a hash of the seed and of what is drawn. The order of the files does not matter, and a question that is
added or falls away changes the draw of its own stratum only.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kepo.data.prepare.settings import PrepareSettings
from kepo.data.split import groups_sharing
from kepo.types import SPLITS, Question

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Item:
    """A question that can be used.

    Attributes:
        question: With its images as the source gives them.
        contents: What its images show, one key per image: equal keys are equal images, whatever their names.
    """

    question: Question
    contents: tuple[str, ...]


LEFT_OUT = "left_out"
"""Questions that are in no split, because their image is in another one of the given split."""


def split_items(items: Sequence[Item], settings: PrepareSettings) -> dict[str, list[int]]:
    """The split that `settings` (resolved) ask for.

    Every modality, or every question type of a modality, gives the same share of its questions to a split, as closely
    as images with several questions allow.

    Returns:
        Split -> indices of its items, in their order. `LEFT_OUT` -> those of a given training or validation split whose
        image is in the test split, or of the training split whose image is in the validation split; only where one
        image may not be in two splits.
    """
    left_out: list[int] = []
    if settings.split == "given":
        train, validation, test = (_given(items, split) for split in SPLITS)
        if settings.image_disjoint:
            validation, shared = _without(items, validation, test)
            train, more = _without(items, train, [*test, *validation])
            left_out = sorted([*shared, *more])
    else:
        train, test = _taken_from(items, range(len(items)), settings.test_share, settings, "test")
        validation = []
    if not validation and settings.validation != 0:
        train, validation = _taken_from(items, train, settings.validation_share, settings, "validation")
    return {"train": train, "validation": validation, "test": test, LEFT_OUT: left_out}


def _given(items: Sequence[Item], split: str) -> list[int]:
    return [index for index, item in enumerate(items) if item.question.metadata["split"] == split]


def _without(items: Sequence[Item], part: Sequence[int], other: Sequence[int]) -> tuple[list[int], list[int]]:
    """(indices of `part` that share no image with `other`, the rest)."""
    taken = {content for index in other for content in items[index].contents}
    shared = {index for index in part if taken.intersection(items[index].contents)}
    return [index for index in part if index not in shared], sorted(shared)


def _taken_from(
    items: Sequence[Item], pool: Sequence[int], share: float, settings: PrepareSettings, purpose: str
) -> tuple[list[int], list[int]]:
    """(rest, part): `share` of every stratum of `pool`, in units that are not torn apart."""
    strata = {index: _stratum(items[index].question, settings) for index in pool}
    missing = _targets(Counter(strata.values()), share)
    if settings.image_disjoint:
        places = groups_sharing([items[index].contents for index in pool])
        units = [[pool[place] for place in unit] for unit in places]
    else:
        units = [[index] for index in pool]
    ranked = sorted(units, key=lambda unit: _rank(items, unit, settings.seed, purpose))
    part: set[int] = set()
    # First what fits; what is still missing then is filled by units that come closer on the whole.
    for accepts in (_fits, _comes_closer):
        for unit in ranked:
            counts = Counter(strata[index] for index in unit)
            if part.isdisjoint(unit) and accepts(counts, missing):
                part.update(unit)
                for stratum, count in counts.items():
                    missing[stratum] -= count
    return [index for index in pool if index not in part], [index for index in pool if index in part]


def _fits(counts: Mapping[tuple[str, str], int], missing: Mapping[tuple[str, str], int]) -> bool:
    return all(count <= missing[stratum] for stratum, count in counts.items())


def _comes_closer(counts: Mapping[tuple[str, str], int], missing: Mapping[tuple[str, str], int]) -> bool:
    after = sum(abs(missing[stratum] - count) for stratum, count in counts.items())
    return after < sum(abs(missing[stratum]) for stratum in counts)


def _stratum(question: Question, settings: PrepareSettings) -> tuple[str, str]:
    return question.modality or "", "" if settings.split == "paper" else question.task or ""


def _targets(counts: Mapping[tuple[str, str], int], share: float) -> dict[tuple[str, str], int]:
    """How many questions of each (modality, question type) go to a part: in all of a modality, the share rounded."""
    by_modality: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for stratum, count in counts.items():
        by_modality[stratum[0]][stratum] = count
    targets: dict[tuple[str, str], int] = {}
    for group in by_modality.values():
        targets.update(quotas(group, round(share * sum(group.values()))))
    return targets


def _rank(items: Sequence[Item], unit: Sequence[int], seed: int, purpose: str) -> str:
    return rank(min(items[index].question.id for index in unit), seed, purpose)


def rank(name: str, seed: int, purpose: str) -> str:
    """A number between 0 and 2^256, drawn for `name`, as text that sorts like it."""
    return hashlib.sha256(f"{seed}\n{purpose}\n{name}".encode()).hexdigest()


def draw(items: Sequence[Item], part: Sequence[int], count: int | None, seed: int, purpose: str) -> list[int]:
    """`count` questions of each modality of a split, or all there are, in the order of `part`.

    Question types and collections keep their shares of the modality (largest remainder).

    Args:
        items: What the indices stand for.
        part: Indices to draw from.
        count: Questions per modality; None for all.
        seed: Seeds the draw.
        purpose: Draws for different purposes are independent of each other.
    """
    if count is None:
        return list(part)
    drawn: set[int] = set()
    for pool in _by(part, lambda index: items[index].question.modality).values():
        strata = _by(pool, lambda index: _within_modality(items[index].question))
        wanted = quotas({key: len(members) for key, members in strata.items()}, min(count, len(pool)))
        for key, members in strata.items():
            ranked = sorted(members, key=lambda index: rank(items[index].question.id, seed, purpose))
            drawn.update(ranked[: wanted[key]])
    return [index for index in part if index in drawn]


def _by(pool: Sequence[int], key: Callable[[int], _Key]) -> dict[_Key, list[int]]:
    groups: dict[_Key, list[int]] = defaultdict(list)
    for index in pool:
        groups[key(index)].append(index)
    return groups


def _within_modality(question: Question) -> tuple[str, str]:
    return question.task or "", str(question.metadata["dataset"])


def quotas(counts: Mapping[tuple[str, str], int], total: int) -> dict[tuple[str, str], int]:
    """`total` shared out in proportion to `counts` by the largest remainder; ties go to the first key in sorted order.

    Args:
        counts: How many there are of each key, >= 0.
        total: How many to share out, 0..sum of `counts`.

    Returns:
        For each key 0..its count; together `total`.
    """
    available = sum(counts.values())
    if not available:
        return dict.fromkeys(counts, 0)
    # Whole numbers throughout, so that no rounding of a quotient decides who gets the last one.
    shares = {key: divmod(total * count, available) for key, count in counts.items()}
    left = total - sum(whole for whole, _ in shares.values())
    by_remainder = sorted(sorted(shares), key=lambda key: -shares[key][1])
    extra = set(by_remainder[:left])
    return {key: whole + (key in extra) for key, (whole, _) in shares.items()}
