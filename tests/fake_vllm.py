"""A server with vLLM's API and a model that a hand can compute: the next token depends on the last one alone.

Sixteen tokens, one character each. An image is four tokens to the model (`SHOWN_IMAGE`) and one in requests (`IMAGE`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

from tests.http_server import Reply, Server, completion

MODEL = "toy"
CHARACTERS = "abcdefghijklmn<@"
V = len(CHARACTERS)
AROUND, IMAGE = CHARACTERS.index("<"), CHARACTERS.index("@")
SHOWN_IMAGE = [AROUND, IMAGE, IMAGE, AROUND]
NOT_OFFERED: Reply = (403, {}, "Scale-out endpoints are disabled")


def logps(last: int) -> list[float]:
    """Log-probabilities of all tokens after `last`."""
    logits = [((last * 7 + token * 3) % 11) / 3 for token in range(V)]
    z = math.log(sum(math.exp(logit) for logit in logits))
    return [logit - z for logit in logits]


class ToyTokenizer:
    """The student's tokenizer."""

    def __init__(self, characters: str = CHARACTERS) -> None:
        self._characters = characters

    def get_vocab(self) -> dict[str, int]:
        return {character: index for index, character in enumerate(self._characters)}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(self._characters[index] for index in ids)


class FakeVLLM(Server):
    """Answers as vLLM does.

    Attributes:
        max_logprobs: Largest K.
        token_api: Whether the token-level API is switched on.
        characters: What its tokens read as.
        served: Name of its model.
        replaces: The token that it replaces by an image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.max_logprobs = 8
        self.token_api = True
        self.characters = CHARACTERS
        self.served = MODEL
        self.replaces = IMAGE
        self.reply = self.answer

    def answer(self, number: int, body: Any) -> Reply:
        """The answer to a request that nothing goes wrong with."""
        path = self.paths[number]
        if path == "/v1/models":
            return 200, {}, json.dumps({"data": [{"id": self.served, "max_model_len": 512}]})
        if body["model"] != self.served:
            return 404, {}, f"The model {body['model']} does not exist"
        if path == "/detokenize":
            return 200, {}, json.dumps({"prompt": "".join(self.characters[token] for token in body["tokens"])})
        if path == "/tokenize":
            text = body["prompt"] if "prompt" in body else self._template(body["messages"])
            return 200, {}, json.dumps({"tokens": self._encode(text)})
        if path == "/v1/chat/completions/render":
            return self._render(body) if self.token_api else NOT_OFFERED
        if path == "/v1/chat/completions":
            return completion(f"<hint>{self._template(body['messages'])} {body['seed']}</hint>")
        if path == "/inference/v1/generate":
            if not self.token_api:
                return NOT_OFFERED
            images = len(body.get("content_parts", []))
            return self._scored(body["token_ids"], images, body["sampling_params"]["prompt_logprobs"])
        if path == "/v1/completions":
            status, headers, text = self._scored(body["prompt"], 0, body["prompt_logprobs"])
            return status, headers, json.dumps({"choices": [json.loads(text)]}) if status == 200 else text
        return 404, {}, "Not Found"

    def requests_to(self, path: str) -> list[Any]:
        """The bodies of all requests to one path."""
        return [body for body, where in zip(self.bodies, self.paths, strict=True) if where == path]

    def _template(self, messages: list[dict[str, Any]]) -> str:
        parts = []
        for message in messages:
            content = message["content"]
            texts = [content] if isinstance(content, str) else [part.get("text", "@") for part in content]
            parts.append("".join(texts))
        return "a" + "b".join(parts) + "c"

    def _encode(self, text: str) -> list[int]:
        return [CHARACTERS.index(character) for character in text if character in CHARACTERS]

    def _render(self, body: dict[str, Any]) -> Reply:
        ids, spans = [], []
        for token in self._encode(self._template(body["messages"])):
            if token == IMAGE:
                spans.append({"offset": len(ids), "length": len(SHOWN_IMAGE)})
                ids += SHOWN_IMAGE
            else:
                ids.append(token)
        features = {"mm_placeholders": {"image": spans}, "mm_hashes": {"image": ["x"] * len(spans)}}
        return 200, {}, json.dumps({"token_ids": ids, "features": features if spans else None})

    def _scored(self, ids: list[int], images: int, top_k: int) -> Reply:
        if top_k > self.max_logprobs:
            return 400, {}, f"Requested prompt logprobs of {top_k}, which is greater than max allowed: 8"
        if images and ids.count(self.replaces) < images:
            return 400, {}, "Failed to apply prompt replacement"
        if images:
            place = ids.index(self.replaces)
            ids = [*ids[:place], *SHOWN_IMAGE, *ids[place + 1 :]]
        positions: list[Any] = [None]
        for last, token in itertools.pairwise(ids):
            row = logps(last)
            order = sorted(range(V), key=lambda one: -row[one])[:top_k]
            positions.append({str(one): {"logprob": row[one], "rank": 1} for one in {token: 0, **dict.fromkeys(order)}})
        return 200, {}, json.dumps({"prompt_token_ids": ids, "prompt_logprobs": positions})
