"""An event loop in a thread of its own, so that synchronous code can leave requests running while it works on."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from kepo.errors import KepoError

T = TypeVar("T")


class Background:
    """Runs coroutine functions in a thread, which starts with the first of them and ends with the process."""

    def __init__(self) -> None:
        self._portal: BlockingPortal | None = None
        self._end: Callable[[], object] = lambda: None
        self._starting = threading.Lock()

    def start(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> Future[T]:
        """Begin `function(*arguments)`; its result is in the future."""
        return self._running().start_task_soon(function, *arguments)

    def run(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Wait for the result of `function(*arguments)`."""
        return result_of(self.start(function, *arguments))

    def close(self) -> None:
        """End the thread; whatever still runs is cancelled. The next `start` begins another one."""
        with self._starting:
            self._portal = None
            self._end()

    def _running(self) -> BlockingPortal:
        with self._starting:
            if self._portal is None:
                opened = start_blocking_portal(name="kepo-requests")
                self._portal = opened.__enter__()
                # Also called when the process ends, which does not wait for a server.
                self._end = weakref.finalize(self, _end, self._portal, opened)
            return self._portal


def _end(portal: BlockingPortal, opened: AbstractContextManager[BlockingPortal]) -> None:
    portal.call(portal.stop, True)
    opened.__exit__(None, None, None)


def result_of(future: Future[T]) -> T:
    """Wait for the result in `future`; what interrupts the wait (Ctrl-C) cancels it."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


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
