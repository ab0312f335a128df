"""Time and memory of what the loss needs of the output head: log-probability, entropy and divergence of every token.

    python -m benchmarks.divergence [--repeats 5] [--threads 1] [--json FILE]
    python -m benchmarks.divergence --sizes NAME=tokens,gated,vocabulary,hidden [...]

Four methods run forward and backward on the same hidden states, with gradient to hidden states and head:

- `dense`: the formulas on whole logits;
- `trl + chunks`: TRL's fused head for the first two, then the student's logits once more for the divergence, in chunks
  that are checkpointed;
- `trl`: TRL's fused head, then TRL's fused divergence;
- `one pass`: `kepo.objective.token_terms`.

Times are CPU seconds, taken in turns in one process, so that a busy machine hits all methods alike. The peak is the
most bytes of tensors that one forward and backward hold beyond its inputs (torch's MemTracker).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import trl
from torch import Tensor
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from benchmarks.memory import peak_of
from kepo.objective import DenseTeacher, OutputHead, chunked_divergence, token_divergence, token_terms

Terms = tuple[Tensor, Tensor]  # log-probabilities and divergences; the entropy is only logged


@dataclass(frozen=True)
class Sizes:
    """Tokens, gated tokens among them, vocabulary and hidden width."""

    tokens: int
    gated: int
    vocab: int
    hidden: int


TIMED = {"SmolLM2": Sizes(480, 200, 49152, 576), "PhantomVQA": Sizes(4000, 1600, 200, 128)}
# Whole logits of 4096 tokens may not fit, so their peak is extrapolated from two smaller sizes.
WEIGHED = Sizes(4096, 4096, 151936, 64)


@dataclass(frozen=True)
class Inputs:
    """What all methods read."""

    hidden: Tensor
    weight: Tensor
    ids: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor
    gated: Tensor

    @staticmethod
    def of(sizes: Sizes) -> Inputs:
        generator = torch.Generator().manual_seed(0)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator) / shape[-1] ** 0.25

        return Inputs(
            hidden=randn(sizes.tokens, sizes.hidden).requires_grad_(),
            weight=randn(sizes.vocab, sizes.hidden).requires_grad_(),
            ids=torch.randint(sizes.vocab, (sizes.tokens,), generator=generator),
            teacher_hidden=randn(sizes.gated, sizes.hidden),
            teacher_weight=randn(sizes.vocab, sizes.hidden),
            gated=torch.arange(sizes.tokens) < sizes.gated,
        )


def dense(x: Inputs) -> Terms:
    logps = (x.hidden @ x.weight.T).log_softmax(-1)
    with torch.no_grad():
        teacher_logps = (x.teacher_hidden @ x.teacher_weight.T).log_softmax(-1)
        -(logps.exp() * logps).sum(-1)
    return logps.gather(-1, x.ids[:, None])[:, 0], token_divergence(logps[x.gated], teacher_logps, 0.5)


def _trl_logps(x: Inputs) -> Tensor:
    return ChunkedLogProbFunction.apply(x.hidden, x.weight, None, x.ids, 1.0, 32768, None, 1.0, ("entropy",))[0]


def trl_and_chunks(x: Inputs) -> Terms:
    heads = OutputHead(x.weight), OutputHead(x.teacher_weight)
    divergence = chunked_divergence(x.hidden[x.gated], heads[0], x.teacher_hidden, heads[1], chunk_size=256)
    return _trl_logps(x), divergence


def trl_kernels(x: Inputs) -> Terms:
    states = x.hidden[x.gated]
    arguments = states, x.weight, None, x.teacher_hidden, x.teacher_weight, None, 0.5
    return _trl_logps(x), ChunkedDivergenceFunction.apply(*arguments)[0]


def one_pass(x: Inputs) -> Terms:
    teacher = DenseTeacher(x.teacher_hidden, OutputHead(x.teacher_weight))
    terms = token_terms(x.hidden, OutputHead(x.weight), x.ids, teacher=teacher, gated=x.gated)
    return terms.logps, terms.divergence


METHODS: dict[str, Callable[[Inputs], Terms]] = {
    "dense": dense,
    "trl + chunks": trl_and_chunks,
    "trl": trl_kernels,
    "one pass": one_pass,
}


def step(method: str, x: Inputs) -> float:
    """One forward and backward; the loss."""
    logps, divergence = METHODS[method](x)
    loss = divergence.sum() / len(x.ids) - logps.mean()
    loss.backward()
    x.hidden.grad = x.weight.grad = None
    return loss.item()


@dataclass(frozen=True)
class Result:
    """Seconds and peak bytes of one method at one size."""

    size: str
    method: str
    loss: float
    seconds: float | None  # median
    spread: float | None  # largest minus smallest
    peak: float  # bytes


def compare(name: str, sizes: Sizes, repeats: int) -> list[Result]:
    """All methods in turns."""
    x = Inputs.of(sizes)
    losses = {method: step(method, x) for method in METHODS}
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(repeats):
        for method, times in seconds.items():
            start = time.process_time()
            step(method, x)
            times.append(time.process_time() - start)
    return [
        Result(name, method, losses[method], statistics.median(times), max(times) - min(times), peak(method, x))
        for method, times in seconds.items()
    ]


def peak(method: str, x: Inputs) -> int:
    """Most bytes of tensors in one forward and backward beyond the inputs."""
    inputs = [x.hidden, x.weight, x.ids, x.teacher_hidden, x.teacher_weight, x.gated]
    return peak_of(lambda: step(method, x), torch.device("cpu"), inputs)


def weigh(sizes: Sizes) -> list[Result]:
    """Peaks at a size that whole logits do not fit in; theirs grows by the same bytes with every token."""
    name = f"{sizes.tokens} tokens of {sizes.vocab}"
    few, more = (peak("dense", Inputs.of(Sizes(n, n, sizes.vocab, sizes.hidden))) for n in (32, 64))
    extrapolated = few + (more - few) / 32 * (sizes.tokens - 32)
    x = Inputs.of(sizes)
    measured = [Result(name, "one pass", float("nan"), None, None, peak("one pass", x))]
    return [Result(name, "dense (extrapolated)", float("nan"), None, None, extrapolated), *measured]


def table(results: Sequence[Result]) -> str:
    """Markdown; ratios are to the first method of a size."""
    lines = [
        "| size | method | seconds | spread | of dense | peak MiB | of dense | loss |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        base = next(other for other in results if other.size == result.size)
        times = "| - | - | - "
        if result.seconds is not None and result.spread is not None and base.seconds is not None:
            times = f"| {result.seconds:.4f} | {result.spread:.4f} | {result.seconds / base.seconds:.2f} "
        lines.append(
            f"| {result.size} | {result.method} {times}| {result.peak / 2**20:.1f} | {result.peak / base.peak:.3f} "
            f"| {result.loss:.6f} |"
        )
    return "\n".join(lines) + "\n"


def _named_sizes(text: str) -> tuple[str, Sizes]:
    name, numbers = text.split("=")
    return name, Sizes(*map(int, numbers.split(",")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=_named_sizes, nargs="+", help="instead of the two models'")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--skip-large", action="store_true", help="leave out the vocabulary of 151,936")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sizes = dict(args.sizes) if args.sizes else TIMED
    results = [result for name, s in sizes.items() for result in compare(name, s, args.repeats)]
    if not args.skip_large:
        results += weigh(WEIGHED)
    versions = {"torch": torch.__version__, "trl": trl.__version__, "threads": args.threads, "repeats": args.repeats}
    sys.stdout.write(f"{versions}\n\n{table(results)}")
    if args.json:
        args.json.write_text(json.dumps({**versions, "results": [asdict(result) for result in results]}, indent=2))


if __name__ == "__main__":
    main()
