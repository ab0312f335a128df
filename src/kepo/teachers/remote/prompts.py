"""How a server renders a prompt: the token ids that its model sees, and those to send so that it sees them again.

The server's own chat template and processor do the rendering, so the teacher reads the prompt as it would answer it. An
image takes many tokens there ("shown"); a request with token ids holds one token in their place ("sent"), which the
server replaces. Which token that is depends on the model and is found out by trying.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kepo.files import content_hash, image_hash
from kepo.servers.endpoint import decoded
from kepo.types import Prompt


class Span(msgspec.Struct, frozen=True):
    """The tokens of one image: `length` of them from `offset` on."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as token ids.

    Attributes:
        shown: (P) what the model sees.
        spans: Where the images lie in it, in their order; empty without images.
    """

    shown: tuple[int, ...]
    spans: tuple[Span, ...] = ()

    def sent(self, image_token: int | None) -> list[int]:
        """The ids to send: every image is one `image_token`."""
        ids: list[int] = []
        place = 0
        for span in self.spans:
            assert image_token is not None
            ids += [*self.shown[place : span.offset], image_token]
            place = span.offset + span.length
        return [*ids, *self.shown[place:]]

    def image_token_candidates(self) -> list[int]:
        """Tokens that an image may be sent as: those it consists of, the most frequent first."""
        counts: Counter[int] = Counter()
        for span in self.spans:
            counts.update(self.shown[span.offset : span.offset + span.length])
        return [token for token, _ in counts.most_common()]


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Features(msgspec.Struct):
    mm_placeholders: dict[str, list[Span]]


class _Render(msgspec.Struct):
    token_ids: list[int]
    features: _Features | None = None


_tokens = msgspec.json.Decoder(_Tokens)
_render = msgspec.json.Decoder(_Render)


def tokenize_body(
    model: str, prompt: Prompt, messages: Sequence[Mapping[str, Any]], template: Mapping[str, Any]
) -> dict[str, Any]:
    """A request to `/tokenize`: a plain text as it is, a conversation through the chat template."""
    if isinstance(prompt, str):
        return {"model": model, "prompt": prompt, "add_special_tokens": True}
    body = {"model": model, "messages": list(messages), "add_generation_prompt": True}
    return {**body, "chat_template_kwargs": dict(template)} if template else body


def render_body(model: str, messages: Sequence[Mapping[str, Any]], template: Mapping[str, Any]) -> dict[str, Any]:
    """A request to `/v1/chat/completions/render`: as for a chat, but only what the model would see is returned."""
    body = {"model": model, "messages": list(messages), "max_tokens": 1}
    return {**body, "chat_template_kwargs": dict(template)} if template else body


def read_tokens(content: bytes) -> Rendered:
    """The prompt in an answer of `/tokenize`."""
    return Rendered(tuple(decoded(_tokens, content).tokens))


def read_render(content: bytes) -> Rendered:
    """The prompt in an answer of `/v1/chat/completions/render`."""
    answer = decoded(_render, content)
    spans = answer.features.mm_placeholders.get("image", []) if answer.features else []
    return Rendered(tuple(answer.token_ids), tuple(sorted(spans, key=lambda span: span.offset)))


def image_key(image: Any) -> str:
    """Names an image by its mode and pixels."""
    return f"{image.mode} {image_hash(image)}"


def prompt_key(prompt: Prompt) -> str:
    """Names a prompt by its content, images by their pixels."""
    if isinstance(prompt, str):
        return f"text {hashlib.sha256(prompt.encode()).hexdigest()}"
    return content_hash(prompt)
