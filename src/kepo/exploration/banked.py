"""Hints out of a bank, and out of the teacher where the bank has none; these are added to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from kepo.exploration.bank import HintBank
from kepo.exploration.bank_lines import BankedHint, to_banked
from kepo.exploration.hints import HintSource, audited_hint, request_for, teacher_hints
from kepo.exploration.settings import ExplorationSettings
from kepo.files import content_hash
from kepo.teachers.base import HintWriter
from kepo.types import Group, Hint

ANY_TEACHER = "any"
"""In place of a teacher's name: hints of whoever wrote them."""

Caller: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Makes a call that may raise a `KepoError`, and returns what it returns."""


def banked_hints(
    bank: HintBank,
    writer: HintWriter | None,
    settings: ExplorationSettings,
    read_from: str | None = None,
    *,
    through: Caller = lambda call: call(),
) -> HintSource:
    """Hints of a bank under `settings.hint_leak_policy`; the teacher is asked only about groups without a line in it.

    What the bank has counts as tried: the teacher is not asked again where all of it leaks. Its new answers are added
    to the bank, empty ones aside, so that a teacher that was away is asked another time.

    The writer is called `settings.hint_calls_per_level` times, whatever the bank holds, and never when it is None.

    Args:
        bank: Read, and added to.
        writer: Writes what is missing; None: it stays missing.
        settings: Level and leak policy.
        read_from: Whose hints are read, before the writer's own: a teacher's name, or `ANY_TEACHER`. None: only the
            writer's, or anyone's where there is no writer.
        through: Makes the calls that read and write the bank's file, so that the processes of a training can fail
            together.
    """
    teachers = _teachers(writer, read_from)
    ask = None if writer is None else teacher_hints(writer, settings)

    def find(groups: Sequence[Group], level: int | None = None, /) -> list[tuple[Hint, ...]]:
        level = settings.hint_level if level is None else level
        hashes = [_content_hash(group, level) for group in groups]
        through(bank.refresh)
        banked = [
            _from_bank(bank, key, teachers, group, settings.hint_leak_policy)
            for key, group in zip(hashes, groups, strict=True)
        ]
        if ask is None or writer is None:
            return banked
        # A question may have several groups; it is asked about once.
        missing = {key: group for key, group, hints in zip(hashes, groups, banked, strict=True) if key and not hints}
        written = dict(zip(missing, ask(list(missing.values()), level), strict=True))
        new = [to_banked(hint, missing[key].key, writer.name, key) for key, hints in written.items() for hint in hints]
        through(lambda: bank.add(new))
        return [hints or written.get(key, ()) for key, hints in zip(hashes, banked, strict=True)]

    return find


def _teachers(writer: HintWriter | None, read_from: str | None) -> list[str | None]:
    """Whose hints are looked for, in this order; None stands for anyone's."""
    if read_from == ANY_TEACHER or (writer is None and read_from is None):
        return [None]
    return [name for name in (read_from, None if writer is None else writer.name) if name is not None]


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
