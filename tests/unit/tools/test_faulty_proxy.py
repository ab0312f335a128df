"""The proxy that makes things go wrong: what passes, what is spoilt, and how."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.http_server import Server, completion, serving
from tools.faulty_proxy import Fault, FaultyProxy, every, first_of_each, in_turn

SCORED: dict[str, Any] = {
    "model": "m",
    "prompt_token_ids": [5, 6, 7, 8],
    "prompt_logprobs": [None, *({str(token): {"logprob": -0.5}, "1": {"logprob": -2.0}} for token in (6, 7, 8))],
}
GENERATE = "/inference/v1/generate"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.reply = lambda *_: (200, {"X-Kept": "yes"}, json.dumps(SCORED))
        yield state


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(server.url.removesuffix("/v1"), slow_seconds=0.5) as state:
        yield state


def _post(proxy: FaultyProxy, path: str = GENERATE, timeout: float = 5.0) -> httpx.Response:
    return httpx.post(f"{proxy.url}{path}", json={"n": 1}, headers={"Authorization": "Bearer x"}, timeout=timeout)


def test_without_a_plan_everything_passes(proxy: FaultyProxy, server: Server) -> None:
    response = _post(proxy)
    assert (response.status_code, response.json()) == (200, SCORED)
    assert response.headers["X-Kept"] == "yes"
    assert server.bodies == [{"n": 1}]
    assert server.headers[0]["Authorization"] == "Bearer x"
    assert httpx.get(f"{proxy.url}/v1/models").status_code == 200
    assert proxy.requests == 2
    assert not proxy.injected


def test_headers_of_one_connection_do_not_pass(proxy: FaultyProxy, server: Server) -> None:
    server.reply = lambda *_: (200, {"Keep-Alive": "timeout=1"}, "{}")
    sent = {"Connection": "keep-alive, X-Hop", "X-Hop": "1", "X-Own": "2"}
    response = httpx.post(f"{proxy.url}/some/path?q=1", json={}, headers=sent)
    assert "Keep-Alive" not in response.headers
    assert server.paths == ["/some/path?q=1"]
    assert server.headers[0]["X-Own"] == "2"
    assert server.headers[0]["Host"] == server.url.split("/")[2]
    assert "X-Hop" not in server.headers[0]


def test_a_server_that_is_gone_is_a_bad_gateway() -> None:
    with FaultyProxy("http://127.0.0.1:9") as proxy:
        response = _post(proxy)
    assert response.status_code == 502
    assert "no answer from http://127.0.0.1:9" in response.text


def test_an_upstream_error_passes_too(proxy: FaultyProxy, server: Server) -> None:
    server.reply = lambda *_: (404, {}, "no such model")
    proxy.plan = every(1, Fault.NAN)
    assert (_post(proxy).status_code, _post(proxy).text) == (404, "no such model")
    assert proxy.passed == {Fault.NAN: 2}
    assert not proxy.injected


@pytest.mark.parametrize(
    ("fault", "status"), [(Fault.TOO_MANY, 429), (Fault.UNAVAILABLE, 503), (Fault.BROKEN, 500), (Fault.MALFORMED, 200)]
)
def test_answers_in_the_servers_place(proxy: FaultyProxy, server: Server, fault: Fault, status: int) -> None:
    proxy.plan = every(1, fault)
    response = _post(proxy)
    assert response.status_code == status
    assert response.text != json.dumps(SCORED)
    assert server.bodies == []
    assert proxy.injected == {fault: 1}


@pytest.mark.parametrize(("seconds", "named"), [(None, None), (1.5, "1.5")])
def test_too_many_names_a_time_where_told_to(proxy: FaultyProxy, seconds: float | None, named: str | None) -> None:
    proxy.plan, proxy.retry_after = every(1, Fault.TOO_MANY), seconds
    assert _post(proxy).headers.get("Retry-After") == named


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.CUT])
def test_connections_that_close(proxy: FaultyProxy, fault: Fault) -> None:
    proxy.plan = every(1, fault)
    with pytest.raises(httpx.RemoteProtocolError):
        _post(proxy)
    proxy.plan = every(2, fault)
    assert _post(proxy).json() == SCORED  # the next connection is a good one


def test_an_answer_that_comes_too_late(proxy: FaultyProxy) -> None:
    proxy.plan = every(1, Fault.TOO_SLOW)
    with pytest.raises(httpx.ReadTimeout):
        _post(proxy, timeout=0.1)
    assert _post(proxy).json() == SCORED


def test_leaving_does_not_wait_for_slow_answers(server: Server) -> None:
    start = time.monotonic()
    slow = FaultyProxy(server.url.removesuffix("/v1"), every(1, Fault.TOO_SLOW), slow_seconds=60.0)
    with slow as proxy, pytest.raises(httpx.ReadTimeout):
        _post(proxy, timeout=0.1)
    assert time.monotonic() - start < 10


def test_half_of_the_json(proxy: FaultyProxy) -> None:
    proxy.plan = every(1, Fault.PARTIAL)
    text = _post(proxy).text
    assert json.dumps(SCORED).startswith(text)
    assert len(text) < len(json.dumps(SCORED))


def _spoilt(proxy: FaultyProxy, fault: Fault) -> Any:
    proxy.plan = every(1, fault)
    return json.loads(_post(proxy).text)


def test_faults_of_scores(proxy: FaultyProxy) -> None:
    last = [candidate["logprob"] for candidate in _spoilt(proxy, Fault.NAN)["prompt_logprobs"][-1].values()]
    assert all(math.isnan(value) for value in last)
    assert _spoilt(proxy, Fault.NULL_LOGPROB)["prompt_logprobs"][-1]["8"]["logprob"] is None
    assert _spoilt(proxy, Fault.MISSING_LOGPROBS)["prompt_logprobs"] is None
    assert _spoilt(proxy, Fault.FEWER_LOGPROBS)["prompt_logprobs"] == SCORED["prompt_logprobs"][:-1]
    shifted = _spoilt(proxy, Fault.SHIFTED)["prompt_logprobs"]
    assert [None if one is None else next(iter(one)) for one in shifted] == [None, "7", "8", "8"]
    assert _spoilt(proxy, Fault.RETOKENIZED)["prompt_token_ids"] == [5, 6, 6, 8]
    assert _spoilt(proxy, Fault.OTHER_MODEL)["model"] == "another-model"


@pytest.mark.parametrize(
    ("fault", "ids", "table"),
    [
        (Fault.NULL_LOGPROB, [5, 6], [None, {"6": {"logprob": None}}]),
        (Fault.MISSING_LOGPROBS, [5, 6], None),
        (Fault.FEWER_LOGPROBS, [5, 6], [None]),
        (Fault.RETOKENIZED, [5, 7], [None, {"6": {"logprob": -0.5}}]),
    ],
)
def test_faults_of_scores_in_a_completion(
    proxy: FaultyProxy, server: Server, fault: Fault, ids: list[int], table: Any
) -> None:
    choice = {"text": "x", "prompt_token_ids": [5, 6], "prompt_logprobs": [None, {"6": {"logprob": -0.5}}]}
    server.reply = lambda *_: (200, {}, json.dumps({"choices": [choice]}))
    [spoilt] = _spoilt(proxy, fault)["choices"]
    assert spoilt == {"text": "x", "prompt_token_ids": ids, "prompt_logprobs": table}


def test_nan_in_a_chat_is_at_its_last_token(proxy: FaultyProxy, server: Server) -> None:
    tokens = [{"token": "x", "logprob": -0.25}, {"token": "y", "logprob": -0.5}]
    choice = {"message": {"content": "xy"}, "logprobs": {"content": tokens}}
    server.reply = lambda *_: (200, {}, json.dumps({"prompt_logprobs": None, "choices": [choice]}))
    proxy.plan = every(1, Fault.NAN)
    text = _post(proxy).text
    first, last = json.loads(text)["choices"][0]["logprobs"]["content"]
    assert '"logprob": NaN' in text
    assert first == tokens[0]
    assert math.isnan(last["logprob"])


def test_another_model_in_the_list(proxy: FaultyProxy, server: Server) -> None:
    server.reply = lambda *_: (200, {}, json.dumps({"data": [{"id": "m", "max_model_len": 64}]}))
    assert _spoilt(proxy, Fault.OTHER_MODEL) == {"data": [{"id": "another-model", "max_model_len": 64}]}


def test_a_fault_without_a_place_lets_the_answer_pass(proxy: FaultyProxy, server: Server) -> None:
    server.reply = lambda *_: completion("text")
    proxy.plan = every(1, Fault.SHIFTED)
    assert _post(proxy).json()["choices"][0]["message"]["content"] == "text"
    assert proxy.passed == {Fault.SHIFTED: 1}


def test_plans(proxy: FaultyProxy) -> None:
    proxy.plan = in_turn([Fault.UNAVAILABLE, Fault.BROKEN], every=2, paths=[GENERATE])
    statuses = [_post(proxy, path).status_code for path in [GENERATE, "/other"] * 4]
    assert statuses == [200, 200, 503, 200, 200, 200, 500, 200]
    with pytest.raises(ValueError, match="at least one fault"):
        in_turn([])


def test_a_plan_for_the_first_request_of_each_kind(proxy: FaultyProxy) -> None:
    proxy.plan = first_of_each([Fault.UNAVAILABLE, Fault.BROKEN], paths=[GENERATE])

    def status(path: str, n: int) -> int:
        return httpx.post(f"{proxy.url}{path}", json={"n": n}).status_code

    assert [status(GENERATE, n) for n in (1, 1, 2, 1, 2, 3)] == [503, 200, 500, 200, 200, 503]
    assert status("/other", 4) == 200
    with pytest.raises(ValueError, match="at least one fault"):
        first_of_each([])


def test_many_requests_at_once_are_counted_once_each(proxy: FaultyProxy) -> None:
    proxy.plan = every(4, Fault.UNAVAILABLE)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(_post(proxy).status_code)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(statuses) == {200: 15, 503: 5}
    assert (proxy.requests, proxy.injected) == (20, {Fault.UNAVAILABLE: 5})
