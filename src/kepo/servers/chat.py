"""Conversations on the wire of the OpenAI chat API, and the completion that comes back."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kepo.servers.endpoint import Fault, FaultKind
from kepo.servers.pool import Pool
from kepo.types import Conversation

if TYPE_CHECKING:
    from PIL.Image import Image

# Servers keep seeds in 32 or 64 bits, with or without sign.
SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One completion.

    Attributes:
        text: Reasoning that the server parsed out is put back, in `<think>` tags.
        tokens: Its length.
        finished: Whether it ended by itself, before the limit.
    """

    text: str
    tokens: int
    finished: bool


def wire_messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The messages of a request; images become PNG data URIs."""
    return [{**message, "content": _content(message["content"])} for message in conversation]


def data_uri(image: Image) -> str:
    """`image` as PNG, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


async def ask_chat(pool: Pool, conversation: Conversation, seed: int, fields: Mapping[str, Any]) -> ChatAnswer:
    """One completion.

    Args:
        pool: The servers; they are asked for the pool's model.
        conversation: The messages.
        seed: Of sampling, 0..`SEEDS`-1.
        fields: Others of the request, such as `max_tokens` and `temperature`.

    Raises:
        RefusedError, UnavailableError: as `Pool.ask`.
    """

    def body() -> dict[str, Any]:
        return {**fields, "model": pool.model, "messages": wire_messages(conversation), "seed": seed}

    return await pool.ask("chat/completions", body, read_chat)


def read_chat(content: bytes) -> ChatAnswer:
    """The one completion in an answer.

    Raises:
        Fault: it is in another form.
    """
    try:
        answer = json.loads(content)
        [choice] = answer["choices"]
        message = choice["message"]
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        text, tokens = message["content"] or "", int(answer["usage"]["completion_tokens"])
        if not isinstance(text, str):
            raise TypeError("the content is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fault(FaultKind.MALFORMED, f"its answer is not one chat completion with its usage ({error!r})") from None
    if reasoning:
        text = f"<think>{reasoning}</think>\n{text}"
    # A server may send half of a surrogate pair, which no file can hold.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return ChatAnswer(text, tokens, choice.get("finish_reason") == "stop")


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if part["type"] != "image":
        # Columnar data gives every part every key, with None where it is absent.
        return {key: value for key, value in part.items() if value is not None}
    return {"type": "image_url", "image_url": {"url": data_uri(part["image"])}}
