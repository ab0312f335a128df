"""From a completion to the answer it gives: finding the answer, and comparing it as text.

Which letter an answer means is a question of its own: see `kepo.rewards.options`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, TypeAlias

from kepo.rewards.options import match_option
from kepo.rewards.text import folded
from kepo.types import Message

Completion: TypeAlias = str | Sequence[Message]
"""What TRL hands to a reward function: text, or the messages that the policy wrote."""

_OPEN = re.compile(r"<answer\s*>", re.IGNORECASE)
_CLOSE = re.compile(r"</answer\s*>", re.IGNORECASE)
_BOX = re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)", re.DOTALL)
_LATEX_BOX = re.compile(r"\\boxed\s*\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}")
_THINK_CLOSE = re.compile(r"</think\s*>", re.IGNORECASE)
_QUOTES = "\"'`“”‘’"


def completion_text(completion: Completion) -> str:
    """The text of a completion: plain text as it is, messages joined by a line break, images left out."""
    if isinstance(completion, str):
        return completion
    return "\n".join(_content_text(message.get("content")) for message in completion)


def _content_text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def extract_answer(text: str) -> str | None:
    """The inside of the last `<answer>...</answer>`, trimmed; None when there is none or it is empty.

    Without such a tag, the inside of GLM-V's `<|begin_of_box|>...<|end_of_box|>` after the reasoning is the answer.
    The closing tag may be missing at the very end, where the token budget cut it off. An opening tag that is only
    talked about (inside the reasoning, never closed) is no answer.
    """
    parts = _OPEN.split(text)
    last = len(parts) - 1
    for index in range(last, 0, -1):
        body, *closed = _CLOSE.split(parts[index], maxsplit=1)
        if closed:
            return body.strip() or None
        if index == last and body.strip() and not _THINK_CLOSE.search(body):
            return body.strip()
    boxes = _BOX.findall(after_reasoning(text)) if last == 0 else []
    return boxes[-1].strip() or None if boxes else None


def after_reasoning(text: str) -> str:
    """What follows the last `</think>`, trimmed; the whole text when there is no such tag."""
    return _THINK_CLOSE.split(text)[-1].strip()


def predicted_letter(text: str, options: Sequence[str], strict: bool = True) -> str | None:
    """The letter of the option that a completion chose.

    Args:
        text: The completion, decoded.
        options: Option texts in order, 2..26 of them.
        strict: True takes only what stands inside `<answer>`. False falls back, when there is no such tag, to the last
            `\\boxed{}`, then the last line that holds any text, and then everything after the reasoning.

    Returns:
        A letter, or None: no answer, no option named, or several different ones.
    """
    answer = extract_answer(text)
    if answer is not None:
        return match_option(answer, options)
    if strict:
        return None
    rest = after_reasoning(text)
    boxes = _LATEX_BOX.findall(rest)
    if boxes:
        return match_option(boxes[-1], options)
    last_line = rest.splitlines()[-1] if rest else ""
    return match_option(last_line, options) or match_option(rest, options)


def normalized(text: str) -> str:
    """`text` for comparison: one case, single blanks, no quotes around it and no final stop."""
    return folded(unicodedata.normalize("NFKC", text)).strip(_QUOTES).rstrip(".,;:! ").strip(_QUOTES)
