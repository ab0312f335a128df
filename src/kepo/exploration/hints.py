"""From the teacher's raw answers to hints: reading them, judging them, asking again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from kepo.errors import KepoError
from kepo.exploration.leaks import audit, strip_leaks
from kepo.exploration.settings import ExplorationSettings
from kepo.prompts import hint_request, hint_request_again
from kepo.teachers.base import HintWriter
from kepo.types import Conversation, Group, Hint

HintSource: TypeAlias = Callable[[Sequence[Group]], list[tuple[Hint, ...]]]
"""Hints for groups: for each group every hint that was tried, in order. The first one with a text is shown to the
student. Called by every process equally often, with an empty list where it has no group."""

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

    The number of calls is `settings.hint_calls` whatever the answers are. A group without ground truth (none, or a
    blank one) is never asked about and gets no hint.
    """

    def write(groups: Sequence[Group]) -> list[tuple[Hint, ...]]:
        tried: list[tuple[Hint, ...]] = [() for _ in groups]
        for _ in range(settings.hint_calls):
            asking = [
                (place, group, group.answer)
                for place, group in enumerate(groups)
                if group.answer and group.answer.strip() and not any(hint.text for hint in tried[place])
            ]
            requests = [_request(group, answer, tried[place], settings) for place, group, answer in asking]
            answers = writer.write_hints(requests)
            if len(answers) != len(requests):
                raise KepoError(f"the hint writer returned {len(answers)} hints for {len(requests)} requests.")
            for (place, group, answer), raw in zip(asking, answers, strict=True):
                tried[place] = (*tried[place], judge_hint(raw, answer, group.options, settings))
        return tried

    return write


def judge_hint(raw: str, answer: str, options: Sequence[str], settings: ExplorationSettings) -> Hint:
    """The hint in the teacher's answer `raw`, with the leaks found in it and `leak_policy` applied to its text."""
    written = parse_hint(raw)
    leaks = audit(written, answer, options)
    shown = written
    if leaks and settings.leak_policy == "strip":
        shown = strip_leaks(written, answer, options)
    elif leaks and settings.leak_policy != "allow":
        shown = ""
    return Hint(text=shown, level=settings.hint_level, leaks=leaks, raw=raw)


def _request(group: Group, answer: str, tried: Sequence[Hint], settings: ExplorationSettings) -> Conversation:
    request = hint_request(group.prompt, answer, group.options, settings.hint_level)
    return hint_request_again(request, parse_hint(tried[-1].raw)) if tried and tried[-1].leaks else request
