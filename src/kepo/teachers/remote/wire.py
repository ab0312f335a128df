"""The wire of scoring: prompts as token ids, requests for the K likeliest tokens of a completion, and their answers.

The teacher reads the student's own prompt ids. Where there are images, the server's chat template and processor render
the prompt once, which tells the tokens that an image takes there. These are many ("shown"); a request with token ids
holds one token in their place ("sent"), which the server replaces. Which token that is depends on the model and is
found out by trying.

vLLM returns "prompt log-probabilities": at each position of what was sent, the K likeliest tokens and the token that
stands there. Token ids go in and token ids come back, no text: nothing can be tokenized in another way on the way, and
the server does not decode K candidates a position (verl #7648). That the answer belongs to what was sent is proven, not
assumed: the ids must come back, and every position must hold the token that was sent there.

Legend: P prompt tokens, T completion tokens, K candidates.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from kepo.files import content_hash, image_hash
from kepo.servers.chat import wire_messages
from kepo.servers.endpoint import Fault, FaultKind, decoded
from kepo.teachers.base import ScoreRequest, SparseScores
from kepo.teachers.reading import with_images_of
from kepo.types import Conversation, Prompt

# What JSON has instead of -inf.
_LEAST = -9999.0


class Span(msgspec.Struct, frozen=True):
    """The tokens of one image: `length` of them from `offset` on."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as token ids."""

    shown: tuple[int, ...]  # (P) what the model sees
    spans: tuple[Span, ...] = ()  # where the images lie in it, in their order

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
        counts = Counter(token for span in self.spans for token in self.shown[span.offset : span.offset + span.length])
        return [token for token, _ in counts.most_common()]

    def of_student(self, given: Sequence[int]) -> Rendered | None:
        """The student's prompt with this one's images: `given` (P) are its ids; None where the images do not fit in."""
        for token in self.image_token_candidates():
            ids = with_images_of(given, self.shown, token)
            spans = None if ids is None else self._spans_in(ids)
            if ids is not None and spans is not None:
                return Rendered(tuple(ids), spans)
        return None

    def _spans_in(self, ids: Sequence[int]) -> tuple[Span, ...] | None:
        """Where the images of this prompt lie in other ids; None where one is missing, or there are more."""
        found: list[Span] = []
        place = 0
        for span in self.spans:
            image = list(self.shown[span.offset : span.offset + span.length])
            starts = range(place, len(ids) - span.length + 1)
            start = next((one for one in starts if list(ids[one : one + span.length]) == image), None)
            if start is None:
                return None
            found.append(Span(start, span.length))
            place = start + span.length
        return tuple(found)


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Features(msgspec.Struct):
    mm_placeholders: dict[str, list[Span]]


class _Render(msgspec.Struct):
    token_ids: list[int]
    features: _Features | None = None


class _Candidate(msgspec.Struct, gc=False):
    logprob: float


class _Scored(msgspec.Struct):
    """`/inference/v1/generate`'s answer, and a choice of `/v1/completions`'."""

    # Left undecoded: the positions of the prompt, an image's hundreds among them, are not read.
    prompt_logprobs: list[msgspec.Raw] | None = None
    prompt_token_ids: list[int] | None = None


class _Completions(msgspec.Struct):
    choices: list[_Scored]


def tokenize_body(model: str, prompt: Prompt, template: Mapping[str, Any]) -> dict[str, Any]:
    """A request to `/tokenize`: a plain text as it is, a conversation through the chat template."""
    if isinstance(prompt, str):
        return {"model": model, "prompt": prompt, "add_special_tokens": True}
    return _chat_body(model, prompt, template, add_generation_prompt=True)


def render_body(model: str, prompt: Prompt, template: Mapping[str, Any]) -> dict[str, Any]:
    """A request to `/v1/chat/completions/render`: as for a chat, but only what the model would see is returned."""
    assert not isinstance(prompt, str)
    return _chat_body(model, prompt, template, max_tokens=1)


def _chat_body(model: str, prompt: Conversation, template: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": wire_messages(prompt), **fields}
    return {**body, "chat_template_kwargs": dict(template)} if template else body


def read_tokens(content: bytes) -> Rendered:
    """The prompt in an answer of `/tokenize`."""
    return Rendered(tuple(decoded(_Tokens, content).tokens))


def read_render(content: bytes) -> Rendered:
    """The prompt in an answer of `/v1/chat/completions/render`."""
    answer = decoded(_Render, content)
    spans = answer.features.mm_placeholders.get("image", []) if answer.features else []
    return Rendered(tuple(answer.token_ids), tuple(sorted(spans, key=lambda span: span.offset)))


def image_key(image: Any) -> str:
    """Names an image by its mode and pixels."""
    return f"{image.mode} {image_hash(image)}"


def row_key(request: ScoreRequest) -> tuple[Any, ...]:
    """What makes two rows the same question to the teacher."""
    images = tuple(image_key(image) for image in request.tool_images)
    return prompt_key(request.prompt), request.prompt_ids, request.completion_ids, images


def prompt_key(prompt: Prompt) -> str:
    """Names a prompt by its content, images by their pixels."""
    if isinstance(prompt, str):
        return f"text {hashlib.sha256(prompt.encode()).hexdigest()}"
    return content_hash(prompt)


def generate_body(model: str, ids: Sequence[int], image_uris: Sequence[str], top_k: int) -> dict[str, Any]:
    """A request to `/inference/v1/generate`, which takes token ids and images, and can leave candidates undecoded.

    `ids` are prompt and completion, with one token for every image; `image_uris` are the images in their order.
    """
    body: dict[str, Any] = {
        "model": model,
        "token_ids": list(ids),
        "return_token_ids": True,
        # One token is the least that can be generated.
        "sampling_params": {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": top_k, "detokenize": False},
    }
    if image_uris:
        body["content_parts"] = [{"type": "image_url", "url": uri} for uri in image_uris]
    return body


def completions_body(model: str, ids: Sequence[int], top_k: int) -> dict[str, Any]:
    """A request to `/v1/completions`, for servers without `/inference/v1/generate`; it takes no images."""
    sampling = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": top_k}
    return {"model": model, "prompt": list(ids), **sampling, "return_token_ids": True}


def read_generate(content: bytes, shown: Sequence[int], completion: Sequence[int], top_k: int) -> SparseScores:
    """The scores in an answer of `/inference/v1/generate`.

    `shown` (P) is the prompt as the model sees it, images expanded; `completion` (T) the student's tokens. `ids` and
    `logps` are (T, K + 1): the candidates and, where it is not among them, the student's own token.

    Raises:
        Fault: the answer is in another form or incomplete ("malformed"), or not about these tokens ("misaligned").
    """
    return _scores(decoded(_Scored, content), shown, completion, top_k)


def read_completions(content: bytes, shown: Sequence[int], completion: Sequence[int], top_k: int) -> SparseScores:
    """As `read_generate`, from an answer of `/v1/completions`."""
    choices = decoded(_Completions, content).choices
    if len(choices) != 1:
        raise Fault(FaultKind.MALFORMED, f"it returned {len(choices)} choices where one was asked for")
    return _scores(choices[0], shown, completion, top_k)


def _scores(answer: _Scored, shown: Sequence[int], completion: Sequence[int], top_k: int) -> SparseScores:
    expected = [*shown, *completion]
    returned = answer.prompt_token_ids
    # Servers without this field prove the alignment by the tokens of the positions alone.
    if returned is not None and returned != expected:
        raise Fault(FaultKind.MISALIGNED, _difference(expected, returned))
    positions = answer.prompt_logprobs
    if positions is None:
        raise Fault(FaultKind.MALFORMED, "its answer has no prompt_logprobs")
    if len(positions) != len(expected):
        problem = f"its answer has log-probabilities for {len(positions)} tokens, but {len(expected)} were sent"
        raise Fault(FaultKind.MISALIGNED, problem)
    rows = [decoded(dict[int, _Candidate], raw) for raw in positions[len(shown) :]]
    ids, logps, own = [], [], []
    for place, (row, token) in enumerate(zip(rows, completion, strict=True)):
        if token not in row:
            problem = (
                f"at completion token {place} it speaks of {sorted(row)[:4]}, not of token {token}, which was sent"
            )
            raise Fault(FaultKind.MISALIGNED, problem)
        if not top_k <= len(row) <= top_k + 1:
            raise Fault(FaultKind.MALFORMED, f"it returned {len(row)} candidates where {top_k} were asked for")
        padding = top_k + 1 - len(row)
        ids.append([*row, *[0] * padding])
        logps.append([*[candidate.logprob for candidate in row.values()], *[_LEAST] * padding])
        own.append(row[token].logprob)
    table = torch.tensor(logps)  # (T, K + 1)
    if bool((table > 1e-3).any()):
        raise Fault(FaultKind.MALFORMED, "it returned log-probabilities above 0")
    table = table.masked_fill(table <= _LEAST, -math.inf)
    return SparseScores(ids=torch.tensor(ids), logps=table, token_logps=torch.tensor(own))


def _difference(expected: Sequence[int], returned: Sequence[int]) -> str:
    place = next(
        (place for place, pair in enumerate(zip(expected, returned, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(returned)),
    )
    return (
        f"it scored other tokens than those sent: {len(expected)} were sent and {len(returned)} came back, and they "
        f"differ from place {place} on ({list(expected[place : place + 4])} was sent, "
        f"{list(returned[place : place + 4])} came back)"
    )
