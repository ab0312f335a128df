"""Memory and time of the divergence: ours in chunks, TRL's fused kernel, and the plain formula on whole logits.

    python -m benchmarks.divergence [--tokens 512] [--vocabulary 49152] [--hidden 576] [--repeats 3]

Each method runs forward and backward on the same hidden states in a process of its own; memory is the growth of that
process's peak resident set. Ratios are to the plain formula.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

METHODS = ("plain", "trl", "kepo")


def _plain(student: Tensor, weight: Tensor, teacher: Tensor, teacher_weight: Tensor) -> Tensor:
    from kepo.objective.divergence import token_divergence

    student_logps = (student @ weight.T).float().log_softmax(-1)
    return token_divergence(student_logps, (teacher @ teacher_weight.T).float().log_softmax(-1), 0.5)


def _trl(student: Tensor, weight: Tensor, teacher: Tensor, teacher_weight: Tensor) -> Tensor:
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    return ChunkedDivergenceFunction.apply(student, weight, None, teacher, teacher_weight, None, 0.5)[0]


def _kepo(student: Tensor, weight: Tensor, teacher: Tensor, teacher_weight: Tensor) -> Tensor:
    from kepo.objective.divergence import OutputHead, chunked_divergence

    return chunked_divergence(student, OutputHead(weight), teacher, OutputHead(teacher_weight), interpolation=0.5)


_RUN: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {"plain": _plain, "trl": _trl, "kepo": _kepo}


def measure(method: str, tokens: int, vocabulary: int, hidden: int, repeats: int) -> dict[str, float]:
    """Median seconds, growth of the peak resident set in MiB, and the loss, of one method in this process."""
    torch.manual_seed(0)
    student = torch.randn(tokens, hidden, requires_grad=True)
    weight = (torch.randn(vocabulary, hidden) / hidden**0.5).requires_grad_()
    teacher, teacher_weight = torch.randn(tokens, hidden), torch.randn(vocabulary, hidden) / hidden**0.5
    run = _RUN[method]
    run(student[:2], weight, teacher[:2], teacher_weight).sum().backward()  # imports and first-call costs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        student.grad = weight.grad = None
        start = time.perf_counter()
        loss = run(student, weight, teacher, teacher_weight).mean()
        loss.backward()
        seconds.append(time.perf_counter() - start)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": statistics.median(seconds), "mebibytes": growth, "loss": loss.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=49152, help="SmolLM2's")
    parser.add_argument("--hidden", type=int, default=576, help="SmolLM2's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--method", choices=METHODS)
    args = parser.parse_args()
    sizes = (args.tokens, args.vocabulary, args.hidden, args.repeats)
    if args.method:
        sys.stdout.write(json.dumps(measure(args.method, *sizes)))
        return
    results = {}
    for method in METHODS:
        command = [sys.executable, "-m", "benchmarks.divergence", "--method", method, *_flags(args)]
        results[method] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    sys.stdout.write(_table(results, args))


def _flags(args: argparse.Namespace) -> list[str]:
    return [f"--{name}={getattr(args, name)}" for name in ("tokens", "vocabulary", "hidden", "repeats")]


def _table(results: dict[str, dict[str, float]], args: argparse.Namespace) -> str:
    plain = results["plain"]
    lines = [
        f"Divergence of {args.tokens} tokens, vocabulary {args.vocabulary}, hidden {args.hidden}, forward and backward",
        "",
        "| method | seconds | of plain | peak MiB | of plain | loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method, r in results.items():
        time_ratio, memory_ratio = r["seconds"] / plain["seconds"], r["mebibytes"] / max(plain["mebibytes"], 1)
        lines.append(
            f"| {method} | {r['seconds']:.2f} | {time_ratio:.2f} | {r['mebibytes']:.0f} | {memory_ratio:.2f} "
            f"| {r['loss']:.6f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
