"""From the teacher's raw answers to hints: parsing and auditing them, asking again."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kepo.errors import KepoError
from kepo.exploration.leaks import audit, strip_leaks
from kepo.exploration.settings import ExplorationSettings
from kepo.prompts import hint_request, hint_request_again
from kepo.rewards.tags import canonical, split_reasoning
from kepo.teachers.base import AsynchronousHintWriter, HintWriter
from kepo.types import Conversation, Group, Hint

HintAnswers: TypeAlias = Callable[[], list[tuple[Hint, ...]]]
"""Waits for hints: for each group those of one level, in order; one without a text is not used."""


class HintSource(ABC):
    """Where hints come from. Every process asks equally often, with an empty list where it has no group."""

    @property
    @abstractmethod
    def early(self) -> bool:
        """Whether `begin` leaves the hints being written, so that there is something to gain by asking ahead."""

    @abstractmethod
    def begin(self, groups: Sequence[Group], level: int) -> HintAnswers:
        """Ask for the hints of one level; what is returned is called once."""

    def __call__(self, groups: Sequence[Group], level: int) -> list[tuple[Hint, ...]]:
        """Ask, and wait."""
        return self.begin(groups, level)()


_HINT_OPEN = re.compile(r"<hint\b[^<>]*>", re.IGNORECASE)
_HINT_CLOSE = re.compile(r"</hint\s*>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:hint|think|answer)\b[^<>]*>", re.IGNORECASE)


def parse_hint(raw: str) -> str:
    """The hint in a teacher's answer; "" when there is none.

    The inside of the first `<hint>...</hint>` that is not empty, over any number of lines. Without a closing tag the
    rest is taken, without an opening tag the whole text. Reasoning is never part of it, whatever tags the model writes
    it in, and where it does not end, only a hint that begins in it is taken: it may say the answer. Everything else
    stays as it is.
    """
    text = _without_reasoning(canonical(raw))
    blocks = [_TAG.sub("", _HINT_CLOSE.split(part, maxsplit=1)[0]).strip() for part in _HINT_OPEN.split(text)[1:]]
    if blocks:
        return next((block for block in blocks if block), "")
    return _TAG.sub("", text).strip()


def _without_reasoning(text: str) -> str:
    parts = split_reasoning(text)
    hint = _HINT_OPEN.search(parts.unfinished)
    return "".join(parts.outside) + (parts.unfinished[hint.start() :] if hint else "")


def read_hint(raw: str, group: Group, level: int, leak_policy: str = "allow") -> Hint:
    """The hint in a teacher's answer, parsed and audited; `leak_policy` as `ExplorationSettings.hint_leak_policy`."""
    return audited_hint(parse_hint(raw), group, level, leak_policy, raw=raw)


def audited_hint(
    written: str, group: Group, level: int, leak_policy: str, *, raw: str = "", banked: bool = False
) -> Hint:
    """A hint that is parsed already: the leaks in `written`, and what `leak_policy` leaves to be shown of it."""
    leaks = audit(written, group.answer or "", group.options)
    text = written
    if leaks and leak_policy == "strip":
        text = strip_leaks(written, group.answer or "", group.options)
    elif leaks and leak_policy != "allow":
        text = ""
    return Hint(text, level, leaks, written, raw, banked)


def request_for(group: Group, level: int) -> Conversation | None:
    """What a teacher is asked for a hint; None without a ground truth to write one from (none, or a blank one)."""
    if group.answer is None or not group.answer.strip():
        return None
    return hint_request(group.prompt, group.answer, group.options, level)


def ask_writer(writer: HintWriter, requests: Sequence[Conversation]) -> list[str]:
    """One answer per request; see `check_length`."""
    return _answers(writer.write_hints(requests), requests)


def _answers(answers: list[str], requests: Sequence[Conversation]) -> list[str]:
    check_length("hint writer", answers, requests)
    return answers


def check_length(who: str, results: Sequence[object], requests: Sequence[object]) -> None:
    """Refuse results that cannot be assigned to what was asked.

    Raises:
        KepoError: There is not one result for each request.
    """
    if len(results) != len(requests):
        raise KepoError(
            f"the {who} returned {len(results)} results for {len(requests)} requests; it must return one each, in "
            "order."
        )


@dataclass(frozen=True)
class TeacherHints(HintSource):
    """Hints written by a teacher: one call for all groups, and `hint_retries` more where the policy asks again.

    The number of calls is `settings.hint_calls_per_level` whatever the answers are. A group without ground truth is
    never asked about and gets no hint.
    """

    writer: HintWriter
    settings: ExplorationSettings

    @property
    def early(self) -> bool:
        """Whether the teacher writes elsewhere; what is asked again is asked when the first answers are there."""
        return isinstance(self.writer, AsynchronousHintWriter)

    def begin(self, groups: Sequence[Group], level: int) -> HintAnswers:
        """See `HintSource.begin`; a teacher that is not asynchronous writes when it is waited for."""
        requests = [request_for(group, level) for group in groups]
        asked = [request for request in requests if request is not None]
        pending = self.writer.start_hints(asked) if isinstance(self.writer, AsynchronousHintWriter) else None

        def first() -> list[str]:
            return ask_writer(self.writer, asked) if pending is None else _answers(pending.result(), asked)

        return lambda: self._read(groups, requests, level, first)

    def _read(
        self,
        groups: Sequence[Group],
        requests: Sequence[Conversation | None],
        level: int,
        first: Callable[[], list[str]],
    ) -> list[tuple[Hint, ...]]:
        """The hints of all calls; `first` makes the first of them, about all `requests`."""
        tried: list[list[Hint]] = [[] for _ in groups]
        for call in range(self.settings.hint_calls_per_level):
            asking = [
                (place, hint_request_again(request, hints[-1].written) if hints and hints[-1].leaks else request)
                for place, (request, hints) in enumerate(zip(requests, tried, strict=True))
                if request is not None and not any(hint.text for hint in hints)
            ]
            answers = ask_writer(self.writer, [request for _, request in asking]) if call else first()
            for (place, _), raw in zip(asking, answers, strict=True):
                tried[place].append(read_hint(raw, groups[place], level, self.settings.hint_leak_policy))
        return [tuple(hints) for hints in tried]
