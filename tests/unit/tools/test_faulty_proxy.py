"""The proxy that makes things go wrong: what passes, what is spoilt, and how."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.http_server import Server, completion, serving
from tools.faulty_proxy import Fault, FaultyProxy, every, in_turn

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
