"""Several servers of the same model as one backend: every request goes to whichever server is free."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias

import httpx

from kepo.errors import ConfigError, KepoError
from kepo.evaluation.generate import Output, Sampling
from kepo.evaluation.openai_server import OpenAIBackend
from kepo.types import Conversation

_Place: TypeAlias = "tuple[int, int]"
"""(prompt, sample): which output a request is for."""


class SeveralServers:
    """Servers of one model; implements `kepo.evaluation.generate.Backend`.

    A server that fails, after its own attempts, is left out for good; its requests go to the others.

    Args:
        servers: At least one, all with the same model.
        left_out: Called once with a sentence on every server that is left out.

    Raises:
        ConfigError: no server, two with one address, or with different models.
    """

    kind = "openai"
    fingerprint = ""

    def __init__(self, servers: Sequence[OpenAIBackend], left_out: Callable[[str], None]) -> None:
        addresses = [server.base_url.rstrip("/") for server in servers]
        twice = next((one for one in addresses if addresses.count(one) > 1), None)
        if not servers or twice or len({server.model for server in servers}) > 1:
            raise ConfigError(
                f"the server {twice!r} is named twice; name each once"
                if twice
                else "several servers must serve one model; name at least one, and the same model for all"
            )
        self.model = servers[0].model
        self.batch_size = sum(server.batch_size for server in servers)
        self._servers = list(servers)
        self._left_out = left_out

    def generate(self, prompts: Sequence[Conversation], sampling: Sampling, seeds: Sequence[int]) -> list[list[Output]]:
        """See `kepo.evaluation.generate.Backend`.

        Raises:
            ConfigError, KepoError: what the last server failed with, when none is left.
        """
        return asyncio.run(self._generate(prompts, sampling, seeds))

    async def _generate(
        self, prompts: Sequence[Conversation], sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Output]]:
        bodies = self._servers[0].requests(prompts, sampling, seeds)
        waiting = deque((prompt, sample) for prompt, row in enumerate(bodies) for sample in range(len(row)))
        answers: dict[_Place, Output] = {}
        async with AsyncExitStack() as stack:
            clients = {id(one): await stack.enter_async_context(one.client()) for one in self._servers}

            async def serve(server: OpenAIBackend, client: httpx.AsyncClient) -> None:
                while waiting and server in self._servers:
                    place = waiting.popleft()
                    try:
                        answers[place] = await server.answer(client, bodies[place[0]][place[1]])
                    except KepoError as error:
                        waiting.append(place)
                        self._leave_out(server, error)

            # A server may fail when the others are done already; then they are asked for what it left.
            while waiting:
                try:
                    async with asyncio.TaskGroup() as group:
                        for server in list(self._servers):
                            for _ in range(server.concurrency):
                                group.create_task(serve(server, clients[id(server)]))
                except ExceptionGroup as failures:
                    # Only the last server's failure is raised.
                    raise failures.exceptions[0] from None
        return [[answers[prompt, sample] for sample in range(len(row))] for prompt, row in enumerate(bodies)]

    def _leave_out(self, server: OpenAIBackend, error: KepoError) -> None:
        if server not in self._servers:
            return
        if len(self._servers) == 1:
            raise error
        self._servers.remove(server)
        self._left_out(f"{error} It is left out; {len(self._servers)} server(s) go on.")
