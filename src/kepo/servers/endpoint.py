"""One server's address: a request, and what came of it.

A request either gives the answer's bytes, or a `Fault` (which may be gone at the next attempt), or a `RefusedError` (it
will be refused again). The key goes into the request's header and nowhere else.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from kepo.errors import ConfigError

T = TypeVar("T")

_SHOWN = 300


class FaultKind(StrEnum):
    """What can go wrong with one attempt, in the words of metrics and reports."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    BUSY = "busy"
    SERVER_ERROR = "server_error"
    MALFORMED = "malformed"
    MISALIGNED = "misaligned"


# Faults of the server as a whole; the others are of one answer.
OF_THE_SERVER = frozenset({FaultKind.TIMEOUT, FaultKind.CONNECTION, FaultKind.BUSY, FaultKind.SERVER_ERROR})


class Fault(Exception):  # noqa: N818 - it is caught by whoever tries again and never seen by a user
    """A failure that may be gone at the next attempt.

    Attributes:
        kind: What it was.
        after: Seconds that the server asks to wait; None where it names none.
    """

    def __init__(self, kind: FaultKind, problem: str, after: float | None = None) -> None:
        super().__init__(problem)
        self.kind = kind
        self.after = after


class RefusedError(ConfigError):
    """The server refuses the request and would refuse it again.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Endpoint:
    """A server that speaks HTTP and JSON; its connections are opened by the first request and live in one event loop.

    Args:
        base_url: Up to the API's version, such as `http://localhost:8000/v1`.
        api_key: Sent as bearer token; None for a server that wants none.
        timeout: Longest wait for one answer, in seconds.

    Raises:
        ConfigError: a URL that is none or holds a password.
    """

    def __init__(self, base_url: str, api_key: str | None = None, timeout: float = 600.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"the server's address {base_url!r} is no URL; write it like http://localhost:8000/v1")
        if parts.password or parts.query:
            raise ConfigError(
                "the server's address holds a password or a query; give the key through an environment variable or a "
                "file"
            )
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._api_key = api_key
        self._root = self.base_url.removesuffix("/v1")
        self._client: httpx.AsyncClient | None = None

    def url(self, path: str) -> str:
        """Where `path` lies; one that starts with a slash counts from the server's root, others from its version."""
        return f"{self._root}{path}" if path.startswith("/") else f"{self.base_url}/{path}"

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def request(self, path: str, body: Any = None) -> bytes:
        """One attempt of a POST request with `body`, or of a GET request without.

        Raises:
            Fault: it may go well at the next attempt.
            RefusedError: it will be refused again.
        """
        if self._client is None:
            headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
            # The number of connections is the business of whoever limits the requests.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
            self._client = httpx.AsyncClient(timeout=self.timeout, headers=headers, limits=limits)
        try:
            # httpx's own time-out starts anew with every byte.
            async with asyncio.timeout(self.timeout):
                method = "GET" if body is None else "POST"
                response = await self._client.request(method, self.url(path), json=body)
        except (TimeoutError, httpx.TimeoutException):
            raise Fault(FaultKind.TIMEOUT, f"it gave no answer within {self.timeout:g} seconds") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            problem = f"the connection failed ({error or type(error).__name__})"
            raise Fault(FaultKind.CONNECTION, problem) from None
        status = response.status_code
        if status == 429 or (status >= 500 and status != 501):  # 501: it does not know how, and never will
            kind = FaultKind.BUSY if status in (429, 503) else FaultKind.SERVER_ERROR
            raise Fault(kind, f"it answered {status}: {self.shown(response.content)}", _retry_after(response))
        if status != 200:
            raise RefusedError(f"it answered {status}: {self.shown(response.content)}", status)
        return response.content

    def shown(self, content: bytes) -> str:
        """The start of an answer; a server that repeats the key does not bring it into a message or a log."""
        # Long enough that a key at the end of what is shown is whole, and hidden.
        text = " ".join(content[: 16 * _SHOWN].decode("utf-8", errors="replace").split())
        if self._api_key:
            text = text.replace(self._api_key, "<hidden>")
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def decoded(decoder: msgspec.json.Decoder[T], content: bytes, what: str = "its answer") -> T:
    """An answer as `decoder` reads it.

    Raises:
        Fault: it is in another form. A bare NaN, a half-sent answer and an error page all are.
    """
    try:
        return decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise Fault(FaultKind.MALFORMED, f"{what} is not in the form of the API ({error})") from None


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that the server asks to wait; None when it names none, or a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None
