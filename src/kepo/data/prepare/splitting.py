"""Which split a question is in, and which questions of a split are drawn.

Draws are ranks: a hash of the seed and of what is drawn. The order of the files does not matter, and a question that is
added or falls away changes the draw of its own stratum only.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from kepo.data.prepare.settings import PrepareSettings
from kepo.data.sources import Unusable, shortened
from kepo.data.split import groups_sharing
from kepo.types import SPLITS, Question

_Key = TypeVar("_Key", bound=Hashable)
_One = TypeVar("_One")
_Counts: TypeAlias = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Item:
    """A question, and the file and row it comes from; equal `contents` are equal images, whatever their names."""

    question: Question
    contents: tuple[str, ...] = ()
    file: str = ""
    row: int = 0

    def unusable(self, field: str, reason: str, value: Any) -> Unusable:
        """The record of its row, for which no place in a split was found."""
        return Unusable(self.file, self.row, field, reason, shortened(value))


LEFT_OUT = "left_out"
"""Questions that are in no split, because their image is in another one of the given split."""


def split_items(items: Sequence[Item], settings: PrepareSettings) -> dict[str, list[int]]:
    """The split that `settings` (resolved) ask for: its name -> indices of its items, in their order.

    Every modality, or every question type of a modality, gives the same share of its questions to a split, as closely
    as images with several questions allow. Where one image may not be in two given splits, `LEFT_OUT` has the
    training questions whose image is in a later split, and the validation questions whose image is in the test split.
    """
    left_out: list[int] = []
    if settings.split == "given":
        by_split = _by(range(len(items)), lambda index: items[index].question.metadata["split"])
        train, validation, test = (by_split[split] for split in SPLITS)
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


def _without(items: Sequence[Item], part: Sequence[int], other: Sequence[int]) -> tuple[list[int], list[int]]:
    """(indices of `part` that share no image with `other`, the rest)."""
    taken = {content for index in other for content in items[index].contents}
    shared = {index for index in part if taken.intersection(items[index].contents)}
    return [index for index in part if index not in shared], sorted(shared)


def _taken_from(
    items: Sequence[Item], pool: Sequence[int], share: float, settings: PrepareSettings, purpose: str
) -> tuple[list[int], list[int]]:
    """(rest, part): `share` of every stratum of `pool`; units of questions that share an image stay together."""
    strata = {index: _stratum(items[index].question, settings) for index in pool}
    missing = _targets(Counter(strata.values()), share)
    units = [[index] for index in pool]
    if settings.image_disjoint:
        places = groups_sharing([items[index].contents for index in pool])
        units = [[pool[place] for place in unit] for unit in places]
    units.sort(key=lambda unit: _rank(min(items[index].question.id for index in unit), settings.seed, purpose))
    part: set[int] = set()
    # First what fits; what is still missing then is filled by units that come closer on the whole.
    for accepts in (_fits, _comes_closer):
        for unit in units:
            counts = Counter(strata[index] for index in unit)
            if part.isdisjoint(unit) and accepts(counts, missing):
                part.update(unit)
                for stratum, count in counts.items():
                    missing[stratum] -= count
    return [index for index in pool if index not in part], [index for index in pool if index in part]


def _fits(counts: _Counts, missing: _Counts) -> bool:
    return all(count <= missing[stratum] for stratum, count in counts.items())


def _comes_closer(counts: _Counts, missing: _Counts) -> bool:
    after = sum(abs(missing[stratum] - count) for stratum, count in counts.items())
    return after < sum(abs(missing[stratum]) for stratum in counts)


def _stratum(question: Question, settings: PrepareSettings) -> tuple[str, str]:
    return question.modality or "", "" if settings.split == "paper" else question.task or ""


def _targets(counts: _Counts, share: float) -> dict[tuple[str, str], int]:
    """How many questions of each (modality, question type) go to a part: in all of a modality, the share rounded."""
    targets: dict[tuple[str, str], int] = {}
    for strata in _by(counts, lambda stratum: stratum[0]).values():
        group = {stratum: counts[stratum] for stratum in strata}
        targets.update(quotas(group, round(share * sum(group.values()))))
    return targets


def _rank(name: str, seed: int, purpose: str) -> str:
    """A number between 0 and 2^256, drawn for `name`, as text that sorts like it."""
    return hashlib.sha256(f"{seed}\n{purpose}\n{name}".encode()).hexdigest()


def draw(items: Sequence[Item], part: Sequence[int], count: int | None, seed: int, purpose: str) -> list[int]:
    """`count` questions of each modality of a split (None: all), in the order of `part`, the indices to draw from.

    Question types and collections keep their shares of the modality (largest remainder). Draws for different purposes
    are independent of each other.
    """
    if count is None:
        return list(part)
    drawn: set[int] = set()
    for pool in _by(part, lambda index: items[index].question.modality).values():
        strata = _by(pool, lambda index: _within_modality(items[index].question))
        wanted = quotas({key: len(members) for key, members in strata.items()}, min(count, len(pool)))
        for key, members in strata.items():
            ranked = sorted(members, key=lambda index: _rank(items[index].question.id, seed, purpose))
            drawn.update(ranked[: wanted[key]])
    return [index for index in part if index in drawn]


def _by(pool: Iterable[_One], key: Callable[[_One], _Key]) -> dict[_Key, list[_One]]:
    groups: dict[_Key, list[_One]] = defaultdict(list)
    for one in pool:
        groups[key(one)].append(one)
    return groups


def _within_modality(question: Question) -> tuple[str, str]:
    return question.task or "", str(question.metadata["dataset"])


def quotas(counts: _Counts, total: int) -> dict[tuple[str, str], int]:
    """`total` (0..sum of `counts`) in proportion to `counts` by the largest remainder; ties go to the first key."""
    available = sum(counts.values())
    if not available:
        return dict.fromkeys(counts, 0)
    # Whole numbers throughout, so that no rounding of a quotient decides who gets the last one.
    shares = {key: divmod(total * count, available) for key, count in counts.items()}
    left = total - sum(whole for whole, _ in shares.values())
    by_remainder = sorted(sorted(shares), key=lambda key: -shares[key][1])
    extra = set(by_remainder[:left])
    return {key: whole + (key in extra) for key, (whole, _) in shares.items()}
