"""Scores of rows, over whichever of vLLM's two APIs the servers offer.

`/inference/v1/generate` takes token ids and images (`vllm serve --enable-scale-out`); `/v1/completions`, which every
vLLM has, takes the token ids of text prompts. Both are proven to have read what was sent.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from kepo.errors import TeacherError
from kepo.prompts import prompt_images
from kepo.servers.chat import data_uri
from kepo.servers.endpoint import Fault, RefusedError
from kepo.servers.pool import Pool
from kepo.teachers.base import ScoreRequest, SparseScores
from kepo.teachers.reading import Difference
from kepo.teachers.remote import wire
from kepo.teachers.remote.wire import Rendered
from kepo.types import Prompt

V = TypeVar("V")

_GENERATE = "/inference/v1/generate"
# What a server answers where an API is switched off or unknown.
_NOT_OFFERED = frozenset({403, 404, 405, 501})
_REMEMBERED_PROMPTS = 4096
_REMEMBERED_IMAGES = 64


class Scorer:
    """Asks a pool for scores of rows; lives in its event loop.

    Args:
        pool: The servers.
        top_k: K >= 1.
        template: Variables of the chat template, for prompts that the server renders.

    Attributes:
        tokenizer: Writes token ids of messages as text; None: they stay numbers.
    """

    def __init__(self, pool: Pool, top_k: int, template: Mapping[str, Any]) -> None:
        self._pool = pool
        self._top_k = top_k
        self._template = template
        self.tokenizer: Any = None
        self._difference = Difference()
        self._takes_images: bool | None = None  # None: not tried yet
        self._image_token: int | None = None
        self._trying = asyncio.Lock()
        self._renderings: OrderedDict[str, asyncio.Task[Rendered]] = OrderedDict()
        self._uris: OrderedDict[str, str] = OrderedDict()

    async def score(self, request: ScoreRequest) -> SparseScores:
        """The scores of one row.

        Raises:
            TeacherError: the servers cannot score such a prompt; besides, what `Pool.ask` raises.
        """
        if request.tool_images:
            raise TeacherError(
                "A tool returned an image, and a served teacher cannot be shown it inside a completion. Use a local "
                "teacher, or tools that return text."
            )
        rendered = await self._read(request)
        images, completion = prompt_images(request.prompt), request.completion_ids
        ids = [*rendered.sent(self._image_token), *completion]
        if self._takes_images:
            return await self._pool.ask(
                _GENERATE,
                lambda: wire.generate_body(self._pool.model, ids, self._image_uris(images), self._top_k),
                lambda content: wire.read_generate(content, rendered.shown, completion, self._top_k),
            )
        return await self._pool.ask(
            "completions",
            lambda: wire.completions_body(self._pool.model, ids, self._top_k),
            lambda content: wire.read_completions(content, rendered.shown, completion, self._top_k),
        )

    async def _read(self, request: ScoreRequest) -> Rendered:
        """The prompt that the teacher reads: the student's own, with images as long as the server takes them."""
        given = request.prompt_ids
        if given is not None and not prompt_images(request.prompt):
            rendered = Rendered(given)
            await self._find_out(request.prompt, rendered)
            return rendered
        own = await self._rendering(request.prompt)
        await self._find_out(request.prompt, own)
        found = own if given is None else own.of_student(given)
        if found is None:
            self._difference.say(given or (), own.shown, self.tokenizer)
        return found or own

    async def try_out(self, prompt: Prompt) -> None:
        """Score one token after `prompt`; an error says what the server lacks, and how to start it."""
        try:
            rendered = await self._rendering(prompt)
            await self.score(ScoreRequest(prompt, rendered.shown[-1:]))
        except RefusedError as error:
            raise TeacherError(
                f"{error} The teacher's scores need a vLLM server, started with `--max-logprobs {self._top_k}` (or set "
                "teacher_top_k to what it allows)."
            ) from None

    async def _rendering(self, prompt: Prompt) -> Rendered:
        """The prompt as the server renders it; the rows of a group, and later epochs, share one."""
        key = wire.prompt_key(prompt)
        task = self._renderings.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._render(prompt))
            _remember(self._renderings, key, task, _REMEMBERED_PROMPTS)
        # Shielded, because it belongs to other rows too.
        return await asyncio.shield(task)

    async def _render(self, prompt: Prompt) -> Rendered:
        if isinstance(prompt, str) or not prompt_images(prompt):
            body = partial(wire.tokenize_body, self._pool.model, prompt, self._template)
            return await self._pool.ask("/tokenize", body, wire.read_tokens)
        body = partial(wire.render_body, self._pool.model, prompt, self._template)
        try:
            return await self._pool.ask("chat/completions/render", body, wire.read_render)
        except RefusedError as error:
            if error.status not in _NOT_OFFERED:
                raise
            raise TeacherError(
                f"{error} Scores of prompts with images need vLLM's token-level API: start the server with "
                f"`--enable-scale-out --max-logprobs {self._top_k}`."
            ) from None

    async def _find_out(self, prompt: Prompt, rendered: Rendered) -> None:
        """Which API to use, and which token stands for an image: once for all rows."""
        async with self._trying:
            if self._takes_images is None:
                self._takes_images = await self._offers_generate(rendered.shown[-1])
            if rendered.spans and self._image_token is None:
                self._image_token = await self._image_token_of(prompt, rendered)

    async def _offers_generate(self, token: int) -> bool:
        body = partial(wire.generate_body, self._pool.model, [token, token], [], self._top_k)
        try:
            await self._pool.ask(_GENERATE, body, lambda _: None)
        except RefusedError as error:
            if error.status in _NOT_OFFERED:
                return False
            raise
        return True

    async def _image_token_of(self, prompt: Prompt, rendered: Rendered) -> int:
        """The token that the server replaces by an image: the one with which it sees what it rendered itself."""
        probe, uris = rendered.shown[-1:], self._image_uris(prompt_images(prompt))

        def fits(content: bytes) -> bool:
            try:
                wire.read_generate(content, rendered.shown, probe, self._top_k)
            except Fault:
                return False
            return True

        for token in rendered.image_token_candidates():
            body = partial(wire.generate_body, self._pool.model, [*rendered.sent(token), *probe], uris, self._top_k)
            try:
                if await self._pool.ask(_GENERATE, body, fits):
                    return token
            except RefusedError:
                continue  # it knows no image under this token
        raise TeacherError(
            f"The server does not see a prompt with images as it renders it itself (model {self._pool.model!r}): its "
            "scores would belong to another prompt. Use it for hints only (distillation_weight: 0), or a local teacher."
        )

    def _image_uris(self, images: Sequence[Any]) -> list[str]:
        uris = []
        for image in images:
            key = wire.image_key(image)
            if key not in self._uris:
                _remember(self._uris, key, data_uri(image), _REMEMBERED_IMAGES)
            uris.append(self._uris[key])
        return uris


def _remember(memory: OrderedDict[str, V], key: str, value: V, most: int) -> None:
    """Add to `memory`, and forget the oldest beyond `most`."""
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > most:
        memory.popitem(last=False)
