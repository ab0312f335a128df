"""What can go wrong with an answer of a model server, as edits of good answers; see `tools.faulty_proxy`.

Answers have OpenAI's form, or that of vLLM's `/inference/v1/generate`: `prompt_token_ids` is a list of ids, and
`prompt_logprobs` has one entry per token of the prompt, null for the first and {id: {"logprob": ..., ...}} for others.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum
from typing import Any

# (number of the request from 0, path without query, body) -> what goes wrong with it. Asked by one thread at a time.
Plan = Callable[[int, str, bytes], "Fault | None"]


class Fault(Enum):
    """One thing that goes wrong; the value says what the client sees."""

    TOO_SLOW = "the correct answer, after the client's time-out"
    TOO_MANY = "429, with Retry-After if the proxy is given a time"
    UNAVAILABLE = "503, as while a model is loaded"
    BROKEN = "500 with a page of HTML, as from a gateway"
    REFUSED = "the connection closes before the answer"
    CUT = "the connection closes in the middle of the answer"
    MALFORMED = "200 with a body that is not JSON"
    PARTIAL = "200 with the first half of the JSON, and a Content-Length that fits it"
    NAN = "the log-probability at the last position is NaN, which is not valid JSON"
    NULL_LOGPROB = "the log-probability at the last position is null"
    MISSING_LOGPROBS = "prompt_logprobs is null"
    FEWER_LOGPROBS = "prompt_logprobs lacks its last position"
    SHIFTED = "prompt_logprobs has at each position the entry of the next one, and the correct length"
    RETOKENIZED = "prompt_token_ids has another token in the middle"
    OTHER_MODEL = "the list of models, or the answer, names another model"


def edited(answer: bytes, fault: Fault) -> bytes | None:
    """The answer with a fault of content in it.

    Args:
        answer: A good answer.
        fault: NAN or one of those after it.

    Returns:
        The faulty answer; None where it has no place for this fault, because it is no JSON object or lacks the field.
    """
    try:
        parsed = json.loads(answer)
    except ValueError:
        return None
    if not isinstance(parsed, dict) or not _EDITS[fault](parsed):
        return None
    return json.dumps(parsed).encode()


def _nan(answer: dict[str, Any]) -> bool:
    return _change_last_logprob(answer, float("nan"))  # json writes it as NaN


def _null_logprob(answer: dict[str, Any]) -> bool:
    return _change_last_logprob(answer, None)


def _change_last_logprob(answer: dict[str, Any], value: float | None) -> bool:
    """Of the prompt where it was scored (its last tokens are those that a distillation asks about), else of the answer.

    All candidates of the place: a client need not read each of them.
    """
    places = [list(position.values()) for table in _tables(answer) for position in table if position]
    for choice in answer.get("choices", []):
        places += [[token] for token in (choice.get("logprobs") or {}).get("content", [])] if not places else []
    if not places:
        return False
    for candidate in places[-1]:
        candidate["logprob"] = value
    return True


def _missing_logprobs(answer: dict[str, Any]) -> bool:
    return _replace(answer, "prompt_logprobs", lambda _: None)


def _fewer_logprobs(answer: dict[str, Any]) -> bool:
    return _replace(answer, "prompt_logprobs", lambda table: table[:-1])


def _shifted(answer: dict[str, Any]) -> bool:
    return _replace(answer, "prompt_logprobs", lambda table: [*table[:1], *table[2:], *table[-1:]], at_least=3)


def _retokenized(answer: dict[str, Any]) -> bool:
    def change(ids: list[int]) -> list[int]:
        middle = len(ids) // 2
        return [*ids[:middle], ids[middle] ^ 1, *ids[middle + 1 :]]

    return _replace(answer, "prompt_token_ids", change)


def _other_model(answer: dict[str, Any]) -> bool:
    named = [(answer, "model")] if "model" in answer else []
    named += [(model, "id") for model in answer.get("data", [])]
    for where, key in named:
        where[key] = "another-model"
    return bool(named)


def _replace(answer: dict[str, Any], key: str, change: Callable[[list[Any]], Any], at_least: int = 1) -> bool:
    found = [holder for holder in _holders(answer) if len(holder.get(key) or []) >= at_least]
    for holder in found:
        holder[key] = change(holder[key])
    return bool(found)


def _tables(answer: dict[str, Any]) -> Iterator[list[Any]]:
    return (holder["prompt_logprobs"] for holder in _holders(answer) if holder.get("prompt_logprobs"))


def _holders(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the fields of a prompt may be: in the answer, or, for `/v1/completions`, in its choices."""
    return [answer, *answer.get("choices", [])]


_EDITS: dict[Fault, Callable[[dict[str, Any]], bool]] = {
    Fault.NAN: _nan,
    Fault.NULL_LOGPROB: _null_logprob,
    Fault.MISSING_LOGPROBS: _missing_logprobs,
    Fault.FEWER_LOGPROBS: _fewer_logprobs,
    Fault.SHIFTED: _shifted,
    Fault.RETOKENIZED: _retokenized,
    Fault.OTHER_MODEL: _other_model,
}
FAULTS_OF_CONTENT = frozenset(_EDITS)


def never(number: int, path: str, body: bytes) -> Fault | None:
    """The plan in which nothing goes wrong."""
    return None


def every(n: int, fault: Fault, paths: Collection[str] = ()) -> Plan:
    """The n-th, 2n-th, ... request goes wrong, always in the same way; see `in_turn`."""
    return in_turn([fault], every=n, paths=paths)


def in_turn(faults: Sequence[Fault], every: int = 1, paths: Collection[str] = ()) -> Plan:
    """A plan in which every so-manieth request goes wrong, with one fault after the other, and again from the first.

    Args:
        faults: What goes wrong, in this order.
        every: The `every`-th, twice `every`-th, ... request; >= 1.
        paths: Only requests to these count; empty for all.

    Raises:
        ValueError: there are no faults, or `every` is below 1.
    """
    if not faults or every < 1:
        raise ValueError(f"a plan needs at least one fault and every >= 1, not {len(faults)} faults and {every}")
    coming = itertools.cycle(faults)
    counted = itertools.count(1)

    def plan(number: int, path: str, body: bytes) -> Fault | None:
        if paths and path not in paths:
            return None
        return None if next(counted) % every else next(coming)

    return plan


def first_of_each(faults: Sequence[Fault], paths: Collection[str] = ()) -> Plan:
    """A plan in which each request goes wrong once, with one fault after the other; the same body again passes.

    How often things go wrong then depends on what is asked, not on the order in which requests happen to come.

    Args:
        faults: What goes wrong, in this order, and again from the first.
        paths: Only requests to these count; empty for all.

    Raises:
        ValueError: there are no faults.
    """
    turn = in_turn(faults, paths=paths)
    seen: set[tuple[str, bytes]] = set()

    def plan(number: int, path: str, body: bytes) -> Fault | None:
        if (path, body) in seen:
            return None
        seen.add((path, body))
        return turn(number, path, body)

    return plan
