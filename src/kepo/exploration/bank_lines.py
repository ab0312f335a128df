"""One line of a hint bank: its fields, how it is written and read, and when two hints of a question say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Annotated

import msgspec

from kepo.types import Hint

Count = Annotated[int, msgspec.Meta(ge=0)]
ContentHash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

# Lines of earlier versions: what a field was called, and fields that are no more.
_RENAMED = {"address": "content_hash"}
_DROPPED = frozenset({"language", "other_language"})

DUPLICATE_RATIO = 0.9
"""Share of words in common, in order (`difflib`'s ratio), from which two hints say the same."""

_COMPARED = 400  # words; bounds the time that an endless repetition costs
_WORD = re.compile(r"\w+")
# Scripts without spaces between words are compared letter by letter.
_TOKEN = re.compile(r"[a-z0-9_]+|\w")


class BankedHint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hint as the bank keeps it. Nothing in it depends on the policy, on a leak policy, or on the time."""

    question: str  # id, for the reader; it is not part of the content hash
    level: Count  # index into `kepo.prompts.HINT_LEVELS`
    teacher: str
    content_hash: ContentHash  # of the request to the teacher, see `kepo.files.content_hash`
    index: Count  # number of the hint among those of this content hash and teacher
    text: str  # the hint in `raw` as the teacher wrote it, leaks included; "" where there is none
    leaks: tuple[str, ...]  # see `kepo.exploration.leaks.audit`
    words: Count
    duplicate: bool  # whether an earlier hint of this question says the same
    raw: str  # the teacher's answer as it came

    @property
    def order(self) -> tuple[str, int, str, str, int, str]:
        """The key by which a finished bank is sorted."""
        return self.question, self.level, self.teacher, self.content_hash, self.index, self.raw


def to_banked(hint: Hint, question: str, teacher: str, content_hash: str) -> BankedHint:
    """`hint`, read under whatever leak policy, as a line; the bank sets `index` and `duplicate`."""
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
        ValueError: The line is not one of a bank; names the field.
    """
    record = json.loads(line)
    if isinstance(record, dict):
        record = {_RENAMED.get(name, name): value for name, value in record.items() if name not in _DROPPED}
    try:
        return msgspec.convert(record, BankedHint)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def count_words(text: str) -> int:
    """Words of a text; a run of letters without space between them (Chinese, Japanese) counts as one."""
    return len(_WORD.findall(text))


def is_duplicate(text: str, others: Sequence[str]) -> bool:
    """Whether `text` equals one of `others` but for case, spaces and punctuation, or nearly (`DUPLICATE_RATIO`).

    By rule: a paraphrase is no duplicate, and neither is an empty text.
    """
    words = _tokens(text)
    return bool(words) and any(_alike(words, _tokens(other)) for other in others)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.casefold())[:_COMPARED]


def _alike(one: list[str], other: list[str]) -> bool:
    if one == other:
        return True
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    # The two bounds are cheap, the ratio itself is not.
    ratios = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
    return all(ratio() >= DUPLICATE_RATIO for ratio in ratios)
