"""An event loop in a thread of its own, so that synchronous code can leave requests running while it works on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from kepo.errors import KepoError

T = TypeVar("T")


class Background:
    """Runs coroutines in a daemon thread, which starts with the first of them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `coroutine`; its result is in the future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for the result of `coroutine`; what interrupts the wait (Ctrl-C) cancels it."""
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread; whatever still runs is cancelled."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon, because a process that ends does not wait for a server.
                threading.Thread(target=self._loop.run_forever, name="kepo-requests", daemon=True).start()
            return self._loop


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines that run side by side, in order.

    Raises:
        KepoError: what the first that failed raised; the others are ended.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except* KepoError as failures:
        first = failures.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise first
