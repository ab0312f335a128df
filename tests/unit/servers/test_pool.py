"""The pool: which server is asked, how often, and what is said of one that fails."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from kepo.errors import ConfigError, TeacherError
from kepo.servers.background import Background, all_of, result_of
from kepo.servers.endpoint import Endpoint, Fault, FaultKind, RefusedError
from kepo.servers.pool import Pool, UnavailableError
from tests.http_server import Reply, serving


def _ok(text: str = "ok") -> Reply:
    return 200, {}, json.dumps(text)


def _ask(pool: Pool, count: int = 1, read: Callable[[bytes], Any] = json.loads) -> list[Any]:
    async def all_together() -> list[Any]:
        async with pool:
            return await all_of(pool.ask("x", lambda n=n: n, read) for n in range(count))  # type: ignore[misc]

    return asyncio.run(all_together())


def _pool(*urls: str, timeout: float = 5.0, **settings: Any) -> Pool:
    return Pool([Endpoint(url, timeout=timeout) for url in urls], **{"first_wait": 0.01, **settings})


def test_the_least_busy_server_is_asked() -> None:
    others_done = threading.Event()

    def quickly(number: int, _: Any) -> Reply:
        if number == 9:
            others_done.set()
        # Long enough for its second place to be taken meanwhile.
        return (time.sleep(0.01), _ok())[1]

    with serving() as slow, serving() as fast:
        slow.reply = lambda *_: (others_done.wait(30), _ok())[1]
        fast.reply = quickly
        _ask(_pool(slow.url, fast.url, concurrency=2), 12)
        assert len(slow.bodies) == 2  # its two places are taken all the time
        assert len(fast.bodies) == 10
        assert slow.most_at_once == fast.most_at_once == 2


def test_a_body_is_made_when_there_is_a_place_for_it() -> None:
    made = []
    counted = threading.Event()

    async def first_two(pool: Pool) -> int:
        async with pool:
            tasks = [
                asyncio.create_task(pool.ask("x", lambda n=n: made.append(n) or n, json.loads))  # type: ignore[func-returns-value]
                for n in range(6)
            ]
            await asyncio.sleep(0.15)
            waiting = len(made)
            counted.set()
            await asyncio.gather(*tasks)
            return waiting

    with serving() as server:
        server.reply = lambda *_: (counted.wait(30), _ok())[1]
        assert asyncio.run(first_two(_pool(server.url, concurrency=2))) == 2
    assert sorted(made) == list(range(6))


def test_faults_are_counted_by_kind() -> None:
    replies = [(503, {}, "loading"), (500, {}, "bug"), (429, {"Retry-After": "0"}, "slow down"), _ok()]
    with serving() as server:
        server.reply = lambda number, _: replies[number]
        pool = _pool(server.url)
        assert _ask(pool) == ["ok"]
        assert pool.faults == {FaultKind.BUSY: 2, FaultKind.SERVER_ERROR: 1}


def test_an_answer_that_cannot_be_read_is_asked_again_and_does_not_count_against_the_server() -> None:
    def read(content: bytes) -> Any:
        if json.loads(content) == "nonsense":
            raise Fault(FaultKind.MALFORMED, "it is nonsense")
        return json.loads(content)

    with serving() as server:
        server.reply = lambda number, _: _ok("nonsense" if number < 2 else "sense")
        pool = _pool(server.url)
        assert _ask(pool, read=read) == ["sense"]
        assert pool.replicas[0].failures == 0
        assert pool.faults == {FaultKind.MALFORMED: 2}
        server.reply = lambda *_: _ok("nonsense")
        with pytest.raises(UnavailableError, match=r"it is nonsense: \"nonsense\", 2 times") as caught:
            _ask(_pool(server.url, attempts=2), read=read)
        assert caught.value.kind is FaultKind.MALFORMED


def test_a_server_that_is_back_is_checked_before_it_is_used() -> None:
    checked = []

    async def recheck(endpoint: Endpoint) -> None:
        checked.append(endpoint.base_url)
        if len(checked) == 2:
            raise TeacherError("it is another one now")

    with serving() as server:
        server.reply = lambda number, _: _ok() if number % 2 else (503, {}, "away")
        pool = _pool(server.url, recheck=recheck)
        assert _ask(pool) == ["ok"]
        assert checked == [server.url]
        assert not pool.replicas[0].unchecked
        with pytest.raises(TeacherError, match="another one now"):
            _ask(pool)


def test_waiting_for_ever_is_told_once_a_minute_for_all_requests() -> None:
    said: list[str] = []
    with serving() as server:
        server.reply = lambda number, _: _ok() if number >= 30 else (503, {}, "away")
        pool = Pool([Endpoint(server.url)], patient=True, attempts=2, first_wait=0.001, say=said.append)
        assert _ask(pool, 3) == ["ok"] * 3
    assert [sentence for sentence in said if "still waiting" in sentence] == [
        "still waiting for the server: it answered 503: away (6 attempts so far)"
    ]
    assert said[-1] == f"{server.url} answers again."


def test_a_wrong_answer_is_not_waited_for() -> None:
    def read(content: bytes) -> Any:
        raise Fault(FaultKind.MISALIGNED, "it speaks of something else")

    with serving() as server:
        server.reply = lambda number, _: (503, {}, "away") if number % 2 else _ok()
        with pytest.raises(UnavailableError, match="something else") as caught:
            _ask(_pool(server.url, patient=True, attempts=3, first_wait=0.001), read=read)
        assert caught.value.kind is FaultKind.MISALIGNED
        assert len(server.bodies) == 5  # three wrong answers, two failures of the server between them


def test_what_a_server_does_not_know_how_to_do_is_a_refusal() -> None:
    with serving() as server:
        server.reply = lambda *_: (501, {}, "not implemented")
        with pytest.raises(RefusedError, match="501"):
            _ask(_pool(server.url))
        assert len(server.bodies) == 1


def test_a_refusal_names_the_server_and_is_final() -> None:
    with serving() as server:
        server.reply = lambda *_: (404, {}, "no such model")
        with pytest.raises(RefusedError, match=r"the server .*/v1/x: it answered 404: no such model\. Check") as caught:
            _ask(_pool(server.url))
        assert caught.value.status == 404
        assert len(server.bodies) == 1


def test_an_answer_that_trickles_ends_in_time() -> None:
    """A time-out per byte would never end."""
    listening = socket.create_server(("127.0.0.1", 0))

    def trickle() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.recv(65536)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b"x")
                    time.sleep(0.05)
            except OSError:
                pass
            connection.close()

    threading.Thread(target=trickle, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"no answer within 0\.3 seconds"):
        _ask(_pool(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", timeout=0.3, attempts=1))
    assert time.monotonic() - started < 3
    listening.close()


@pytest.mark.parametrize(("field", "value"), [("concurrency", 0), ("attempts", 0)])
def test_numbers_out_of_range(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{field} is 0"):
        _pool("http://x/v1", **{field: value})


def test_a_pool_needs_servers_each_named_once() -> None:
    with pytest.raises(ConfigError, match="name a server"):
        _pool()
    with pytest.raises(ConfigError, match="is named twice"):
        _pool("http://x/v1", "http://x/v1/")


def test_paths_from_the_root_and_from_the_version() -> None:
    endpoint = Endpoint("http://host:8000/v1/")
    assert endpoint.url("chat/completions") == "http://host:8000/v1/chat/completions"
    assert endpoint.url("/tokenize") == "http://host:8000/tokenize"


def test_the_background_runs_while_others_work() -> None:
    background = Background()

    async def later(value: int) -> int:
        await asyncio.sleep(0.05)
        return value

    futures = [background.start(later, n) for n in range(3)]
    assert not futures[0].done()
    assert [future.result(timeout=5) for future in futures] == [0, 1, 2]
    assert background.run(later, 7) == 7
    background.close()
    assert background.run(later, 8) == 8  # in another thread
    background.close()


def test_closing_the_background_ends_what_runs() -> None:
    before = set(threading.enumerate())
    background = Background()
    future = background.start(asyncio.sleep, 600)
    [thread] = set(threading.enumerate()) - before
    background.close()
    with pytest.raises(CancelledError):
        future.result(timeout=5)
    assert not thread.is_alive()


def test_what_interrupts_the_wait_ends_the_request() -> None:
    ended = threading.Event()
    background = Background()

    async def long() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    future = background.start(long)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        result_of(future)
    signal.signal(signal.SIGINT, before)
    assert ended.wait(5)
    background.close()


def test_a_process_ends_while_a_request_runs() -> None:
    code = (
        "import asyncio; from kepo.servers.background import Background; background = Background(); "
        "background.start(asyncio.sleep, 600)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
