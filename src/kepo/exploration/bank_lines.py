"""One line of a hint bank: its fields, how it is written, how it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from kepo.exploration.hint_audit import count_words, in_another_language, language_of
from kepo.exploration.hints import parse_hint
from kepo.exploration.leaks import audit
from kepo.types import Group, Prompt

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class BankedHint:
    """A hint as the bank keeps it. Nothing in it depends on the policy, on a leak policy, or on the time.

    Attributes:
        question: Id of the question, for the reader; it is not part of the address.
        level: Index into `kepo.prompts.HINT_LEVELS`.
        teacher: Who wrote it.
        address: What the teacher was asked, see `kepo.files.content_hash`.
        index: Number of the hint among those of this address and teacher, from 0.
        text: The hint in `raw` as the teacher wrote it, leaks and all; "" where there is none.
        leaks: What gives the answer away, see `kepo.exploration.leaks.audit`.
        words: Its length.
        language: ISO 639 code, "" where it is not clear.
        other_language: Whether it is clearly not the question's language.
        duplicate: Whether an earlier hint of this question says the same.
        raw: The teacher's answer as it came.
    """

    question: str
    level: int
    teacher: str
    address: str
    index: int
    text: str
    leaks: tuple[str, ...]
    words: int
    language: str
    other_language: bool
    duplicate: bool
    raw: str

    @property
    def order(self) -> tuple[str, int, str, str, int, str]:
        """By what a finished bank is sorted."""
        return self.question, self.level, self.teacher, self.address, self.index, self.raw


def audited_hint(raw: str, *, address: str, teacher: str, level: int, group: Group) -> BankedHint:
    """The audited hint in the teacher's answer `raw`; its place among others (`index`, `duplicate`) the bank decides.

    Args:
        raw: The answer as it came.
        address: What was asked.
        teacher: Who was asked.
        level: Level of the hint.
        group: The question: key, prompt, answer and options.
    """
    text = parse_hint(raw)
    language = language_of(text)
    return BankedHint(
        question=group.key,
        level=level,
        teacher=teacher,
        address=address,
        index=0,
        text=text,
        leaks=audit(text, group.answer or "", group.options),
        words=count_words(text),
        language=language,
        other_language=in_another_language(language, language_of(_question_text(group))),
        duplicate=False,
        raw=raw,
    )


def _question_text(group: Group) -> str:
    """The question's own words where the row has them, because the prompt adds instructions in English."""
    text = group.row.get("question")
    return text if isinstance(text, str) else _last_user_text(group.prompt)


def _last_user_text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    contents = [message["content"] for message in prompt if message["role"] == "user"]
    if not contents or isinstance(contents[-1], str):
        return contents[-1] if contents else ""
    return " ".join(part["text"] for part in contents[-1] if part["type"] == "text")


def to_line(hint: BankedHint) -> bytes:
    """The hint as one line of JSON in UTF-8, with its line break; fields in the order of `BankedHint`."""
    # What UTF-8 cannot hold (half a surrogate pair) becomes \\udXXX, which is how JSON writes it.
    return json.dumps(asdict(hint), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def parse_line(line: bytes) -> BankedHint:
    """The hint in a line.

    Raises:
        ValueError: The line is not one of a bank; says which field is wrong.
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    for name, valid in _VALID.items():
        if name not in record:
            raise ValueError(f"the field '{name}' is missing")
        if not valid(record[name]):
            raise ValueError(f"the field '{name}' is {record[name]!r:.80}")
    unknown = sorted(set(record) - set(_VALID))
    if unknown:
        raise ValueError(f"it has the unknown field '{unknown[0]}'")
    return BankedHint(**{**record, "leaks": tuple(record["leaks"])})


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_VALID: dict[str, Callable[[Any], bool]] = {
    "question": _text,
    "level": _count,
    "teacher": _text,
    "address": lambda value: isinstance(value, str) and len(value) == 64 and set(value) <= _HEX,
    "index": _count,
    "text": _text,
    "leaks": lambda value: isinstance(value, list) and all(map(_text, value)),
    "words": _count,
    "language": _text,
    "other_language": _flag,
    "duplicate": _flag,
    "raw": _text,
}
