"""Replicas of one model as one server: the least busy is asked; requests to one that fails are backed off.

Back-pressure is the pool's: a request waits for a place, and its body is only made when it has one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import tenacity

from kepo.errors import ConfigError, KepoError, check_whole
from kepo.servers.endpoint import OF_THE_SERVER, Endpoint, Fault, FaultKind, RefusedError

T = TypeVar("T")
Read: TypeAlias = Callable[[bytes], T]
"""Reads an answer; raises `Fault` for one that is not as it should be."""

_LONGEST_WAIT = 60.0
# Faults of the server in a row after which a user is told that it fails.
_FAILING_AFTER = 3
# Attempts of a request, and seconds between two sentences, when a user is told that it waits.
_PATIENCE = 6
_TOLD_EVERY = 60.0


class UnavailableError(KepoError):
    """All attempts of a request failed.

    Attributes:
        kind: The last fault's kind.
    """

    def __init__(self, message: str, kind: FaultKind) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class Replica:
    """One server of a pool, and how it is.

    Attributes:
        endpoint: Its address.
        in_flight: Requests it is working on.
        failures: Faults of the server in a row.
        backed_off_until: Monotonic time before which others are preferred, in seconds.
        unchecked: It failed since it was last checked.
    """

    endpoint: Endpoint
    in_flight: int = 0
    failures: int = 0
    backed_off_until: float = 0.0
    unchecked: bool = False

    def preference(self, now: float) -> tuple[bool, float, int]:
        """Sorts replicas: healthy ones by how busy they are, then those backed off by when they are due."""
        backed_off = now < self.backed_off_until or (self.failures > 0 and self.in_flight > 0)
        return backed_off, self.backed_off_until if backed_off else 0.0, self.in_flight


class Pool:
    """Asks servers of the same model; lives in one event loop; `close` it, or use it as `async with pool`.

    Args:
        endpoints: At least one, each with another address.
        model: The name under which they serve it; "" where requests name none.
        concurrency: Most requests at once to each, >= 1.
        attempts: How often a request is sent before it counts as failed, >= 1.
        patient: Send again for ever while a server is away or busy; answers that are incorrect still count.
        first_wait: Seconds before the second attempt; doubled each time, unless the server names a time.
        say: Called with a sentence when a server fails repeatedly or is back, and when a request waits long.
        recheck: Called before a server that failed is used again; raises KepoError when it is another one now.

    Attributes:
        faults: Every fault so far, by kind.
        model: As given.

    Raises:
        ConfigError: no endpoint, two of one address, or a number outside its range.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        model: str = "",
        *,
        concurrency: int = 16,
        attempts: int = 6,
        patient: bool = False,
        first_wait: float = 1.0,
        say: Callable[[str], None] | None = None,
        recheck: Callable[[Endpoint], Awaitable[None]] | None = None,
    ) -> None:
        addresses = [endpoint.base_url for endpoint in endpoints]
        twice = next((one for one in addresses if addresses.count(one) > 1), None)
        if twice or not addresses:
            raise ConfigError(f"the server {twice!r} is named twice; name each once" if twice else "name a server")
        check_whole("concurrency", concurrency, at_least=1)
        check_whole("attempts", attempts, at_least=1)
        self.replicas = [Replica(endpoint) for endpoint in endpoints]
        self.faults: Counter[FaultKind] = Counter()
        self.concurrency = concurrency
        self.model = model
        self._attempts = attempts
        self._patient = patient
        self._first_wait = first_wait
        self._say = say or (lambda _: None)
        self._recheck = recheck
        self._free = asyncio.Condition()
        self._told_at = -math.inf

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        for replica in self.replicas:
            await replica.endpoint.close()

    async def ask(self, path: str, body: Callable[[], Any] | None, read: Read[T], replica: Replica | None = None) -> T:
        """What `read` makes of the answer to one request; a fault is another attempt, on another server if any.

        Args:
            path: Of the request, see `Endpoint.url`.
            body: Makes the request's body; None for a GET request. Called when there is a place.
            read: Reads the answer.
            replica: Ask this one only.

        Raises:
            RefusedError: the server refuses it (key, model name, length).
            UnavailableError: all attempts failed.
        """

        async def once() -> T:
            chosen = await self._take_place([replica] if replica else self.replicas)
            try:
                return await self._attempt(chosen, path, body, read)
            finally:
                async with self._free:
                    chosen.in_flight -= 1
                    self._free.notify_all()

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Fault),
            stop=self._gives_up(),
            wait=self._wait,
            before_sleep=self._report_wait,
            reraise=True,
        )
        try:
            return await retrying(once)
        except Fault as fault:
            named = self._named((replica or self.replicas[0]).endpoint, path)
            raise UnavailableError(f"{named}: {fault}, {self._attempts} times.", fault.kind) from None

    def _gives_up(self) -> Callable[[tenacity.RetryCallState], bool]:
        """Whether one request has been sent often enough; asked after each of its faults."""
        counted = 0

        def enough(state: tenacity.RetryCallState) -> bool:
            nonlocal counted
            counted += not (self._patient and _fault_of(state).kind in OF_THE_SERVER)
            return counted >= self._attempts

        return enough

    async def _take_place(self, among: Sequence[Replica]) -> Replica:
        """The replica of `among` that is to be asked, as soon as it has a place."""
        async with self._free:
            while True:
                now = time.monotonic()
                chosen = min(among, key=lambda replica: replica.preference(now))
                if chosen.in_flight < self.concurrency:
                    chosen.in_flight += 1
                    return chosen
                await self._free.wait()

    async def _attempt(self, replica: Replica, path: str, body: Callable[[], Any] | None, read: Read[T]) -> T:
        endpoint = replica.endpoint
        try:
            if replica.unchecked and self._recheck is not None:
                await self._recheck(endpoint)
            replica.unchecked = False
            content = await endpoint.request(path, None if body is None else body())
            try:
                result = read(content)
            except Fault as fault:
                raise Fault(fault.kind, f"{fault}: {endpoint.shown(content)}", fault.after) from None
        except Fault as fault:
            self.faults[fault.kind] += 1
            self._back_off(replica, fault)
            raise
        except RefusedError as error:
            named = self._named(endpoint, path)
            raise RefusedError(f"{named}: {error}. {_ADVICE}", error.status) from None
        if replica.failures >= _FAILING_AFTER:
            self._say(f"{endpoint.base_url} answers again.")
        replica.failures = 0
        return result

    def _back_off(self, replica: Replica, fault: Fault) -> None:
        if fault.kind not in OF_THE_SERVER:
            return
        replica.failures += 1
        replica.unchecked = True
        wait = self._first_wait * 2.0 ** min(replica.failures - 1, 16)
        replica.backed_off_until = time.monotonic() + min(max(wait, fault.after or 0.0), _LONGEST_WAIT)
        if replica.failures == _FAILING_AFTER:
            others = len(self.replicas) - 1
            # Said once; it is asked again whenever it is due.
            self._say(
                f"{replica.endpoint.base_url} failed {_FAILING_AFTER} times in a row ({fault}). It is asked again now "
                f"and then; {others or 'no'} other server{'' if others == 1 else 's'} to ask meanwhile."
            )

    def _wait(self, state: tenacity.RetryCallState) -> float:
        grow = tenacity.wait_exponential_jitter(self._first_wait, _LONGEST_WAIT, jitter=self._first_wait)
        asked = _fault_of(state).after
        return grow(state) if asked is None else min(asked, _LONGEST_WAIT)

    def _report_wait(self, state: tenacity.RetryCallState) -> None:
        """Tell a user who waits for ever what for: from the sixth attempt on, once a minute for all requests."""
        now = time.monotonic()
        if self._patient and state.attempt_number >= _PATIENCE and now - self._told_at >= _TOLD_EVERY:
            self._told_at = now
            self._say(f"still waiting for the server: {_fault_of(state)} ({state.attempt_number} attempts so far)")

    def _named(self, endpoint: Endpoint, path: str) -> str:
        return f"the server {endpoint.url(path)}{f', model {self.model!r}' if self.model else ''}"


def _fault_of(state: tenacity.RetryCallState) -> Fault:
    """Why the last attempt failed; tenacity asks only after a `Fault`."""
    fault = state.outcome.exception() if state.outcome else None
    assert isinstance(fault, Fault)
    return fault


_ADVICE = "Check the address (it ends in /v1 as a rule), the model's name and the key."
