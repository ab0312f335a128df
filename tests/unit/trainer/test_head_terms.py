"""The terms of the output head from TRL's kernels and from one pass of ours are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kepo import objective
from kepo.objective import DenseTeacher, OutputHead, SparseTeacher, TokenTerms
from kepo.trainer.adapter import head_terms

N, V, H_S, H_T = 9, 37, 8, 5
GATED = torch.tensor([False, True, True, False, True, False, False, True, True])
M = int(GATED.sum())
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
    ),
]


def randn(*shape: int, seed: int, device: str) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def make_head(width: int, seed: int, device: str, vocab: int = V, bias: bool = False, **kwargs: Any) -> OutputHead:
    made = randn(vocab, seed=seed + 100, device=device) if bias else None
    return OutputHead(randn(vocab, width, seed=seed, device=device), made, **kwargs)


def make_teacher(kind: str, device: str, **kwargs: Any) -> DenseTeacher | SparseTeacher | None:
    if kind == "sparse":
        top = randn(M, V, seed=3, device=device).log_softmax(-1).topk(4)
        return SparseTeacher(top.indices, top.values)
    if kind == "dense":
        return DenseTeacher(randn(M, H_T, seed=1, device=device), make_head(H_T, 3, device, **kwargs))
    return None


def values_and_gradients(terms: TokenTerms, leaves: list[Tensor]) -> list[Tensor]:
    values = [x for x in (terms.logps, terms.entropy, terms.divergence) if x is not None]
    loss = sum((x * torch.linspace(0.5, 1.5, len(x), device=x.device) * k).sum() for k, x in enumerate(values, 1))
    return [*(x.detach() for x in values), *torch.autograd.grad(loss, leaves)]  # type: ignore[arg-type]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interpolation", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({"bias": True}, {"bias": True}, id="bias"),
        pytest.param({"scale": 0.5, "bias": True, "softcap": 2.0}, {"scale": 1.5, "softcap": 3.0}, id="everything"),
        pytest.param({}, {"vocab": V + 3}, id="a larger teacher"),
        pytest.param({"bias": True}, {"vocab": V - 3}, id="a smaller teacher"),
    ],
)
def test_a_dense_teacher(device: str, interpolation: float, student: Any, teacher: Any) -> None:
    # All sum in float32, in another order: 1e-5 relative on values around 1.
    hidden, head = randn(N, H_S, seed=0, device=device), make_head(H_S, 2, device, **student)
    ids, other = torch.arange(N, device=device) * 4, make_teacher("dense", device, **teacher)
    leaves = [x.requires_grad_() for x in (hidden, head.weight, head.bias) if x is not None]
    settings = {"interpolation": interpolation, "divergence_temperature": 1.3}
    ours, theirs = (
        use(hidden, head, ids, 0.7, teacher=other, gated=GATED.to(device), **settings)
        for use in (objective.token_terms, head_terms.trl_token_terms)
    )
    torch.testing.assert_close(
        values_and_gradients(theirs, leaves), values_and_gradients(ours, leaves), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["sparse", "none"])
@pytest.mark.parametrize("entropy", [True, False])
def test_candidates_or_no_teacher(device: str, kind: str, entropy: bool) -> None:
    hidden, head = randn(N, H_S, seed=0, device=device), make_head(H_S, 2, device)
    ids, other = torch.arange(N, device=device) * 4, make_teacher(kind, device)
    leaves = [hidden.requires_grad_(), head.weight.requires_grad_()]
    ours, theirs = (
        use(hidden, head, ids, 0.7, teacher=other, gated=GATED.to(device), entropy=entropy)
        for use in (objective.token_terms, head_terms.trl_token_terms)
    )
    torch.testing.assert_close(
        values_and_gradients(theirs, leaves), values_and_gradients(ours, leaves), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_autocast_and_a_product_in_float32(device: str, dtype: torch.dtype | None) -> None:
    hidden, head = randn(N, H_S, seed=0, device=device), make_head(H_S, 2, device)
    ids = torch.arange(N, device=device) * 4
    with torch.autocast(device, torch.bfloat16):
        ours, theirs = (
            use(hidden, head, ids, dtype=dtype) for use in (objective.token_terms, head_terms.trl_token_terms)
        )
    torch.testing.assert_close(ours.logps, theirs.logps, rtol=1e-5, atol=1e-5)
    exact = head.logits(hidden).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    assert ((theirs.logps - exact).abs().max() < 1e-5) == (dtype is torch.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tokens", [0, N])
def test_no_gated_token_keeps_the_graph(device: str, tokens: int) -> None:
    hidden, head = randn(tokens, H_S, seed=0, device=device).requires_grad_(), make_head(H_S, 2, device)
    head.weight.requires_grad_()
    teacher = DenseTeacher(randn(0, H_T, seed=1, device=device), make_head(H_T, 3, device))
    closed = torch.zeros(tokens, dtype=torch.bool, device=device)
    for use in (objective.token_terms, head_terms.trl_token_terms):
        ids = torch.zeros(tokens, dtype=torch.long, device=device)
        terms = use(hidden, head, ids, teacher=teacher, gated=closed)
        gradients = torch.autograd.grad(terms.divergence.sum(), [hidden, head.weight])
        assert not any(gradient.any() for gradient in gradients)


def test_a_cpu_computes_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_terms, "trl_token_terms", None)
    hidden, head = randn(N, H_S, seed=0, device="cpu"), make_head(H_S, 2, "cpu")
    ids = torch.zeros(N, dtype=torch.long)
    terms = head_terms.token_terms(hidden, head, ids, 0.7, entropy=False)
    torch.testing.assert_close(terms.logps, objective.chunked_token_logps(hidden, head, ids, 0.7))
