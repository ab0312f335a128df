"""Hints out of a bank, and out of the teacher where the bank has none; these are added to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kepo.exploration.bank import HintBank
from kepo.exploration.bank_lines import BankedHint, to_banked
from kepo.exploration.hints import HintAnswers, HintSource, TeacherHints, audited_hint, request_for
from kepo.exploration.settings import ExplorationSettings
from kepo.files import content_hash
from kepo.teachers.base import HintWriter
from kepo.types import Group, Hint

ANY_TEACHER = "any"
"""In place of a teacher's name: hints of whoever wrote them."""

Caller: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Makes a call that may raise a `KepoError`, and returns what it returns."""


@dataclass(frozen=True)
class BankedHints(HintSource):
    """Hints of a bank under `settings.hint_leak_policy`; the teacher is asked only about groups without a line in it.

    What the bank has counts as tried: the teacher is not asked again where all of it leaks. Its new answers are added
    to the bank, empty ones aside, so that a teacher that was away is asked another time.

    Attributes:
        bank: Read, and added to.
        writer: Writes what is missing, in `settings.hint_calls_per_level` calls whatever the bank holds; None: it stays
            missing.
        settings: How often the writer is called, and the leak policy.
        read_from: Whose hints are read, before the writer's own: a teacher's name, or `ANY_TEACHER`. None: only the
            writer's, or anyone's where there is no writer.
        through: Makes the calls that read and write the bank's file, so that the processes of a training can fail
            together.
    """

    bank: HintBank
    writer: HintWriter | None
    settings: ExplorationSettings
    read_from: str | None = None
    through: Caller = field(default=lambda call: call(), kw_only=True)

    @property
    def early(self) -> bool:
        """Whether what is missing is written elsewhere."""
        return self.writer is not None and TeacherHints(self.writer, self.settings).early

    def begin(self, groups: Sequence[Group], level: int) -> HintAnswers:
        """See `HintSource.begin`: the bank is read now, and the teacher asked."""
        hashes = [_content_hash(group, level) for group in groups]
        self.through(self.bank.refresh)
        banked = [
            _from_bank(self.bank, key, self._teachers, group, self.settings.hint_leak_policy)
            for key, group in zip(hashes, groups, strict=True)
        ]
        if self.writer is None:
            return lambda: banked
        # A question may have several groups; it is asked about once.
        missing = {key: group for key, group, hints in zip(hashes, groups, banked, strict=True) if key and not hints}
        answers = TeacherHints(self.writer, self.settings).begin(list(missing.values()), level)

        def finish() -> list[tuple[Hint, ...]]:
            written = dict(zip(missing, answers(), strict=True))
            self._add(written, missing)
            return [hints or written.get(key, ()) for key, hints in zip(hashes, banked, strict=True)]

        return finish

    @property
    def _teachers(self) -> Sequence[str | None]:
        """Whose hints are read, in this order; None stands for anyone's."""
        writer = None if self.writer is None else self.writer.name
        names = [name for name in (self.read_from, writer) if name is not None]
        return [None] if self.read_from == ANY_TEACHER or not names else names

    def _add(self, written: Mapping[str, tuple[Hint, ...]], groups: Mapping[str, Group]) -> None:
        """Put new hints into the bank; both by content hash."""
        assert self.writer is not None
        name = self.writer.name
        new = [to_banked(hint, groups[key].key, name, key) for key, hints in written.items() for hint in hints]
        self.through(lambda: self.bank.add(new))


def _content_hash(group: Group, level: int) -> str:
    """Of the request for the group's hints; "" where there is nothing to ask."""
    request = request_for(group, level)
    return "" if request is None else content_hash(request)


def _from_bank(
    bank: HintBank, key: str, teachers: Sequence[str | None], group: Group, leak_policy: str
) -> tuple[Hint, ...]:
    """The hints of the first of `teachers` who has any, as the leak policy shows them; of equal texts the first."""
    found = next((hints for name in teachers if (hints := bank.find(key, name))), ())
    first: dict[str, BankedHint] = {}
    for hint in found:
        first.setdefault(hint.text, hint)
    # Audited as it stands in the file, where it may have been fixed by hand.
    return tuple(
        audited_hint(hint.text, group, hint.level, leak_policy, raw=hint.raw, banked=True) for hint in first.values()
    )
