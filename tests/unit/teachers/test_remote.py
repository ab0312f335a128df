"""A teacher behind a server with vLLM's API, whose model a hand can compute."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from kepo.errors import ConfigError, TeacherError, TeacherUnavailableError
from kepo.teachers.base import (
    AsynchronousHintWriter,
    AsynchronousTeacher,
    CountingTeacher,
    ScoreRequest,
    SparseScores,
    Teacher,
)
from kepo.teachers.remote import RemoteTeacher
from kepo.types import Conversation
from tests.fake_vllm import CHARACTERS, IMAGE, MODEL, SHOWN_IMAGE, FakeVLLM, ToyTokenizer, V, logps
from tests.http_server import Reply, serving
from tests.tiny_models import tiny_image

KEY = "sk-very-secret-0123456789"
TEXT: Conversation = [{"role": "user", "content": "def"}]  # rendered as "adefc"


def _with_image(colour: int = 0) -> Conversation:
    parts = [{"type": "image", "image": tiny_image(colour)}, {"type": "text", "text": "def"}]
    return [{"role": "user", "content": parts}]


@pytest.fixture
def server() -> Iterator[FakeVLLM]:
    with serving(FakeVLLM()) as state:
        assert isinstance(state, FakeVLLM)
        yield state


def _teacher(*servers: FakeVLLM, **settings: Any) -> RemoteTeacher:
    given = {"top_k": 3, "first_wait": 0.01, "timeout": 5.0, "attempts": 3, **settings}
    return RemoteTeacher([server.url for server in servers], MODEL, **given)


def _scores(teacher: RemoteTeacher, *requests: ScoreRequest) -> list[SparseScores]:
    found = teacher.score(requests)
    assert all(isinstance(one, SparseScores) for one in found)
    return found  # type: ignore[return-value]


def _check(scores: SparseScores, last: int, completion: tuple[int, ...], top_k: int = 3) -> None:
    """Compare scores with the model's own distributions."""
    assert scores.ids.shape == scores.logps.shape == (len(completion), top_k + 1)
    for place, token in enumerate(completion):
        row = logps(last)
        found = {
            int(one): float(value)
            for one, value in zip(scores.ids[place], scores.logps[place], strict=True)
            if value > -math.inf
        }
        likeliest = sorted(range(V), key=lambda one: -row[one])[:top_k]
        assert set(found) == {*likeliest, token}
        assert all(found[one] == pytest.approx(row[one], abs=1e-6) for one in found)
        assert float(scores.token_logps[place]) == pytest.approx(row[token], abs=1e-6)
        last = token


def test_it_is_a_teacher(server: FakeVLLM) -> None:
    teacher = _teacher(server)
    assert isinstance(teacher, Teacher)
    assert isinstance(teacher, AsynchronousTeacher)
    assert isinstance(teacher, AsynchronousHintWriter)
    assert isinstance(teacher, CountingTeacher)
    assert teacher.name == MODEL
    assert teacher.head is None
    assert teacher.score([]) == []
    assert teacher.write_hints([]) == []
    assert server.bodies == []


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_api", [True, False])
def test_scores_of_a_text_prompt_are_the_models_own(server: FakeVLLM, token_api: bool) -> None:
    server.token_api = token_api
    completion = (7, 0, 9, 9)
    [scores] = _scores(_teacher(server), ScoreRequest(TEXT, completion))
    _check(scores, CHARACTERS.index("c"), completion)
    path = "/inference/v1/generate" if token_api else "/v1/completions"
    body = server.requests_to(path)[-1]
    expected = [CHARACTERS.index(character) for character in "adefc"] + list(completion)
    assert body["token_ids" if token_api else "prompt"] == expected


def test_scores_of_a_plain_text_prompt(server: FakeVLLM) -> None:
    [scores] = _scores(_teacher(server), ScoreRequest("abba", (1, 2)))
    _check(scores, CHARACTERS.index("a"), (1, 2))
    assert server.requests_to("/tokenize") == [{"model": MODEL, "prompt": "abba", "add_special_tokens": True}]


def test_scores_behind_an_image(server: FakeVLLM) -> None:
    [scores] = _scores(_teacher(server), ScoreRequest(_with_image(), (7, 0)))
    _check(scores, CHARACTERS.index("c"), (7, 0))
    body = server.requests_to("/inference/v1/generate")[-1]
    assert body["token_ids"].count(IMAGE) == 1  # three in what the model sees
    assert body["content_parts"][0]["url"].startswith("data:image/png;base64,")
    assert SHOWN_IMAGE.count(IMAGE) == 2


def test_the_students_own_prompt_ids_are_scored(server: FakeVLLM) -> None:
    [scores] = _scores(_teacher(server), ScoreRequest(TEXT, (7, 0), prompt_ids=(5, 4, 3)))
    _check(scores, 3, (7, 0))
    assert server.requests_to("/inference/v1/generate")[-1]["token_ids"] == [5, 4, 3, 7, 0]
    assert server.requests_to("/tokenize") == [], "nothing is rendered"


def test_the_same_prompt_read_in_two_ways_is_asked_twice(server: FakeVLLM) -> None:
    rows = [ScoreRequest(TEXT, (7,), prompt_ids=ids) for ids in ((5, 4), (5, 4), (5, 3))]
    one, two, three = _scores(_teacher(server), *rows)
    assert one is two
    _check(three, 3, (7,))


def test_the_students_own_prompt_with_the_servers_image(server: FakeVLLM, caplog: pytest.LogCaptureFixture) -> None:
    given = (5, *SHOWN_IMAGE, 4, 3)
    [scores] = _scores(_teacher(server), ScoreRequest(_with_image(), (7, 0), prompt_ids=given))
    _check(scores, 3, (7, 0))
    assert server.requests_to("/inference/v1/generate")[-1]["token_ids"] == [5, IMAGE, 4, 3, 7, 0]
    assert caplog.text == ""


def test_a_prompt_whose_images_are_not_the_servers_is_rendered_there_and_said_once(
    server: FakeVLLM, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = _teacher(server)
    for given in ((5, 4, 3), (6, 4, 3)):
        [scores] = _scores(teacher, ScoreRequest(_with_image(), (7, 0), prompt_ids=given))
        _check(scores, CHARACTERS.index("c"), (7, 0))
    assert caplog.text.count("The teacher cannot read the student's own prompt") == 1


def test_images_of_tools_are_refused(server: FakeVLLM) -> None:
    row = ScoreRequest(TEXT, (7, 0), prompt_ids=(5, 4), tool_images=(tiny_image(),))
    with pytest.raises(TeacherError, match="A tool returned an image"):
        _teacher(server).score([row])


def test_an_image_that_the_server_puts_elsewhere_is_an_error(server: FakeVLLM) -> None:
    server.replaces = CHARACTERS.index("d")  # it knows none of the tokens that it renders an image as
    with pytest.raises(TeacherError, match="does not see a prompt with images as it renders it itself"):
        _teacher(server).score([ScoreRequest(_with_image(), (7, 0))])


def test_equal_rows_are_asked_once_and_a_group_is_rendered_once(server: FakeVLLM) -> None:
    teacher = _teacher(server)
    rows = [ScoreRequest(_with_image(), (7, token)) for token in (0, 1, 0, 2, 0)]  # equal images, not the same objects
    found = _scores(teacher, *rows)
    assert len(server.requests_to("/inference/v1/generate")) == 1 + 2 + 3  # API and image token are tried out first
    assert len(server.requests_to("/v1/chat/completions/render")) == 1
    for scores, row in zip(found, rows, strict=True):
        _check(scores, CHARACTERS.index("c"), row.completion_ids)
    assert teacher.take_metrics()["teacher/rows_sent"] == 3
    _scores(teacher, ScoreRequest(_with_image(1), (7,)))
    assert len(server.requests_to("/v1/chat/completions/render")) == 2  # another image is another prompt


def test_scores_come_while_the_caller_works(server: FakeVLLM) -> None:
    release = threading.Event()
    server.reply = lambda number, body: (release.wait(5), server.answer(number, body))[1]
    pending = _teacher(server).start_scoring([ScoreRequest(TEXT, (7,))])
    release.set()
    [scores] = pending.result()
    assert isinstance(scores, SparseScores)


# --- answers that are about something else ---------------------------------------------------------------------------


def _edited(
    server: FakeVLLM, edit: Callable[[dict[str, Any]], None], times: int = 10**6
) -> Callable[[int, Any], Reply]:
    """Answers in which `edit` has changed the scores of rows, the first `times` times."""
    done = []

    def reply(number: int, body: Any) -> Reply:
        status, headers, text = server.answer(number, body)
        if "generate" not in server.paths[number] or len(body["token_ids"]) < 6 or len(done) >= times:
            return status, headers, text
        done.append(number)
        content = json.loads(text)
        edit(content)
        return status, headers, json.dumps(content)

    return reply


def _other_id(content: dict[str, Any]) -> None:
    content["prompt_token_ids"][2] += 1


def _off_by_one(content: dict[str, Any]) -> None:
    content["prompt_logprobs"] = [None, *content["prompt_logprobs"][:-1]]


def _off_by_one_without_ids(content: dict[str, Any]) -> None:
    _off_by_one(content)
    content["prompt_token_ids"] = None


def _one_short(content: dict[str, Any]) -> None:
    content["prompt_logprobs"].pop()


@pytest.mark.parametrize("policy", ["stop", "skip", "wait"])
@pytest.mark.parametrize("edit", [_other_id, _off_by_one, _off_by_one_without_ids, _one_short])
def test_scores_of_other_tokens_are_never_used(
    server: FakeVLLM, edit: Callable[[dict[str, Any]], None], policy: str
) -> None:
    server.reply = _edited(server, edit)
    with pytest.raises(TeacherError, match="scores would not belong to the student's tokens"):
        _teacher(server, on_failure=policy).score([ScoreRequest(TEXT, (7, 0, 9))])


def _nan(content: dict[str, Any]) -> None:
    next(iter(content["prompt_logprobs"][-1].values()))["logprob"] = math.nan


def _null(content: dict[str, Any]) -> None:
    next(iter(content["prompt_logprobs"][-1].values()))["logprob"] = None


def _above_zero(content: dict[str, Any]) -> None:
    next(iter(content["prompt_logprobs"][-1].values()))["logprob"] = 0.5


def _too_few(content: dict[str, Any]) -> None:
    last = content["prompt_logprobs"][-1]
    for name in [name for name in last if name != "9"][1:]:
        del last[name]


def _nothing(content: dict[str, Any]) -> None:
    content["prompt_logprobs"] = None


@pytest.mark.parametrize("edit", [_nan, _null, _above_zero, _too_few, _nothing])
def test_a_broken_answer_is_asked_again(server: FakeVLLM, edit: Callable[[dict[str, Any]], None]) -> None:
    server.reply = _edited(server, edit, times=2)
    teacher = _teacher(server)
    [scores] = _scores(teacher, ScoreRequest(TEXT, (7, 0, 9)))
    _check(scores, CHARACTERS.index("c"), (7, 0, 9))
    metrics = teacher.take_metrics()
    assert metrics["teacher/faults/malformed"] == metrics["teacher/faults"] == 2
    assert metrics["teacher/rows_lost"] == 0
    assert teacher.take_metrics()["teacher/faults"] == 0  # told once


def test_a_probability_of_zero_is_no_candidate(server: FakeVLLM) -> None:
    def edit(content: dict[str, Any]) -> None:
        for candidate in list(content["prompt_logprobs"][-1].values())[1:]:
            candidate["logprob"] = -9999.0  # as JSON has no -inf

    server.reply = _edited(server, edit)
    [scores] = _scores(_teacher(server), ScoreRequest(TEXT, (7, 0, 9)))
    assert (scores.logps[-1] > -math.inf).sum() == 1


# --- failures --------------------------------------------------------------------------------------------------------


def _away_for_rows(server: FakeVLLM) -> Callable[[int, Any], Reply]:
    def reply(number: int, body: Any) -> Reply:
        is_row = "generate" in server.paths[number] and body["token_ids"][-1] == 9
        return (503, {}, "overloaded") if is_row else server.answer(number, body)

    return reply


def test_a_row_without_answer_stops_the_run(server: FakeVLLM) -> None:
    server.reply = _away_for_rows(server)
    with pytest.raises(TeacherUnavailableError, match=r"gave no scores.*503: overloaded, 3 times"):
        _teacher(server).score([ScoreRequest(TEXT, (7, 9))])


def test_a_row_without_answer_can_be_gone_without(server: FakeVLLM) -> None:
    server.reply = _away_for_rows(server)
    teacher = _teacher(server, on_failure="skip")
    found = teacher.score([ScoreRequest(TEXT, (7, token)) for token in (8, 9, 8, 9)])
    assert [one is None for one in found] == [False, True, False, True]
    metrics = teacher.take_metrics()
    assert metrics["teacher/rows_lost"] == 2
    assert metrics["teacher/faults/busy"] == 3  # one row, asked three times, stands for two


def test_a_row_without_answer_can_be_waited_for(server: FakeVLLM) -> None:
    def reply(number: int, body: Any) -> Reply:
        return (503, {}, "restarting") if number < 8 else server.answer(number, body)

    server.reply = reply
    [scores] = _scores(_teacher(server, attempts=1, first_wait=0.001, on_failure="wait"), ScoreRequest(TEXT, (7,)))
    _check(scores, CHARACTERS.index("c"), (7,))


def test_a_row_that_is_too_long_is_a_lost_row_too(server: FakeVLLM) -> None:
    def reply(number: int, body: Any) -> Reply:
        too_long = "generate" in server.paths[number] and len(body["token_ids"]) > 8
        return (400, {}, "maximum context length is 8") if too_long else server.answer(number, body)

    server.reply = reply
    rows = [ScoreRequest(TEXT, (7,)), ScoreRequest(TEXT, (7,) * 5)]
    found = _teacher(server, on_failure="skip").score(rows)
    assert [one is None for one in found] == [False, True]
    with pytest.raises(TeacherUnavailableError, match="maximum context length is 8"):
        _teacher(server).score(rows)


def test_a_wrong_key_is_never_gone_without_and_never_shown(server: FakeVLLM) -> None:
    server.reply = lambda *_: (401, {}, f"Incorrect key {KEY}")
    with pytest.raises(TeacherError, match="401") as caught:
        _teacher(server, on_failure="skip", api_key=KEY).score([ScoreRequest(TEXT, (7,))])
    assert KEY not in str(caught.value)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_replicas_share_the_rows_and_one_may_be_away() -> None:
    with serving(FakeVLLM()) as one, serving(FakeVLLM()) as other:
        assert isinstance(one, FakeVLLM)
        assert isinstance(other, FakeVLLM)
        teacher = _teacher(one, other, concurrency=2)
        rows = [ScoreRequest(TEXT, (token, 7)) for token in range(12)]
        for server in (one, other):
            server.reply = lambda number, body, server=server: (time.sleep(0.02), server.answer(number, body))[1]
        _scores(teacher, *rows)
        assert min(len(one.requests_to("/inference/v1/generate")), len(other.requests_to("/inference/v1/generate"))) > 2
        other.reply = lambda *_: (503, {}, "away")
        for scores, row in zip(_scores(teacher, *rows), rows, strict=True):
            _check(scores, CHARACTERS.index("c"), row.completion_ids)
        assert teacher.take_metrics()["teacher/rows_lost"] == 0


# --- the server that was promised ------------------------------------------------------------------------------------


def test_a_server_of_the_students_vocabulary_passes(server: FakeVLLM) -> None:
    teacher = _teacher(server)
    teacher.check_student(ToyTokenizer(), V)
    teacher.check_prompt(_with_image())
    assert server.requests_to("/detokenize") == [{"model": MODEL, "tokens": list(range(V))}]
    [hint] = server.requests_to("/v1/chat/completions")
    assert hint["max_tokens"] == 1


def test_another_vocabulary_is_refused(server: FakeVLLM) -> None:
    server.characters = CHARACTERS[1:] + CHARACTERS[:1]
    with pytest.raises(TeacherError, match=r"cannot score this student's tokens: the token ids 0..15 read otherwise"):
        _teacher(server).check_student(ToyTokenizer(), V)


def test_another_model_is_refused(server: FakeVLLM) -> None:
    server.served = "another"
    with pytest.raises(TeacherError, match="does not serve the teacher 'toy', but 'another'"):
        _teacher(server).check_student(ToyTokenizer(), V)


def test_every_replica_is_checked(server: FakeVLLM) -> None:
    with serving(FakeVLLM()) as other:
        assert isinstance(other, FakeVLLM)
        other.characters = CHARACTERS[::-1]
        with pytest.raises(TeacherError, match=other.url):
            _teacher(server, other).check_student(ToyTokenizer(), V)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"characters": CHARACTERS[::-1]}, "read otherwise there"), ({"served": "another"}, "does not serve the teacher")],
    ids=["vocabulary", "model"],
)
def test_a_server_that_comes_back_as_another_is_refused(server: FakeVLLM, change: dict[str, Any], said: str) -> None:
    teacher = _teacher(server, on_failure="skip")
    teacher.check_student(ToyTokenizer(), V)
    teacher.check_prompt(TEXT)
    for name, value in change.items():
        setattr(server, name, value)
    away = [1]

    def reply(number: int, body: Any) -> Reply:
        return (503, {}, "restarting") if away and away.pop() else server.answer(number, body)

    server.reply = reply
    with pytest.raises(TeacherError, match=said):
        teacher.score([ScoreRequest(TEXT, (7,))])


def test_a_server_with_too_small_a_k_is_refused_with_advice(server: FakeVLLM) -> None:
    teacher = _teacher(server, top_k=9)
    teacher.check_student(ToyTokenizer(), V)
    with pytest.raises(TeacherError, match=r"greater than max allowed: 8.*--max-logprobs 9"):
        teacher.check_prompt(TEXT)


def test_images_need_the_token_level_api(server: FakeVLLM) -> None:
    server.token_api = False
    teacher = _teacher(server)
    teacher.check_student(ToyTokenizer(), V)
    teacher.check_prompt(TEXT)
    with pytest.raises(TeacherError, match="--enable-scale-out --max-logprobs 3"):
        teacher.check_prompt(_with_image())


def test_a_server_without_vllms_api_serves_for_hints(server: FakeVLLM) -> None:
    def reply(number: int, body: Any) -> Reply:
        chat = server.paths[number] == "/v1/chat/completions"
        return server.answer(number, body) if chat else (404, {}, "Not Found")

    server.reply = reply
    teacher = _teacher(server)
    teacher.check_prompt(TEXT)  # no check_student before: the run needs no scores
    assert teacher.write_hints([TEXT])[0].startswith("<hint>adefc")
    with pytest.raises(TeacherError, match="need a vLLM server"):
        teacher.check_student(ToyTokenizer(), V)


# --- hints -----------------------------------------------------------------------------------------------------------


def test_hints_are_drawn_with_torchs_seed(server: FakeVLLM) -> None:
    teacher = _teacher(server, hint_max_new_tokens=17, hint_temperature=0.5, chat_template_kwargs={"thinking": False})
    torch.manual_seed(3)
    first = teacher.write_hints([TEXT, TEXT])
    torch.manual_seed(3)
    assert teacher.write_hints([TEXT, TEXT]) == first
    assert first[0] != first[1]
    torch.manual_seed(3)
    pending = teacher.start_hints([TEXT, TEXT])
    torch.rand(1)  # what is drawn while they are being written does not change them
    assert pending.result() == first
    body = server.requests_to("/v1/chat/completions")[0]
    assert (body["max_tokens"], body["temperature"]) == (17, 0.5)
    assert body["chat_template_kwargs"] == {"thinking": False}


def test_hints_see_the_image(server: FakeVLLM) -> None:
    _teacher(server).write_hints([_with_image()])
    part = server.requests_to("/v1/chat/completions")[0]["messages"][0]["content"][0]
    assert part["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_hint_that_does_not_come(server: FakeVLLM) -> None:
    server.reply = lambda *_: (503, {}, "overloaded")
    with pytest.raises(TeacherUnavailableError, match="gave no hints"):
        _teacher(server).write_hints([TEXT])
    teacher = _teacher(server, on_failure="skip")
    assert teacher.write_hints([TEXT, TEXT]) == ["", ""]
    assert teacher.take_metrics()["teacher/hints_lost"] == 2


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_failure": "ignore"}, "on_failure is 'ignore'; use one of stop, wait, skip"),
        ({"top_k": 0}, "top_k is 0"),
        ({"hint_max_new_tokens": 0}, "hint_max_new_tokens is 0"),
        ({"hint_temperature": -1.0}, "hint_temperature is -1.0"),
        ({"concurrency": 0}, "concurrency is 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RemoteTeacher("http://x/v1", "m", **settings)
