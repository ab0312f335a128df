"""The tags that completions and hints are read by, and where the reasoning of a completion lies.

`<think>`, `</think>`, `<answer>`, `</answer>` and `<hint>` are read, in any case. Some models write the tags of their
reasoning in another way; `canonical` puts these into one form.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import NamedTuple

THINK_SPELLINGS = MappingProxyType(
    {
        "◁think▷": "<think>",
        "◁/think▷": "</think>",
        "[THINK]": "<think>",
        "[/THINK]": "</think>",
        "<seed:think>": "<think>",
        "</seed:think>": "</think>",
        "<|begin_of_thought|>": "<think>",
        "<|end_of_thought|>": "</think>",
    }
)
"""Other models' tags of reasoning: Kimi, Magistral, Seed-OSS, Sky-T1."""

ANSWER_OPEN = re.compile(r"<answer\s*>", re.IGNORECASE)
ANSWER_CLOSE = re.compile(r"</answer\s*>", re.IGNORECASE)
_OTHER_OPEN, _OTHER_CLOSE = (
    "|".join(re.escape(other) for other, tag in THINK_SPELLINGS.items() if tag == kind)
    for kind in ("<think>", "</think>")
)
_THINK = re.compile(rf"(?i:(?P<close></think\s*>)|<think\s*>)|(?P<other_close>{_OTHER_CLOSE})|(?:{_OTHER_OPEN})")
_READ = re.compile(r"</?(?:think|answer|hint)\s*>|<\|(?:begin|end)_of_box\|>", re.IGNORECASE)
_BOX = re.compile(r"<\|begin_of_box\|>((?:(?!<\|(?:begin|end)_of_box\|>).)*+)(?:<\|end_of_box\|>|\Z)", re.DOTALL)


def is_read(token: str) -> bool:
    """Whether a token of a vocabulary is one of the tags that are read, so that decoding must keep it."""
    return token.strip() in THINK_SPELLINGS or _READ.fullmatch(token.strip()) is not None


def canonical(text: str) -> str:
    """`text` with the reasoning in `<think>` tags, whatever the model's own spelling of them."""
    for other, tag in THINK_SPELLINGS.items():
        text = text.replace(other, tag)
    return text


def opens_reasoning(prompt: str) -> bool:
    """Whether a prompt, as the model reads it, ends with an opened `<think>`, so that its completion begins inside."""
    *_, end = [None, *_THINK.finditer(prompt, max(0, len(prompt.rstrip()) - 32))]
    return end is not None and not _closes(end) and not prompt[end.end() :].strip()


def with_opening(text: str, opened: bool) -> str:
    """`text` with the `<think>` in front that its prompt ended with (`opened`) and that it does not repeat."""
    first = _THINK.search(text) if opened else None
    return text if not opened or (first is not None and not _closes(first)) else f"<think>{text}"


def reasoning_span(text: str) -> tuple[int, int]:
    """Start and end of the reasoning within a completion; start == end where there is none.

    The opening tag may be missing (some chat templates put it into the prompt), and so may the closing tag, where the
    token limit cut the reasoning off: then it ends at `<answer>` or at the end.
    """
    start = None
    for tag in _THINK.finditer(text):
        if _closes(tag):
            return start or 0, tag.start()
        start = tag.end() if start is None else start
    if start is None:
        return 0, 0
    answer = ANSWER_OPEN.search(text, start)
    return start, answer.start() if answer else len(text)


class Parts(NamedTuple):
    """A completion taken apart."""

    finished: list[str]  # reasonings that end, in order
    outside: list[str]  # what stands around them
    unfinished: str  # reasoning at the end that was cut off; empty where there is none


def split_reasoning(text: str) -> Parts:
    """The reasoning of a completion, and what is not reasoning.

    A `</think>` without an opening tag ends reasoning that began where the last one ended, or in the prompt.
    """
    finished: list[str] = []
    outside: list[str] = []
    place, opened = 0, False
    for tag in _THINK.finditer(text):
        if _closes(tag):
            finished.append(text[place : tag.start()])
        elif opened:
            continue
        else:
            outside.append(text[place : tag.start()])
        opened = not _closes(tag)
        place = tag.end()
    if opened:
        return Parts(finished, outside, text[place:])
    return Parts(finished, [*outside, text[place:]], "")


def after_reasoning(text: str) -> str:
    """What follows the reasoning, trimmed: the whole text where there is none, "" where it does not end."""
    place, opened = 0, False
    for tag in _THINK.finditer(text):
        place, opened = tag.end(), not _closes(tag)
    return "" if opened else text[place:].strip()


def find_answer(text: str) -> tuple[str, bool] | None:
    """The answer that a completion gives between tags, trimmed, and whether its closing tag is there.

    It is the inside of the last `<answer>` outside of the reasoning, or, without such a tag, of the last
    `<|begin_of_box|>`. An answer inside the reasoning is none, except a closed one that is the last the completion
    says, whether `</think>` is there or not. None: there is no answer, or it is empty.
    """
    parts = split_reasoning(text)
    rest = "\n".join(parts.outside)
    inside = parts.unfinished or (parts.finished[-1] if parts.finished else "")
    if inside and not rest.strip():
        closed = _last_answer(inside)
        ends = ANSWER_CLOSE.split(inside)[-1]
        return closed if closed is not None and closed[1] and not ends.strip() else None
    if ANSWER_OPEN.search(rest):
        return _last_answer(rest)
    boxes = _BOX.findall(rest)
    return (boxes[-1].strip(), True) if boxes and boxes[-1].strip() else None


def _last_answer(text: str) -> tuple[str, bool] | None:
    parts = ANSWER_OPEN.split(text)
    for index in range(len(parts) - 1, 0, -1):
        body, *closed = ANSWER_CLOSE.split(parts[index], maxsplit=1)
        if closed or (index == len(parts) - 1 and body.strip()):
            return (body.strip(), bool(closed)) if body.strip() else None
    return None


def _closes(tag: re.Match[str]) -> bool:
    return bool(tag["close"] or tag["other_close"])
