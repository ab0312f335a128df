"""An HTTP proxy before a model server (OpenAI's API or vLLM's) that makes things go wrong, for tests and benchmarks.

    with FaultyProxy("http://127.0.0.1:8100", in_turn([Fault.CUT, Fault.NAN], every=5)) as proxy:
        ...                                     # talk to proxy.url as if it were the server
        print(proxy.injected)

It reads a server's whole answer before it passes it on: it is not for streamed answers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx

from tools.faults import FAULTS_OF_CONTENT, Fault, Plan, edited, every, first_of_each, in_turn, never

__all__ = ["Fault", "FaultyProxy", "Plan", "every", "first_of_each", "in_turn", "never"]

# RFC 9110, 7.6.1; and what a message of another length or encoding must say anew.
_OF_ONE_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "host", "content-length", "content-encoding", "accept-encoding"}
)
_PAGE = b"<html><head><title>500</title></head><body><h1>Internal Server Error</h1></body></html>"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    sent: int | None = None  # bytes of the body after which the connection closes; None for all


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # 5 by default: on a busy machine the system resets the connections of more at once


class FaultyProxy:
    """A proxy in a thread of its own; starts when entered, ends when left.

    Args:
        upstream: Address of the server, without the API's version.
        plan: Decides about every request; may be replaced at any time.
        slow_seconds: How long TOO_SLOW takes.
        retry_after: Seconds that TOO_MANY asks to wait; None to name none.
        port: 0 for a free one.

    Attributes:
        url: Address of the proxy.
        requests: How many requests came.
        injected: What went wrong, and how often.
        passed: Faults that were planned for an answer with no place for them, such as NAN in a list of models, or in
            an answer that was an error already: it was passed on as it was.
    """

    def __init__(
        self,
        upstream: str,
        plan: Plan = never,
        *,
        slow_seconds: float = 5.0,
        retry_after: float | None = None,
        port: int = 0,
    ) -> None:
        self.upstream = upstream.rstrip("/")
        self.plan = plan
        self.slow_seconds = slow_seconds
        self.retry_after = retry_after
        self.requests = 0
        self.injected: Counter[Fault] = Counter()
        self.passed: Counter[Fault] = Counter()
        self._port = port
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> FaultyProxy:
        self._ended.clear()
        # Without limits: a proxy must not make requests wait for each other.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.Client(timeout=600.0, limits=limits, trust_env=False)
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

    def _decide(self, path: str, body: bytes) -> Fault | None:
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
            return self.plan(number, urlsplit(path).path, body)

    def _answer(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> _Answer | None:
        """What to send; None to close the connection instead."""
        fault = self._decide(path, body)
        if fault in _WITHOUT_SERVER:
            self._count(fault)
            return self._without_server(fault)
        if fault is Fault.TOO_SLOW:
            self._ended.wait(self.slow_seconds)
        try:
            good = self._forward(method, path, headers, body)
        except httpx.TransportError as error:
            return _Answer(502, body=f"no answer from {self.upstream}: {error!r}".encode())
        return good if fault is None else self._spoilt(good, fault)

    def _without_server(self, fault: Fault) -> _Answer | None:
        match fault:
            case Fault.TOO_MANY:
                wait = () if self.retry_after is None else (("Retry-After", f"{self.retry_after:g}"),)
                return _Answer(429, wait, b'{"error": {"message": "too many requests", "code": 429}}')
            case Fault.UNAVAILABLE:
                return _Answer(503, body=b"the model is being loaded")
            case Fault.BROKEN:
                return _Answer(500, (("Content-Type", "text/html"),), _PAGE)
            case Fault.MALFORMED:
                return _Answer(200, (("Content-Type", "application/json"),), b"Welcome to this server!")
        return None

    def _spoilt(self, good: _Answer, fault: Fault) -> _Answer:
        half = len(good.body) // 2
        spoilt: _Answer | None
        if fault is Fault.TOO_SLOW:
            spoilt = good
        elif good.status != 200 or half == 0:
            spoilt = None
        elif fault is Fault.CUT:
            spoilt = _Answer(good.status, good.headers, good.body, sent=half)
        elif fault is Fault.PARTIAL:
            spoilt = _Answer(good.status, good.headers, good.body[:half])
        else:
            body = edited(good.body, fault)
            spoilt = None if body is None else _Answer(good.status, good.headers, body)
        self._count(fault, found_place=spoilt is not None)
        return spoilt or good

    def _count(self, fault: Fault, found_place: bool = True) -> None:
        with self._lock:
            (self.injected if found_place else self.passed)[fault] += 1

    def _forward(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> _Answer:
        sent = [*_kept(headers), ("Accept-Encoding", "identity")]
        response = self._client.request(method, self.upstream + path, headers=sent, content=body)
        return _Answer(response.status_code, tuple(_kept(response.headers.multi_items())), response.content)


_WITHOUT_SERVER = frozenset(Fault) - FAULTS_OF_CONTENT - {Fault.TOO_SLOW, Fault.CUT, Fault.PARTIAL}


def _kept(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without those that concern one connection, or that the `Connection` header says to."""
    named = {one.strip().lower() for name, value in headers if name.lower() == "connection" for one in value.split(",")}
    return [(name, value) for name, value in headers if name.lower() not in _OF_ONE_CONNECTION | named]


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            if "Transfer-Encoding" in self.headers:
                self.close_connection = True
                self._send(_Answer(411, body=b"this proxy takes requests with a Content-Length only"))
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = proxy._answer(self.command, self.path, self.headers.items(), body)
            # A client that no longer waits closes the connection.
            with contextlib.suppress(ConnectionError):
                self._close() if answer is None else self._send(answer)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _any  # noqa: N815 - http.server's names

        def _send(self, answer: _Answer) -> None:
            self.send_response_only(answer.status)
            for name, value in (*answer.headers, ("Content-Length", str(len(answer.body)))):
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.sent])
            if answer.sent is not None:
                self._close()

        def _close(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            """A benchmark's output is its own."""

    return Handler
