"""A small HTTP server in a thread, whose answers a test writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

Reply: TypeAlias = tuple[int, dict[str, str], str]


class Server:
    """Answers by a function of (number of the request, body); remembers requests and how many came at once.

    Attributes:
        reply: Makes the answer: status, headers, text.
        bodies: Decoded bodies of all requests, in order; None for GET.
        headers: Their headers.
        paths: Their paths.
        most_at_once: Most requests that were open together.
        url: Base address, up to the version.
    """

    def __init__(self) -> None:
        self.reply: Callable[[int, Any], Reply] = lambda _, body: completion("ok")
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = ""


def completion(text: Any, tokens: int = 3, finish: str = "stop", **message: Any) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return 200, {}, json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}})


class BusyServer(ThreadingHTTPServer):
    """Takes many requests at once."""

    request_queue_size = 128  # 5 by default: on a busy machine the system resets the connections of more at once


@contextmanager
def serving(server: Server | None = None) -> Iterator[Server]:
    """Run a server until the context is left."""
    state = server or Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_GET(self) -> None:
            self._answer(None)

        def _answer(self, body: Any) -> None:
            with state.lock:
                number = len(state.bodies)
                state.bodies.append(body)
                state.headers.append(dict(self.headers))
                state.paths.append(self.path)
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            status, headers, text = state.reply(number, body)
            with state.lock:
                state.at_once -= 1
            data = text.encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http = BusyServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield state
    http.shutdown()
    http.server_close()
