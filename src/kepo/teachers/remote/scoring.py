"""The wire of scoring: a request for the teacher's K likeliest tokens at every token of a completion, and its answer.

vLLM returns "prompt log-probabilities": at each position of what was sent, the K likeliest tokens and the token that
stands there. Token ids go in and token ids come back, no text: nothing can be tokenized in another way on the way, and
the server does not decode K candidates a position (verl #7648). That the answer belongs to what was sent is proven, not
assumed: the ids must come back, and every position must hold the token that was sent there.

Legend: P prompt tokens, T completion tokens, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import torch

from kepo.servers.endpoint import Fault, FaultKind, decoded
from kepo.teachers.base import SparseScores

# What JSON has instead of -inf.
_LEAST = -9999.0


class _Candidate(msgspec.Struct, gc=False):
    logprob: float


class _Scored(msgspec.Struct):
    """`/inference/v1/generate`'s answer, and a choice of `/v1/completions`'."""

    # Left undecoded: the positions of the prompt, an image's hundreds among them, are not looked at.
    prompt_logprobs: list[msgspec.Raw] | None = None
    prompt_token_ids: list[int] | None = None


class _Completions(msgspec.Struct):
    choices: list[_Scored]


_position = msgspec.json.Decoder(dict[int, _Candidate])
_scored = msgspec.json.Decoder(_Scored)
_completions = msgspec.json.Decoder(_Completions)


def generate_body(model: str, ids: Sequence[int], image_uris: Sequence[str], top_k: int) -> dict[str, Any]:
    """A request to `/inference/v1/generate`, which takes token ids and images, and can leave candidates undecoded.

    Args:
        model: Name of the model.
        ids: Prompt and completion; every image is one token, which the server replaces by the image's own.
        image_uris: The images in their order.
        top_k: K.
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
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": top_k,
        "return_token_ids": True,
    }


def read_generate(content: bytes, shown: Sequence[int], completion: Sequence[int], top_k: int) -> SparseScores:
    """The scores in an answer of `/inference/v1/generate`.

    Args:
        content: The answer.
        shown: (P) the prompt as the model sees it, images expanded.
        completion: (T) the student's tokens.
        top_k: K.

    Returns:
        `ids` and `logps` are (T, K + 1): the candidates and, where it is not among them, the student's own token.

    Raises:
        Fault: the answer is no such answer, or incomplete ("malformed"), or is not about these tokens ("misaligned").
    """
    return _scores(decoded(_scored, content), shown, completion, top_k)


def read_completions(content: bytes, shown: Sequence[int], completion: Sequence[int], top_k: int) -> SparseScores:
    """As `read_generate`, from an answer of `/v1/completions`."""
    choices = decoded(_completions, content).choices
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
    rows = [decoded(_position, raw) for raw in positions[len(shown) :]]
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
