"""Three ways to train on the rollouts of one prompt: each row alone, a cache with its graph, one packed sequence.

    python -m benchmarks.shared_prompt [MODEL] [--prompt 160] [--completion 60] [--group 8] [--repeats 5]

Forward and backward of the decoder and of the log-probabilities of one group's completions, on the same token ids;
times are medians of interleaved repeats, ratios are to separate rows. MODEL is a folder (`kepo models smollm2`);
without it a random Llama of SmolLM2's shape is taken. Gradients are compared too, relative to the largest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM

from benchmarks.meter import CPU_ATTENTION
from kepo.models.packing import Cost, TokenRow, plan_packs
from kepo.models.shared_prompt import SharedPrompt
from kepo.objective.divergence import OutputHead, chunked_token_logps


def random_model(layers: int = 30) -> Any:
    """A Llama of SmolLM2-135M's shape, random."""
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def rows_of_group(prompt: int, completion: int, group: int) -> list[TokenRow]:
    """`group` completions of one prompt, of 50 to 100 % of `completion` tokens."""
    torch.manual_seed(0)
    shared = tuple(torch.randint(10, 1000, (prompt,)).tolist())
    lengths = [completion - (completion // 2) * row // max(group - 1, 1) for row in range(group)]
    return [TokenRow(shared, tuple(torch.randint(10, 1000, (length,)).tolist())) for length in lengths]


def packed_logps(model: Any, rows: list[TokenRow], shared: SharedPrompt) -> torch.Tensor:
    """(N,) log-probabilities, from packs or, where `shared` is off, from separate rows."""
    packed = shared.pack(rows, model.device)
    states = model.base_model(**packed.inputs, use_cache=False).last_hidden_state.flatten(0, 1)[packed.states]
    return chunked_token_logps(states, OutputHead(model.get_output_embeddings().weight), packed.tokens)


def cached_logps(model: Any, rows: list[TokenRow]) -> torch.Tensor:
    """(N,) log-probabilities: the prompt's forward fills a cache that keeps its graph, the completions read it."""
    prompt = torch.tensor([rows[0].prompt], device=model.device)
    lengths = [len(row.completion) for row in rows]
    longest = max(lengths)
    filled = [[*row.completion, *[0] * (longest - len(row.completion))] for row in rows]
    completions = torch.tensor(filled, device=model.device)
    cache = DynamicCache(config=model.config)
    first = model.base_model(prompt, past_key_values=cache, use_cache=True).last_hidden_state[:, -1:]
    cache.batch_repeat_interleave(len(rows))
    mask = torch.tensor([[1] * (len(rows[0].prompt) + n) + [0] * (longest - n) for n in lengths], device=model.device)
    states = model.base_model(
        completions, past_key_values=cache, attention_mask=mask, use_cache=True
    ).last_hidden_state  # (G, T, H)
    states = torch.cat([first.expand(len(rows), -1, -1), states[:, :-1]], dim=1)
    hidden = torch.cat([states[row, :n] for row, n in enumerate(lengths)])
    ids = torch.cat([completions[row, :n] for row, n in enumerate(lengths)])
    return chunked_token_logps(hidden, OutputHead(model.get_output_embeddings().weight), ids)


def compare(model: Any, rows: list[TokenRow], repeats: int) -> dict[str, dict[str, float]]:
    """Seconds, operations and gradient error of each way."""
    alone = SharedPrompt(model, 0, "student", enabled=False)
    shared = SharedPrompt(model, 0, "student")
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "separate rows": lambda: packed_logps(model, rows, alone),
        "cache with its graph": lambda: cached_logps(model, rows),
        "packed": lambda: packed_logps(model, rows, shared),
    }
    results: dict[str, dict[str, float]] = {}
    expected: dict[str, torch.Tensor] = {}
    for name, way in ways.items():
        model.zero_grad()
        with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
            way().mean().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        expected = expected or gradients
        scale = max(float(gradient.abs().max()) for gradient in expected.values())
        error = max(float((gradients[n] - expected[n]).abs().max()) for n in expected) / scale
        results[name] = {"gigaflop": counter.get_total_flops() / 1e9, "error": error}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            model.zero_grad()
            start = time.perf_counter()
            way().mean().backward()
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        results[name]["seconds"] = statistics.median(taken)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a folder; default: a random model of SmolLM2-135M's shape")
    parser.add_argument("--prompt", type=int, default=160, help="tokens")
    parser.add_argument("--completion", type=int, default=60, help="tokens of the longest")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--layers", type=int, default=30, help="of the random model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.model) if args.model else random_model(args.layers)
    model = model.to(args.device).train()
    rows = rows_of_group(args.prompt, args.completion, args.group)
    packs = plan_packs(rows, Cost.of(model.config))
    results = compare(model, rows, args.repeats)
    base = results["separate rows"]
    sys.stdout.write(
        f"{args.group} completions of up to {args.completion} tokens, a prompt of {args.prompt}, {args.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; packed into {len(packs)}\n\n"
        "| way | seconds | of separate rows | operations (10^9) | of separate rows | gradient error |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
    )
    for name, found in results.items():
        sys.stdout.write(
            f"| {name} | {found['seconds']:.2f} | {found['seconds'] / base['seconds']:.2f} | {found['gigaflop']:.1f} "
            f"| {found['gigaflop'] / base['gigaflop']:.2f} | {found['error']:.1e} |\n"
        )


if __name__ == "__main__":
    main()
