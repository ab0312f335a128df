"""One line of a hint bank: its fields, how it is written, how it is read."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec

from kepo.exploration.duplicates import count_words
from kepo.types import Hint

Count = Annotated[int, msgspec.Meta(ge=0)]
ContentHash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

# Lines of earlier versions: what a field was called, and fields that are no more.
_RENAMED = {"address": "content_hash"}
_DROPPED = frozenset({"language", "other_language"})


class BankedHint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hint as the bank keeps it. Nothing in it depends on the policy, on a leak policy, or on the time.

    Attributes:
        question: Id of the question, for the reader; it is not part of the content hash.
        level: Index into `kepo.prompts.HINT_LEVELS`.
        teacher: Who wrote it.
        content_hash: Of the request to the teacher, see `kepo.files.content_hash`.
        index: Number of the hint among those of this content hash and teacher, from 0.
        text: The hint in `raw` as the teacher wrote it, leaks and all; "" where there is none.
        leaks: What gives the answer away, see `kepo.exploration.leaks.audit`.
        words: Its length.
        duplicate: Whether an earlier hint of this question says the same.
        raw: The teacher's answer as it came.
    """

    question: str
    level: Count
    teacher: str
    content_hash: ContentHash
    index: Count
    text: str
    leaks: tuple[str, ...]
    words: Count
    duplicate: bool
    raw: str

    @property
    def order(self) -> tuple[str, int, str, str, int, str]:
        """By what a finished bank is sorted."""
        return self.question, self.level, self.teacher, self.content_hash, self.index, self.raw


def to_banked(hint: Hint, question: str, teacher: str, content_hash: str) -> BankedHint:
    """`hint` as a line; its place among others (`index`, `duplicate`) the bank decides.

    Args:
        hint: As `kepo.exploration.hints.read_hint` makes it, under whatever leak policy.
        question: Id of the question.
        teacher: Who was asked.
        content_hash: Of what was asked.
    """
    return BankedHint(
        question=question,
        level=hint.level,
        teacher=teacher,
        content_hash=content_hash,
        index=0,
        text=hint.written,
        leaks=hint.leaks,
        words=count_words(hint.written),
        duplicate=False,
        raw=hint.raw,
    )


def to_line(hint: BankedHint) -> bytes:
    """The hint as one line of JSON in UTF-8, with its line break; fields in the order of `BankedHint`."""
    # json and not msgspec: what UTF-8 cannot hold (half a surrogate pair) becomes \\udXXX, and is read again.
    text = json.dumps(msgspec.structs.asdict(hint), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def parse_line(line: bytes) -> BankedHint:
    """The hint in a line, of this version or of an earlier one.

    Raises:
        ValueError: The line is not one of a bank; says which field is at fault.
    """
    record = json.loads(line)
    if isinstance(record, dict):
        record = {_RENAMED.get(name, name): value for name, value in record.items() if name not in _DROPPED}
    try:
        return msgspec.convert(record, BankedHint)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
