"""The backend for OpenAI-compatible servers, against a real HTTP server in a thread."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kepo.errors import ConfigError, KepoError
from kepo.evaluation.openai_server import OpenAIBackend
from kepo.evaluation.run import evaluate
from kepo.evaluation.settings import Completion, EvaluationSettings
from kepo.servers.endpoint import read_api_key
from tests.http_server import Reply, Server, completion, serving
from tests.tiny_models import tiny_image
from tests.unit.evaluation.fakes import questions

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


def _backend(server: Server, **settings: Any) -> OpenAIBackend:
    return OpenAIBackend(server.url, "some-model", **{"api_key": KEY, "first_wait": 0.01, **settings})


def _ask(
    backend: OpenAIBackend,
    count: int = 1,
    sampling: EvaluationSettings = EvaluationSettings(max_new_tokens=9),  # noqa: B008
) -> list[list[Completion]]:
    prompts = [[{"role": "user", "content": f"What is {number}?"}] for number in range(count)]
    return backend.generate(prompts, sampling, list(range(100, 100 + count)))


def test_the_request_is_that_of_the_api(server: Server) -> None:
    backend = _backend(server, chat_template_kwargs={"enable_thinking": False})
    assert _ask(backend, sampling=EvaluationSettings(max_new_tokens=9, temperature=0.5, top_p=0.9)) == [
        [Completion("ok", 3, True)]
    ]
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.bodies == [
        {
            "model": "some-model",
            "messages": [{"role": "user", "content": "What is 0?"}],
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 100,
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]


def test_images_travel_as_png_data_uris(server: Server) -> None:
    image = tiny_image(3, 8)
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]
    _backend(server).generate([[{"role": "user", "content": parts}]], EvaluationSettings(), [0])
    sent, text = server.bodies[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    head, data = sent["image_url"]["url"].split(",")
    assert (sent["type"], head) == ("image_url", "data:image/png;base64")
    assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == image.tobytes()


def test_without_a_key_none_is_sent(server: Server) -> None:
    _ask(_backend(server, api_key=None))
    assert "Authorization" not in server.headers[0]


def test_every_sample_is_a_request_with_a_seed_of_its_own(server: Server) -> None:
    server.reply = lambda _, body: completion(f"{body['messages'][0]['content']} {body['seed']}", tokens=body["seed"])
    outputs = _ask(_backend(server), 2, EvaluationSettings(max_new_tokens=9, temperature=1.0, samples=2))
    assert [[output.text for output in row] for row in outputs] == [
        ["What is 0? 100", "What is 0? 101"],
        ["What is 1? 101", "What is 1? 102"],
    ]
    assert [output.tokens for output in outputs[0]] == [100, 101]


def test_not_more_requests_at_once_than_allowed(server: Server) -> None:
    release = threading.Event()

    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number == 1:
            release.set()
        assert release.wait(5)  # the first two are there together
        time.sleep(0.02)  # long enough for a third to come too
        return completion("ok")

    server.reply = reply
    _ask(_backend(server, concurrency=2), 6)
    assert server.most_at_once == 2


def test_a_cut_off_or_parsed_answer_is_understood(server: Server) -> None:
    server.reply = lambda number, _: (
        completion("half", 9, finish="length"),
        completion("<answer>A</answer>", reasoning_content="because"),
        completion(None, reasoning="endless", finish="length"),
        completion("\ud800x"),
    )[number]
    backend = _backend(server, concurrency=1)
    assert [row[0] for row in _ask(backend, 4)] == [
        Completion("half", 9, False),
        Completion("<think>because</think>\n<answer>A</answer>", 3, True),
        Completion("<think>endless</think>\n", 3, False),
        Completion("?x", 3, True),
    ]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(server: Server, status: int) -> None:
    server.reply = lambda number, _: (status, {"Retry-After": "0"}, "busy") if number < 2 else completion("ok")
    assert _ask(_backend(server)) == [[Completion("ok", 3, True)]]
    assert len(server.bodies) == 3


def test_a_server_that_stays_busy_is_an_error_that_says_so(server: Server) -> None:
    server.reply = lambda *_: (503, {}, "model is loading")
    with pytest.raises(KepoError, match=r"/v1/chat/completions, model 'some-model': it answered 503: model is loading"):
        _ask(_backend(server, attempts=3))
    assert len(server.bodies) == 3


def test_a_server_that_does_not_answer_in_time(server: Server) -> None:
    done = threading.Event()
    server.reply = lambda *_: (done.wait(5), completion("late"))[1]
    with pytest.raises(KepoError, match=r"no answer within 0\.05 seconds, 2 times"):
        _ask(_backend(server, timeout=0.05, attempts=2))
    done.set()


def test_a_server_that_is_not_there() -> None:
    backend = OpenAIBackend("http://127.0.0.1:9/v1", "m", attempts=2, first_wait=0.01)
    with pytest.raises(KepoError, match="the connection failed"):
        _ask(backend)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_not_tried_again(server: Server, status: int) -> None:
    server.reply = lambda *_: (status, {}, "no such model")
    with pytest.raises(ConfigError, match=rf"answered {status}: no such model.*ends in /v1"):
        _ask(_backend(server))
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "text",
    [
        "<html>hello</html>",
        "{}",
        "[]",
        "null",
        '{"choices": [], "usage": {"completion_tokens": 1}}',
        '{"choices": [{"message": {"content": "x"}}, {"message": {"content": ""}}], "usage": {"completion_tokens": 2}}',
        '{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}',
        '{"choices": [{"message": "x"}], "usage": {"completion_tokens": 1}}',
        '{"choices": [{"message": {"content": ["x"]}}], "usage": {"completion_tokens": 1}}',
    ],
)
def test_an_answer_in_another_form_is_shown(server: Server, text: str) -> None:
    server.reply = lambda *_: (200, {}, text)
    with pytest.raises(KepoError, match=r"not one chat completion.*, 2 times"):
        _ask(_backend(server, attempts=2))
    assert len(server.bodies) == 2  # a connection that was cut looks the same


@pytest.mark.parametrize("status", [200, 401, 503])
@pytest.mark.parametrize("padding", [0, 290])
def test_the_key_is_in_no_error_and_no_log(
    server: Server, status: int, padding: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.reply = lambda *_: (status, {}, "." * padding + f"Incorrect key {KEY}")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(KepoError) as caught:
        _ask(_backend(server, attempts=2))
    assert KEY[:6] not in str(caught.value)
    assert caught.value.__cause__ is None
    assert KEY[:6] not in caplog.text


def test_the_key_is_in_no_record(server: Server, tmp_path: Path) -> None:
    server.reply = lambda *_: completion("<answer>A</answer>")
    settings = EvaluationSettings(prompt_style="answer")
    file = evaluate(questions(4), _backend(server), settings, tmp_path, quiet=True)
    assert KEY.encode() not in file.read_bytes()
    description = file.with_suffix(".json").read_text()
    assert KEY not in description
    assert json.loads(description)["backend"] == "openai"
    assert json.loads(description)["model"] == "some-model"


def test_a_key_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "two").write_text("a b")
    assert read_api_key("SOME_KEY") == read_api_key(file=tmp_path / "key") == KEY
    assert read_api_key() is None
    with pytest.raises(ConfigError, match="variable NO_SUCH_KEY holds no key"):
        read_api_key("NO_SUCH_KEY")
    with pytest.raises(ConfigError, match="holds no key"):
        read_api_key(file=tmp_path / "two")
    with pytest.raises(ConfigError, match="name one of them"):
        read_api_key("SOME_KEY", tmp_path / "key")


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x/v1", "http://", "http://u:secret@x/v1", "http://x/v1?key=secret"]
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="the server's address") as caught:
        OpenAIBackend(url, "m")
    assert "secret" not in str(caught.value)


def _echo(_: int, body: dict[str, Any]) -> Reply:
    return completion(f"{body['messages'][0]['content']} {body['seed']}")


def _several(*servers: Server, said: list[str], **settings: Any) -> OpenAIBackend:
    urls = [one.url for one in servers]
    given = {"api_key": KEY, "first_wait": 0.01, "concurrency": 2, **settings}
    return OpenAIBackend(urls, "some-model", say=said.append, **given)


def test_several_servers_share_the_requests_and_answer_as_one_would() -> None:
    said: list[str] = []
    with serving() as first, serving() as second:
        for one in (first, second):
            one.reply = lambda number, body: (time.sleep(0.01), _echo(number, body))[1]
        sampling = EvaluationSettings(max_new_tokens=9, temperature=1.0, samples=2)
        assert _ask(_several(first, second, said=said), 20, sampling) == _ask(_backend(first), 20, sampling)
        assert len(second.bodies) > 5
        assert said == []


def test_the_requests_of_a_server_that_fails_go_to_the_others_until_it_is_back() -> None:
    said: list[str] = []
    with serving() as good, serving() as bad:
        good.reply = lambda number, body: (time.sleep(0.01), _echo(number, body))[1]
        bad.reply = lambda *_: (503, {}, "overloaded")
        backend = _several(good, bad, said=said)
        assert [row[0].text for row in _ask(backend, 40)] == [f"What is {n}? {100 + n}" for n in range(40)]
        assert len(said) == 1
        assert f"{bad.url} failed 3 times in a row" in said[0]
        assert "503: overloaded" in said[0]
        assert "1 other server " in said[0]
        assert len(bad.bodies) < 10  # asked less and less often
        bad.reply = good.reply
        deadline = time.monotonic() + 60
        while len(said) < 2 and time.monotonic() < deadline:
            _ask(backend, 4)  # until its time has come
        assert said[1:] == [f"{bad.url} answers again."]
        good.reply = bad.reply = lambda *_: (404, {}, "no such model")
        with pytest.raises(ConfigError, match="no such model"):
            _ask(backend, 4)


def test_a_server_is_named_once(server: Server) -> None:
    with pytest.raises(ConfigError, match="is named twice"):
        _several(server, server, said=[])
