"""From the teacher's raw answers to hints: reading them, judging them, asking again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from kepo.errors import KepoError
from kepo.exploration.leaks import audit, strip_leaks
from kepo.exploration.settings import ExplorationSettings
from kepo.prompts import hint_request, hint_request_again
from kepo.teachers.base import HintWriter
from kepo.types import Conversation, Group, Hint


class HintSource(Protocol):
    """Gives hints for groups. Called by every process equally often, with an empty list where it has no group."""

    def __call__(self, groups: Sequence[Group], level: int | None = None, /) -> list[tuple[Hint, ...]]:
        """For each group its hints of `level` (None: the settings' first), in order; one without a text is not used."""
        ...


_FLAGS = re.IGNORECASE | re.DOTALL
_THINK = re.compile(r"<think\s*>.*?</think\s*>", _FLAGS)
# Reasoning that was cut off, or whose opening tag is part of the chat template: it may say the answer.
_THINK_OPEN = re.compile(r"<think\s*>.*?(?=<hint\b|\Z)", _FLAGS)
_THINK_CLOSE = re.compile(r"\A.*</think\s*>", _FLAGS)
_HINT = re.compile(r"<hint\b[^<>]*>(.*?)(?:</hint\s*>|\Z)", _FLAGS)
_TAG = re.compile(r"</?(?:hint|think)\b[^<>]*>", _FLAGS)


def parse_hint(raw: str) -> str:
    """The hint in a teacher's answer; "" when there is none.

    The inside of the first `<hint>...</hint>` that is not empty, over any number of lines. Without a closing tag the
    rest is taken, without an opening tag the whole text. Reasoning (`<think>...</think>`) is never part of it.
    Everything else, braces, backslashes, quotes and percent signs, stays as it is.
    """
    text = _THINK_CLOSE.sub("", _THINK_OPEN.sub("", _THINK.sub("", raw)))
    blocks = [_TAG.sub("", block).strip() for block in _HINT.findall(text)]
    if blocks:
        return next((block for block in blocks if block), "")
    return _TAG.sub("", text).strip()


def teacher_hints(writer: HintWriter, settings: ExplorationSettings) -> HintSource:
    """Hints written by a teacher: one call for all groups, and `hint_retries` more where the policy asks again.

    The number of calls is `settings.hint_calls_per_level` whatever the answers are. A group without ground truth (none,
    or a blank one) is never asked about and gets no hint.
    """

    def write(groups: Sequence[Group], level: int | None = None, /) -> list[tuple[Hint, ...]]:
        level = settings.hint_level if level is None else level
        tried: list[tuple[Hint, ...]] = [() for _ in groups]
        for _ in range(settings.hint_calls_per_level):
            asking = [
                (place, group, group.answer)
                for place, group in enumerate(groups)
                if has_answer(group) and group.answer and not any(hint.text for hint in tried[place])
            ]
            requests = [_request(group, answer, tried[place], level) for place, group, answer in asking]
            answers = writer.write_hints(requests)
            if len(answers) != len(requests):
                raise KepoError(f"the hint writer returned {len(answers)} hints for {len(requests)} requests.")
            for (place, group, answer), raw in zip(asking, answers, strict=True):
                written = Hint(parse_hint(raw), level=level, raw=raw)
                tried[place] = (*tried[place], judge_hint(written, answer, group.options, settings.leak_policy))
        return tried

    return write


def has_answer(group: Group) -> bool:
    """Whether there is a ground truth to write a hint from."""
    return bool(group.answer and group.answer.strip())


def judge_hint(written: Hint, answer: str, options: Sequence[str], leak_policy: str) -> Hint:
    """The hint that the teacher wrote, with the leaks found in its text and `leak_policy` applied to it."""
    leaks = audit(written.text, answer, options)
    shown = written.text
    if leaks and leak_policy == "strip":
        shown = strip_leaks(written.text, answer, options)
    elif leaks and leak_policy != "allow":
        shown = ""
    return replace(written, text=shown, leaks=leaks)


def _request(group: Group, answer: str, tried: Sequence[Hint], level: int) -> Conversation:
    request = hint_request(group.prompt, answer, group.options, level)
    return hint_request_again(request, parse_hint(tried[-1].raw)) if tried and tried[-1].leaks else request
