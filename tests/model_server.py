"""A server with vLLM's API and a real tiny model behind it."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import torch
from PIL import Image

from kepo.models.encoding import encode, tokenizer_of
from kepo.teachers.local import LocalTeacher
from tests.fake_vllm import MODEL
from tests.http_server import Reply, Server

IMAGE_TOKENS = 4  # that an image takes in the tiny models


class ModelServer(Server):
    """Answers as vLLM does, with the model and the chat template of a local teacher."""

    def __init__(self, teacher: LocalTeacher) -> None:
        super().__init__()
        self._teacher = teacher
        self._image_token = getattr(teacher.model.config, "image_token_id", None)
        self.reply = self.answer

    def answer(self, number: int, body: Any) -> Reply:
        """The answer to one request."""
        content: Any = {}
        match self.paths[number]:
            case "/v1/models":
                content = {"data": [{"id": MODEL}]}
            case "/detokenize":
                ids = body["tokens"]
                content = {"prompt": self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)}
            case "/tokenize":
                content = {"tokens": self._render(body.get("prompt") or body["messages"])}
            case "/v1/chat/completions/render":
                ids = self._render(body["messages"])
                content = {"token_ids": ids, "features": {"mm_placeholders": {"image": self._spans(ids)}}}
            case "/inference/v1/generate":
                images = [_decoded(part["url"]) for part in body.get("content_parts", [])]
                content = self._scored(body["token_ids"], images, body["sampling_params"]["prompt_logprobs"])
            case _:
                return 404, {}, "Not Found"
        return 200, {}, json.dumps(content)

    @property
    def _tokenizer(self) -> Any:
        return tokenizer_of(self._teacher.processor)

    def _render(self, prompt: Any) -> list[int]:
        if not isinstance(prompt, str):
            prompt = [{**message, "content": _parts(message["content"])} for message in prompt]
        ids: list[int] = encode(self._teacher.processor, [prompt], None, "cpu")["input_ids"][0].tolist()
        return ids

    def _spans(self, ids: list[int]) -> list[dict[str, int]]:
        places = [place for place, token in enumerate(ids) if token == self._image_token]
        return [{"offset": place, "length": IMAGE_TOKENS} for place in places[::IMAGE_TOKENS]]

    @torch.no_grad()
    def _scored(self, ids: list[int], images: list[Any], top_k: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if images:
            ids = [one for token in ids for one in [token] * (IMAGE_TOKENS if token == self._image_token else 1)]
            fields = dict(self._teacher.processor.image_processor(images=images, return_tensors="pt"))
        logps = self._teacher.model(input_ids=torch.tensor([ids]), **fields).logits[0].log_softmax(-1)
        positions: list[Any] = [None]
        for row, token in zip(logps[:-1], ids[1:], strict=True):
            likeliest = row.topk(top_k).indices.tolist()
            positions.append({str(one): {"logprob": row[one].item()} for one in {token: 0, **dict.fromkeys(likeliest)}})
        return {"prompt_token_ids": ids, "prompt_logprobs": positions}


def _parts(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [
        {"type": "image", "image": _decoded(part["image_url"]["url"])} if part["type"] == "image_url" else part
        for part in content
    ]


def _decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
