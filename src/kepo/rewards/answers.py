"""From a completion to the answer it gives: finding the answer, and comparing it as text.

Which letter an answer means is a question of its own: see `kepo.rewards.options`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, TypeAlias

from kepo.rewards.options import match_option, stated_in_json
from kepo.rewards.tags import after_reasoning, canonical, find_answer, with_opening
from kepo.rewards.text import folded
from kepo.types import Message

Completion: TypeAlias = str | Sequence[Message]
"""What TRL hands to a reward function: text, or the messages that the policy wrote."""

_LATEX_BOX = re.compile(r"\\boxed\s*\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}")
# The begin of a tag or a command at the very end, where the token budget cut it off: "<a" names no option A.
_CUT_OFF = re.compile(r"(?:</?|<\||\\)[A-Za-z_]{0,20}\s*\Z")
_QUOTES = "\"'`“”‘’"


def completion_text(completion: Completion, reasoning_opened: bool | None = None) -> str:
    """The text of a completion as it is read here: tags in one spelling, reasoning in `<think>`.

    Messages are joined by a line break, images left out; reasoning that TRL parsed out of a message is put back.

    Args:
        completion: What TRL hands to a reward function.
        reasoning_opened: Whether the prompt ended with an opened `<think>`, which then stands in front of the text.
    """
    if isinstance(completion, str):
        return with_opening(canonical(completion), bool(reasoning_opened))
    text = canonical("\n".join(_message_text(message) for message in completion))
    parsed = any(_parsed_reasoning(message) for message in completion)
    return with_opening(text, bool(reasoning_opened) and not parsed)


def completion_texts(completions: Sequence[Completion], reasoning_opened: Sequence[bool] | None) -> list[str]:
    """`completion_text` of each; None: it is not known whether the prompts opened the reasoning."""
    opened = [None] * len(completions) if reasoning_opened is None else reasoning_opened
    return [completion_text(completion, one) for completion, one in zip(completions, opened, strict=True)]


def _message_text(message: Message) -> str:
    reasoning, content = _parsed_reasoning(message), _content_text(message.get("content"))
    return f"<think>{reasoning}</think>\n{content}" if reasoning else content


def _parsed_reasoning(message: Message) -> str:
    """What a response schema took for the reasoning of a message."""
    found = message.get("reasoning_content") or message.get("reasoning") or message.get("thinking")
    return found if isinstance(found, str) else ""


def _content_text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def extract_answer(text: str) -> str | None:
    """The inside of the last `<answer>...</answer>` outside of the reasoning, trimmed; None: there is none, or empty.

    Without such a tag, the inside of GLM-V's `<|begin_of_box|>...<|end_of_box|>` is the answer. The closing tag may be
    missing at the very end, where the token budget cut it off. Reasoning that does not end has no answer; see
    `kepo.rewards.tags.find_answer`.
    """
    found = find_answer(text)
    return found[0] if found else None


def predicted_letter(text: str, options: Sequence[str], strict: bool = True) -> str | None:
    """The letter of the option that a completion chose.

    Args:
        text: The completion, decoded.
        options: Option texts in order, 2..26 of them.
        strict: True takes only what stands inside `<answer>`. False falls back, when there is no such tag, to the
            field `answer` of a JSON record, the last `\\boxed{}`, the last line that holds any text, and then all that
            follows the reasoning.

    Returns:
        A letter, or None: no answer, no option named, or several different ones.
    """
    answer = extract_answer(text)
    if answer is not None:
        return match_option(answer, options)
    if strict:
        return None
    rest = _CUT_OFF.sub("", after_reasoning(text))
    stated = stated_in_json(rest)
    if stated is not None:
        return match_option(stated, options)
    boxes = _LATEX_BOX.findall(rest)
    if boxes:
        return match_option(boxes[-1], options)
    last_line = rest.splitlines()[-1] if rest else ""
    return match_option(last_line, options) or match_option(rest, options)


def normalized(text: str) -> str:
    """`text` for comparison: one case, single blanks, no quotes around it and no final stop."""
    return folded(unicodedata.normalize("NFKC", text)).strip(_QUOTES).rstrip(".,;:! ").strip(_QUOTES)
