"""A teacher behind a real vLLM server against the same model in this process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kepo import LocalTeacher, RemoteTeacher
from kepo.errors import TeacherError
from kepo.prompts import hint_request
from kepo.recipes.launch import train
from kepo.recipes.recipe import load_recipe
from kepo.teachers.base import ScoreRequest, SparseScores
from kepo.types import Conversation
from tests.tiny_models import tiny_image
from tools.faults import FAULTS_OF_CONTENT
from tools.faulty_proxy import Fault, FaultyProxy, first_of_each
from tools.vllm_cpu import Server

TOP_K = 20
# Nats. vLLM and transformers sum in other orders; seen: 4e-5.
TOLERANCE = 1e-3


def _remote(server: Server, **settings: Any) -> RemoteTeacher:
    given = {"top_k": TOP_K, "first_wait": 0.2, "hint_max_new_tokens": 12, "hint_temperature": 0.0, **settings}
    return RemoteTeacher(server.url, str(server.model), **given)


def _rows(prompts: Sequence[Any], vocabulary: int, tokens: int = 24) -> list[ScoreRequest]:
    """Random token ids: most of them no tokenizer would write, so an answer about text would be about other ids."""
    generator = torch.Generator().manual_seed(5)
    return [
        ScoreRequest(prompt, tuple(torch.randint(20, vocabulary, (tokens,), generator=generator).tolist()))
        for prompt in prompts
    ]


def _compare(remote: RemoteTeacher, here: LocalTeacher, rows: Sequence[ScoreRequest]) -> None:
    for scores, dense in zip(remote.score(rows), here.score(rows), strict=True):
        assert isinstance(scores, SparseScores)
        whole = here.head.logits(dense.hidden).log_softmax(-1)  # (T, V)
        used = scores.logps > -math.inf
        torch.testing.assert_close(scores.logps[used], whole.gather(1, scores.ids)[used], rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(scores.token_logps, dense.token_logps, rtol=0, atol=TOLERANCE)
        # The candidates are the likeliest: what is left out is no likelier than the least of them.
        rest = whole.scatter(1, scores.ids, -math.inf).max(1).values
        likeliest = scores.logps.masked_fill(~used, -math.inf).topk(TOP_K).values[:, -1]
        assert (rest <= likeliest + TOLERANCE).all()


def test_scores_of_text(text_server: Server, smollm2_here: LocalTeacher) -> None:
    remote = _remote(text_server)
    remote.check_student(AutoTokenizer.from_pretrained(text_server.model), 49152)
    prompts: list[Conversation] = [[{"role": "user", "content": f"What is {n} + {2 * n}?"}] for n in range(3)]
    remote.check_prompt(prompts[0])
    _compare(remote, smollm2_here, _rows(prompts, 49152))


def test_scores_of_plain_text(text_server: Server, smollm2_here: LocalTeacher) -> None:
    _compare(_remote(text_server), smollm2_here, _rows(["Two and two are", "é 漢 {braces} <|im_end|>"], 49152))


def test_scores_behind_images(image_server: Server, idefics3: Path) -> None:
    here = LocalTeacher(idefics3, device="cpu", dtype="float32")
    prompts = [
        [{"role": "user", "content": [{"type": "image", "image": tiny_image(c)}, {"type": "text", "text": "What?"}]}]
        for c in range(3)
    ]
    vocabulary = here.head.weight.shape[0]
    remote = _remote(image_server)
    remote.check_student(AutoTokenizer.from_pretrained(idefics3), vocabulary)
    remote.check_prompt(prompts[0])
    _compare(remote, here, _rows(prompts, vocabulary))
    # Without the image the same tokens have other probabilities: it is really seen.
    blind = [[{"role": "user", "content": "What?"}]]
    [seen], [unseen] = (remote.score(_rows(shown, vocabulary)) for shown in (prompts[:1], blind))
    assert isinstance(seen, SparseScores)
    assert isinstance(unseen, SparseScores)
    assert (seen.token_logps - unseen.token_logps).abs().max() > 0.1


def test_hints(text_server: Server, smollm2_here: LocalTeacher) -> None:
    requests = [hint_request([{"role": "user", "content": f"What is {n} + {n}?"}], str(2 * n)) for n in (2, 3)]
    assert _remote(text_server).write_hints(requests) == smollm2_here.write_hints(requests)


def test_another_models_student_is_refused(text_server: Server, idefics3: Path) -> None:
    with pytest.raises(TeacherError, match="cannot score this student's tokens"):
        _remote(text_server).check_student(AutoTokenizer.from_pretrained(idefics3), 400)


def test_more_candidates_than_the_server_gives(text_server: Server) -> None:
    remote = _remote(text_server, top_k=65)
    remote.check_student(AutoTokenizer.from_pretrained(text_server.model), 49152)
    with pytest.raises(TeacherError, match="--max-logprobs 65"):
        remote.check_prompt([{"role": "user", "content": "Hello"}])


@pytest.fixture(scope="module")
def student(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The teacher with some noise, so that there is something to learn from it."""
    folder = tmp_path_factory.mktemp("served") / "student"
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * parameter.std()
            parameter.add_(0.05 * noise)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2).save_pretrained(folder)
    return str(folder)


def test_a_run_with_a_served_teacher_is_the_run_with_a_local_one(
    text_server: Server, student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    teacher = ["--teacher_model_name_or_path", str(text_server.model), "--hint_temperature", "0"]
    small = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "16"]
    # Steps so small that both students stay the same up to rounding, whose samples can be compared then.
    shared = ["--model_name_or_path", student, *teacher, *small, "--max_steps", "2", "--learning_rate", "1e-9"]
    shared += [
        "--save_strategy",
        "no",
        "--gate",
        "always",
        "--exploration_attempts",
        "1",
        "--hint_max_new_tokens",
        "12",
    ]
    here = train(load_recipe("smollm2/kepo", [*shared, "--output_dir", "here", "--teacher_dtype", "float32"]))
    served = train(load_recipe("smollm2/kepo", [*shared, "--output_dir", "served", "--teacher_url", text_server.url]))
    for name in ("reward", "exploration/correct_before", "gate/open_share", "teacher/tokens"):
        assert _curve(served, name) == pytest.approx(_curve(here, name)), name
    # 64 candidates and a tail instead of the whole vocabulary tell a little less, and never more.
    for ours, dense in zip(_curve(served, "distillation/loss"), _curve(here, "distillation/loss"), strict=True):
        assert dense > 0.01
        assert 0.85 * dense < ours < dense * (1 + 1e-4)
    assert sum(_curve(served, "teacher/rows_sent")) > 8
    assert sum(_curve(served, "teacher/rows_lost")) == 0


def _curve(result: Any, name: str) -> list[float]:
    return [log[name] for log in result.history if name in log]


def test_a_server_that_is_killed_in_the_middle_and_started_again(
    text_server: Server, smollm2_here: LocalTeacher
) -> None:
    remote = _remote(text_server, on_failure="wait", concurrency=4)
    remote.check_student(AutoTokenizer.from_pretrained(text_server.model), 49152)
    prompts: list[Conversation] = [[{"role": "user", "content": f"What is {n} + {n}?"}] for n in range(40)]
    rows = _rows(prompts, 49152, tokens=64)
    pending = remote.start_scoring(rows)
    time.sleep(1.0)
    text_server.stop(kill=True)
    restarting = threading.Timer(2.0, lambda: text_server.start(wait=False))
    restarting.start()
    found = pending.result()
    restarting.join()
    assert remote.take_metrics()["teacher/faults"] > 0, "the server was killed too late to be missed"
    assert all(isinstance(scores, SparseScores) for scores in found)
    _compare(remote, smollm2_here, rows[:4])
    expected = smollm2_here.score(rows)
    for scores, dense in zip(found, expected, strict=True):
        assert scores is not None
        torch.testing.assert_close(scores.token_logps, dense.token_logps, rtol=0, atol=TOLERANCE)


def test_faults_on_the_way_lose_no_row_and_no_hint(text_server: Server, smollm2_here: LocalTeacher) -> None:
    # Of the rest one takes long, and the other is no fault of an answer about scores.
    faults = [fault for fault in Fault if fault not in (Fault.TOO_SLOW, Fault.OTHER_MODEL)]
    anywhere = [fault for fault in faults if fault not in FAULTS_OF_CONTENT]
    prompts: list[Conversation] = [[{"role": "user", "content": f"What is {n} + {n}?"}] for n in range(30)]
    rows = _rows(prompts, 49152, tokens=8)
    with FaultyProxy(text_server.url.removesuffix("/v1")) as proxy:
        remote = RemoteTeacher(
            f"{proxy.url}/v1", str(text_server.model), top_k=TOP_K, first_wait=0.05, on_failure="skip", concurrency=4
        )
        remote.score(rows[:1])
        proxy.plan = first_of_each(faults, paths=["/inference/v1/generate"])
        found = remote.score(rows[:20])
        assert set(proxy.injected) == set(faults)
        assert proxy.injected.total() == 20
        proxy.plan = first_of_each(anywhere)
        found += remote.score(rows[20:])
        hints = remote.write_hints([hint_request(prompt, "7") for prompt in prompts[:9]])
        # The prompt of each row, its scores and each hint at least.
        assert proxy.injected.total() >= 20 + 10 + 10 + 9
    assert not proxy.passed
    assert remote.take_metrics()["teacher/rows_lost"] == 0
    assert all(hints)
    for scores, dense in zip(found, smollm2_here.score(rows), strict=True):
        assert scores is not None
        torch.testing.assert_close(scores.token_logps, dense.token_logps, rtol=0, atol=TOLERANCE)
