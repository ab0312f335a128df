"""Filling a bank ahead of training: which hints it lacks for a set of questions, and having them written.

What is missing is told by the bank alone, so a stopped run goes on where it was and a finished one has nothing to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kepo.errors import ConfigError, check_choice, check_whole
from kepo.exploration.bank import HintBank
from kepo.exploration.bank_lines import BankedHint, to_banked
from kepo.exploration.hints import ask_writer, read_hint, request_for
from kepo.exploration.settings import LEAK_POLICIES
from kepo.files import content_hash
from kepo.prompts import HINT_LEVELS, hint_request_again
from kepo.teachers.base import HintWriter
from kepo.types import Conversation, Group


@dataclass(frozen=True, slots=True)
class FillSettings:
    """How many hints a bank is to hold.

    Attributes:
        levels: N, levels 0..N-1 of `kepo.prompts.HINT_LEVELS`.
        per_question: M >= 1, hints per question and level.
        hint_leak_policy: "ask_again" asks for another hint in place of one that leaks; with every other policy a hint
            that leaks counts among the M, and it is the reader's policy that decides about it.
        hint_retries: How often "ask_again" asks again, >= 0.
        batch_size: Requests after which the answers are written to the file, >= 1.
        seed: Of sampling.

    Raises:
        ConfigError: A value that cannot work.
    """

    levels: int = len(HINT_LEVELS)
    per_question: int = 1
    hint_leak_policy: str = "reject"
    hint_retries: int = 2
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= len(HINT_LEVELS):
            raise ConfigError(f"levels is {self.levels}; give 1 to {len(HINT_LEVELS)}.")
        for name, least in (("per_question", 1), ("hint_retries", 0), ("batch_size", 1)):
            check_whole(name, getattr(self, name), at_least=least)
        check_choice("hint_leak_policy", self.hint_leak_policy, LEAK_POLICIES)

    @property
    def rounds(self) -> int:
        """How often a question is asked about at most, for each of its M hints."""
        return 1 + (self.hint_retries if self.hint_leak_policy == "ask_again" else 0)

    def lacking(self, tried: Sequence[BankedHint]) -> int:
        """Hints that are still to be asked for where the teacher has written `tried`."""
        budget = self.per_question * self.rounds - len(tried)
        counted = [hint for hint in tried if self.hint_leak_policy != "ask_again" or (hint.text and not hint.leaks)]
        return max(min(self.per_question - len(counted), budget), 0)


@dataclass(frozen=True, slots=True)
class HintQuota:
    """The hints that a bank is to hold of one question at one level.

    Attributes:
        place: Index of the question.
        level: Index into `kepo.prompts.HINT_LEVELS`.
        content_hash: Of what the teacher is asked.
        lacking: How many the bank lacks.
    """

    place: int
    level: int
    content_hash: str
    lacking: int


def hint_quotas(bank: HintBank, groups: Iterable[Group], teacher: str, settings: FillSettings) -> list[HintQuota]:
    """What the bank is to hold for `groups`, level by level of each; questions that are asked alike count once.

    Args:
        bank: What is there.
        groups: The questions, each with its prompt, images included; read one at a time.
        teacher: Name of the teacher.
        settings: How many hints.
    """
    found: dict[str, HintQuota] = {}
    for place, group in enumerate(groups):
        for level in range(settings.levels):
            request = request_for(group, level)
            if request is not None:
                key = content_hash(request)
                found.setdefault(key, HintQuota(place, level, key, settings.lacking(bank.find(key, teacher))))
    return list(found.values())


def fill(
    bank: HintBank,
    quotas: Sequence[HintQuota],
    group_of: Callable[[int], Group],
    writer: HintWriter,
    settings: FillSettings,
    *,
    seed: Callable[[int], None] = lambda _: None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Have the hints that the bank lacks written, and add them batch by batch.

    Args:
        bank: Added to; it is whole after every batch. An empty answer is not kept, so that the next run asks again.
        quotas: Of `hint_quotas`.
        group_of: The question at a place, see `HintQuota.place`.
        writer: The teacher.
        settings: How many hints.
        seed: Called before each batch with a seed that names its first request and how far it is.
        advance: Called after each batch with the number of hints that it was about.

    Raises:
        KepoError: The writer returned a list of the wrong length.
    """
    for batch in _batches([quota for quota in quotas if quota.lacking], settings.batch_size):
        first = batch[0].content_hash
        seed(_seed(settings.seed, first, len(bank.find(first, writer.name))))
        group_at = {place: group_of(place) for place in {quota.place for quota in batch}}
        groups = [group_at[quota.place] for quota in batch]
        for _ in range(settings.rounds):
            asked = [
                (quota, group, request)
                for quota, group in zip(batch, groups, strict=True)
                for request in _requests(group, quota, bank.find(quota.content_hash, writer.name), settings)
            ]
            if not asked:
                break
            answers = ask_writer(writer, [request for _, _, request in asked])
            bank.add(
                to_banked(read_hint(raw, group, quota.level), group.key, writer.name, quota.content_hash)
                for (quota, group, _), raw in zip(asked, answers, strict=True)
            )
        advance(sum(quota.lacking for quota in batch))


def _requests(
    group: Group, quota: HintQuota, tried: Sequence[BankedHint], settings: FillSettings
) -> list[Conversation]:
    """One request for each hint that is lacking; those in place of a leak say what was wrong with it."""
    lacking, plain = settings.lacking(tried), request_for(group, quota.level)
    if not lacking or plain is None:
        return []
    leaked = [hint.text for hint in tried if hint.leaks] if settings.hint_leak_policy == "ask_again" else []
    again = [hint_request_again(plain, text) for text in leaked[-lacking:]]
    return [*again, *[plain] * (lacking - len(again))]


def _batches(quotas: Sequence[HintQuota], size: int) -> Iterator[list[HintQuota]]:
    """Consecutive entries, as many as ask for `size` hints or just more."""
    batch: list[HintQuota] = []
    for quota in quotas:
        batch.append(quota)
        if sum(entry.lacking for entry in batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _seed(seed: int, request_hash: str, done: int) -> int:
    """0..2**63-1: another one for every request and for every hint of it, whatever else is asked."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{request_hash}:{done}".encode()).digest()[:8], "big") >> 1
