"""The cost meter against numbers computed by hand."""

from __future__ import annotations

import torch
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.meter import CPU_ATTENTION, CostMeter


def test_a_linear_layer() -> None:
    x, weight = torch.ones(10, 4, requires_grad=True), torch.ones(6, 4, requires_grad=True)
    meter = CostMeter()
    with meter.running("step"):
        with meter.in_phase("forward"):
            loss = linear(x, weight).sum()
        with meter.in_phase("backward"):
            loss.backward()
    assert meter.costs["forward"].flops == 2 * 10 * 4 * 6
    assert meter.costs["backward"].flops == 2 * (2 * 10 * 4 * 6)  # the gradients of x and of the weight
    assert meter.costs["forward"].peak_bytes == 4 * (10 * 6 + 1)  # the output and its sum


def test_attention_counts_on_a_cpu_and_its_mask_counts_as_dense() -> None:
    heads, length, width = 2, 7, 8
    product = 2 * heads * length * length * width  # queries x keys, or weights x values
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    for options in ({}, {"is_causal": True}, {"attn_mask": mask}):
        q, k, v = (torch.rand(1, heads, length, width, requires_grad=True) for _ in range(3))
        meter = CostMeter()
        with meter.running("forward"):
            out = scaled_dot_product_attention(q, k, v, **options)
            with meter.in_phase("backward"):
                out.sum().backward()
        # Backward: the weights once more, then the gradients of weights, values, queries and keys.
        assert [meter.costs[phase].flops for phase in ("forward", "backward")] == [2 * product, 5 * product]
        assert meter.costs["forward"].attention_flops == 2 * product


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return 2 * x @ weight

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return 2 * grad @ weight.T, None


def test_work_inside_checkpoints_and_autograd_functions_counts() -> None:
    x, weight = torch.ones(3, 5, requires_grad=True), torch.ones(5, 5)
    product = 2 * 3 * 5 * 5

    def checkpointed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        # The square needs the product again.
        return checkpoint(lambda: (x @ weight).square(), use_reentrant=False)

    for run, products in ((_Doubled.apply, 1), (checkpointed, 2)):
        meter = CostMeter()
        with meter.running("forward"):
            loss = run(x, weight).sum()
            with meter.in_phase("backward"):
                loss.backward()
        assert meter.costs["forward"].flops == product
        assert meter.costs["backward"].flops == products * product


def test_bytes_are_those_held_at_once() -> None:
    there = torch.zeros(100)
    meter = CostMeter()
    with meter.running("first"):
        kept = there.view(10, 10).add(1)  # the view is not new
        dropped = kept + 1
        del dropped
        with meter.in_phase("second"):
            kept.add_(1)
            kept + 1
            kept + 1
    assert [meter.costs[phase].peak_bytes for phase in ("first", "second")] == [800, 800]
    del kept


def test_the_innermost_phase_pays_and_nothing_counts_outside() -> None:
    x = torch.ones(2, 2)
    meter = CostMeter()
    with meter.in_phase("outer"):
        torch.mm(x, x)
    with meter.running("outer"):
        torch.mm(x, x)
        with meter.in_phase("inner"):
            torch.mm(x, x)
        torch.mm(x, x)
    torch.mm(x, x)
    assert {phase: cost.flops for phase, cost in meter.costs.items()} == {"outer": 32, "inner": 16}


def test_tokens_and_operations_of_a_whole_model() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(**sizes))
    ids = torch.zeros(3, 5, dtype=torch.long)
    meter = CostMeter()
    meter.count_tokens(model)
    with meter.running("step"):
        model(ids, labels=ids).loss.backward()
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        model(ids, labels=ids).loss.backward()
    assert meter.costs["step"].tokens == 15
    assert meter.costs["step"].flops == counter.get_total_flops() > 0
