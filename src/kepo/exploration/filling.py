"""Filling a bank ahead of training: which hints it lacks for a set of questions, and having them written.

What is missing is told by the bank alone, so a stopped run goes on where it was and a finished one has nothing to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kepo.errors import ConfigError, KepoError
from kepo.exploration.bank import HintBank
from kepo.exploration.bank_lines import BankedHint, audited_hint
from kepo.exploration.hints import has_answer
from kepo.exploration.settings import LEAK_POLICIES
from kepo.files import content_hash
from kepo.prompts import HINT_LEVELS, hint_request, hint_request_again
from kepo.teachers.base import HintWriter
from kepo.types import Conversation, Group


@dataclass(frozen=True, slots=True)
class FillSettings:
    """How many hints a bank is to hold.

    Attributes:
        levels: N, levels 0..N-1 of `kepo.prompts.HINT_LEVELS`.
        per_question: M >= 1, hints per question and level.
        leak_policy: "ask_again" asks for another hint in place of one that leaks; with every other policy a hint that
            leaks counts among the M, and it is the reader's policy that decides about it.
        retries: How often "ask_again" asks again, >= 0.
        batch_size: Requests after which the answers are written to the file, >= 1.
        seed: Of sampling.

    Raises:
        ConfigError: A value that cannot work.
    """

    levels: int = len(HINT_LEVELS)
    per_question: int = 1
    leak_policy: str = "reject"
    retries: int = 2
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= len(HINT_LEVELS):
            raise ConfigError(f"levels is {self.levels}; give 1 to {len(HINT_LEVELS)}.")
        for name, least in (("per_question", 1), ("retries", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least {least}.")
        if self.leak_policy not in LEAK_POLICIES:
            raise ConfigError(f"leak_policy is {self.leak_policy!r}; use one of {', '.join(LEAK_POLICIES)}.")

    @property
    def rounds(self) -> int:
        """How often a question is asked about at most, for each of its M hints."""
        return 1 + (self.retries if self.leak_policy == "ask_again" else 0)

    def lacking(self, tried: Sequence[BankedHint]) -> int:
        """Hints that are still to be asked for where the teacher has written `tried`."""
        budget = self.per_question * self.rounds - len(tried)
        counted = [hint for hint in tried if self.leak_policy != "ask_again" or (hint.text and not hint.leaks)]
        return max(min(self.per_question - len(counted), budget), 0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The hints of one question at one level.

    Attributes:
        place: Index of the question.
        level: Index into `kepo.prompts.HINT_LEVELS`.
        address: What the teacher is asked.
        lacking: How many the bank lacks.
    """

    place: int
    level: int
    address: str
    lacking: int


def wanted_hints(bank: HintBank, groups: Iterable[Group], teacher: str, settings: FillSettings) -> list[Wanted]:
    """What the bank is to hold for `groups`, level by level of each; questions that are asked alike count once.

    Args:
        bank: What is there.
        groups: The questions, each with its prompt, images included; read one at a time.
        teacher: Name of the teacher.
        settings: How many hints.
    """
    found: dict[str, Wanted] = {}
    for place, group in enumerate(groups):
        for level in range(settings.levels if has_answer(group) else 0):
            address = content_hash(_request(group, level))
            lacking = settings.lacking(bank.find(address, teacher))
            found.setdefault(address, Wanted(place, level, address, lacking))
    return list(found.values())


def fill(
    bank: HintBank,
    wanted: Sequence[Wanted],
    group_of: Callable[[int], Group],
    writer: HintWriter,
    settings: FillSettings,
    *,
    seed: Callable[[int], None] = lambda _: None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Have the hints that the bank lacks written, and add them batch by batch.

    Args:
        bank: Added to; it is whole after every batch.
        wanted: Of `wanted_hints`.
        group_of: The question at a place, see `Wanted.place`.
        writer: The teacher. An empty answer is not kept, so that the next run asks again.
        settings: How many hints.
        seed: Called before each batch with a seed that names its first request and how far it is.
        advance: Called after each batch with the number of hints that it was about.

    Raises:
        KepoError: The writer returned a list of the wrong length.
    """
    for batch in _batches([one for one in wanted if one.lacking], settings.batch_size):
        first = batch[0].address
        seed(_seed(settings.seed, first, len(bank.find(first, writer.name))))
        groups = {place: group_of(place) for place in {one.place for one in batch}}
        for _ in range(settings.rounds):
            asked = [
                (one, request)
                for one in batch
                for request in _requests(groups[one.place], one, bank.find(one.address, writer.name), settings)
            ]
            if not asked:
                break
            answers = writer.write_hints([request for _, request in asked])
            if len(answers) != len(asked):
                raise KepoError(f"the hint writer returned {len(answers)} hints for {len(asked)} requests.")
            bank.add(
                audited_hint(raw, address=one.address, teacher=writer.name, level=one.level, group=groups[one.place])
                for (one, _), raw in zip(asked, answers, strict=True)
                if raw.strip()
            )
        advance(sum(one.lacking for one in batch))


def _request(group: Group, level: int) -> Conversation:
    return hint_request(group.prompt, group.answer or "", group.options, level)


def _requests(group: Group, wanted: Wanted, tried: Sequence[BankedHint], settings: FillSettings) -> list[Conversation]:
    """One request for each hint that is lacking; those in place of a leak say what was wrong with it."""
    lacking = settings.lacking(tried)
    plain = _request(group, wanted.level)
    leaked = [hint.text for hint in tried if hint.leaks] if settings.leak_policy == "ask_again" else []
    again = [hint_request_again(plain, text) for text in leaked[-lacking:]] if lacking else []
    return [*again, *[plain] * (lacking - len(again))]


def _batches(wanted: Sequence[Wanted], size: int) -> Iterator[list[Wanted]]:
    """Consecutive entries, as many as ask for `size` hints or just more."""
    batch: list[Wanted] = []
    for one in wanted:
        batch.append(one)
        if sum(entry.lacking for entry in batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _seed(seed: int, address: str, done: int) -> int:
    """0..2**63-1: another one for every request and for every hint of it, whatever else is asked."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{address}:{done}".encode()).digest()[:8], "big") >> 1
