"""Is it the server that was promised: its model, and a vocabulary in which the student's tokens mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kepo.errors import TeacherError
from kepo.servers.endpoint import decoded

# Tokens decoded in one request, and in the check of a server that is back.
_CHUNK = 4096
_SAMPLE = 64


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Text(msgspec.Struct):
    prompt: str


@dataclass(frozen=True, slots=True)
class Passage:
    """Some of the student's tokens, and how the student's tokenizer decodes them."""

    ids: tuple[int, ...]
    text: str


def passages(tokenizer: Any, vocab_size: int) -> list[Passage]:
    """The student's whole vocabulary (ids below `vocab_size`), in pieces that a server can be asked to decode."""
    ids = sorted(index for index in tokenizer.get_vocab().values() if index < vocab_size)
    return [_passage(ids[start : start + _CHUNK], tokenizer) for start in range(0, len(ids), _CHUNK)]


def sample(found: Sequence[Passage], tokenizer: Any) -> Passage:
    """A few tokens from all over the vocabulary, to recognize a server by."""
    ids = [token for passage in found for token in passage.ids]
    return _passage(ids[:: max(len(ids) // _SAMPLE, 1)], tokenizer)


def _passage(ids: Sequence[int], tokenizer: Any) -> Passage:
    return Passage(tuple(ids), tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def detokenize_body(model: str, passage: Passage) -> dict[str, Any]:
    """A request to `/detokenize`."""
    return {"model": model, "tokens": list(passage.ids)}


def read_models(content: bytes, model: str, url: str) -> None:
    """Refuse, with a `TeacherError`, a server whose list of models lacks `model`."""
    found = decoded(_Models, content, "its list of models").data
    if any(one.id == model for one in found):
        return
    served = ", ".join(repr(one.id) for one in found) or "none"
    raise TeacherError(
        f"The server {url} does not serve the teacher {model!r}, but {served}. Name one of these as "
        "teacher_model_name_or_path, or start the server with the promised model."
    )


def read_text(content: bytes, passage: Passage, url: str) -> None:
    """Refuse, with a `TeacherError`, a server that decodes a passage otherwise than the student."""
    text = decoded(_Text, content).prompt
    if text == passage.text:
        return
    first, last = passage.ids[0], passage.ids[-1]
    place = next((n for n, pair in enumerate(zip(text, passage.text, strict=False)) if pair[0] != pair[1]), 0)
    raise TeacherError(
        f"The teacher at {url} cannot score this student's tokens: the token ids {first}..{last} read otherwise there "
        f"({text[place : place + 20]!r} instead of {passage.text[place : place + 20]!r}). Use a teacher of the "
        "student's tokenizer family, or distillation_weight: 0 to use it for hints only."
    )
