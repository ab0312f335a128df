"""Is it the server that was promised: its model, and a vocabulary in which the student's tokens mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kepo.errors import TeacherError
from kepo.servers.endpoint import decoded

# Tokens decoded in one request.
_CHUNK = 4096


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Text(msgspec.Struct):
    prompt: str


_models = msgspec.json.Decoder(_Models)
_text = msgspec.json.Decoder(_Text)


@dataclass(frozen=True, slots=True)
class Passage:
    """Some of the student's tokens, and what they read as.

    Attributes:
        ids: Token ids.
        text: As the student's tokenizer decodes them.
    """

    ids: tuple[int, ...]
    text: str


def passages(tokenizer: Any, vocab_size: int) -> list[Passage]:
    """The student's whole vocabulary, in pieces that a server can be asked to decode.

    Args:
        tokenizer: The student's tokenizer.
        vocab_size: Rows of the student's output head, the padding included.
    """
    ids = sorted(index for index in tokenizer.get_vocab().values() if index < vocab_size)
    pieces = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
    return [Passage(tuple(piece), tokenizer.decode(piece, clean_up_tokenization_spaces=False)) for piece in pieces]


def sample(found: Sequence[Passage], tokenizer: Any, count: int = 64) -> Passage:
    """A few tokens from all over the vocabulary, to know a server again by."""
    ids = [token for passage in found for token in passage.ids]
    chosen = ids[:: max(len(ids) // count, 1)]
    return Passage(tuple(chosen), tokenizer.decode(chosen, clean_up_tokenization_spaces=False))


def detokenize_body(model: str, passage: Passage) -> dict[str, Any]:
    """A request to `/detokenize`."""
    return {"model": model, "tokens": list(passage.ids)}


def read_models(content: bytes, model: str, url: str) -> None:
    """Look for `model` in a server's list of models.

    Raises:
        TeacherError: it serves other models.
        Fault: the answer is in another form.
    """
    found = decoded(_models, content, "its list of models").data
    if any(one.id == model for one in found):
        return
    served = ", ".join(repr(one.id) for one in found) or "none"
    raise TeacherError(
        f"The server {url} does not serve the teacher {model!r}, but {served}. Name one of these as "
        "teacher_model_name_or_path, or start the server with the promised model."
    )


def read_text(content: bytes, passage: Passage, url: str) -> None:
    """Compare what the server makes of a passage with the student's reading.

    Raises:
        TeacherError: they differ.
        Fault: the answer is in another form.
    """
    text = decoded(_text, content).prompt
    if text == passage.text:
        return
    first, last = passage.ids[0], passage.ids[-1]
    place = next((n for n, pair in enumerate(zip(text, passage.text, strict=False)) if pair[0] != pair[1]), 0)
    raise TeacherError(
        f"The teacher at {url} cannot score this student's tokens: the token ids {first}..{last} read otherwise there "
        f"({text[place : place + 20]!r} instead of {passage.text[place : place + 20]!r}). Use a teacher of the "
        "student's tokenizer family, or distillation_weight: 0 to use it for hints only."
    )
