"""Log-probability, entropy and divergence from one pass, against the plain formulas on whole logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kepo.errors import ConfigError, KepoError
from kepo.objective import (
    DenseTeacher,
    OutputHead,
    SparseTeacher,
    TokenTerms,
    chunked_divergence,
    chunked_token_logps,
    sparse_divergence,
    token_divergence,
    token_terms,
)

INTERPOLATIONS = [0.0, 0.1, 0.5, 0.9, 1.0]
N, V, H_S, H_T, K = 9, 11, 4, 5, 3
GATED = torch.tensor([False, True, True, False, True, False, False, True, True])
M = int(GATED.sum())


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def make_head(width: int, seed: int, vocab: int = V, dtype: torch.dtype = torch.float64, **kwargs: Any) -> OutputHead:
    bias = randn(vocab, seed=seed + 100, dtype=dtype) if kwargs.pop("bias", False) else None
    return OutputHead(randn(vocab, width, seed=seed, dtype=dtype), bias, **kwargs)


def make_ids(tokens: int = N, vocab: int = V) -> Tensor:
    return torch.arange(tokens) * 5 % vocab


HEADS = [
    pytest.param({}, {}, id="plain"),
    pytest.param({"bias": True}, {"bias": True}, id="bias"),
    pytest.param({"softcap": 1.5}, {"softcap": 2.5}, id="softcap"),
    pytest.param({"scale": 0.5, "bias": True, "softcap": 2.0}, {"scale": 1.5}, id="everything"),
]


def plain(
    hidden: Tensor, head: OutputHead, ids: Tensor, temperature: float, teacher: Any, gated: Tensor, b: float, t: float
) -> list[Tensor]:
    """The three terms from whole logits."""
    logits = head.logits(hidden)
    logps = (logits / temperature).log_softmax(-1)
    if isinstance(teacher, SparseTeacher):
        divergence = sparse_divergence(hidden[gated], head, teacher.ids, teacher.logps, b)
    else:
        vocab = min(V, len(teacher.head.weight))
        other = teacher.head.logits(teacher.hidden)[:, :vocab]
        divergence = token_divergence((logits[gated][:, :vocab] / t).log_softmax(-1), (other / t).log_softmax(-1), b)
    return [logps.gather(-1, ids[:, None])[:, 0], -(logps.exp() * logps).sum(-1), divergence]


def parts(terms: TokenTerms) -> list[Tensor]:
    return [terms.logps, *([] if terms.entropy is None else [terms.entropy]), terms.divergence]


def weighted(terms: list[Tensor]) -> Tensor:
    """A scalar in which every value of every term has another weight."""
    return sum(
        (term * torch.linspace(0.5, 1.5, len(term), dtype=term.dtype) * k).sum() for k, term in enumerate(terms, 1)
    )  # type: ignore[return-value]


def leaves_of(hidden: Tensor, head: OutputHead) -> list[Tensor]:
    return [x.requires_grad_() for x in (hidden, head.weight, head.bias) if x is not None]


def assert_same(got: list[Tensor], expected: list[Tensor], leaves: list[Tensor], **tolerance: float) -> None:
    """Values and gradients are equal."""
    torch.testing.assert_close([x.detach() for x in got], [x.detach() for x in expected], **tolerance)
    gradients = [torch.autograd.grad(weighted(x), leaves) for x in (got, expected)]
    torch.testing.assert_close(*gradients, **tolerance)


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize(("temperature", "divergence_temperature"), [(1.0, 1.0), (0.7, 0.7), (0.7, 1.0), (1.0, 2.0)])
@pytest.mark.parametrize(("student", "teacher"), HEADS)
def test_a_dense_teacher(
    b: float, temperature: float, divergence_temperature: float, student: Any, teacher: Any
) -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2, **student), make_ids()
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3, **teacher))
    leaves = leaves_of(hidden, head)
    terms = token_terms(
        hidden, head, ids, temperature, teacher=other, gated=GATED, interpolation=b,
        divergence_temperature=divergence_temperature, chunk_size=2,
    )  # fmt: skip
    expected = plain(hidden, head, ids, temperature, other, GATED, b, divergence_temperature)
    assert_same(parts(terms), expected, leaves)


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize("k", [1, K, V])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_sparse_teacher(b: float, k: int, temperature: float) -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2, bias=True, softcap=3.0, scale=0.7), make_ids()
    top = randn(M, V, seed=3).log_softmax(-1).topk(k)
    other = SparseTeacher(top.indices, top.values)
    leaves = leaves_of(hidden, head)
    terms = token_terms(hidden, head, ids, temperature, teacher=other, gated=GATED, interpolation=b, chunk_size=2)
    assert_same(parts(terms), plain(hidden, head, ids, temperature, other, GATED, b, 1.0), leaves)


@pytest.mark.parametrize("b", [0.0, 0.5, 1.0])
def test_gradcheck(b: float) -> None:
    other = DenseTeacher(randn(2, H_T, seed=1), make_head(H_T, seed=3, vocab=4))

    def terms(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        head = OutputHead(weight, bias, scale=0.7, softcap=3.0)
        ids, gated = torch.tensor([0, 4, 2]), torch.tensor([2, 0])
        settings = {"interpolation": b, "divergence_temperature": 1.3, "chunk_size": 1}
        return tuple(parts(token_terms(hidden, head, ids, 0.8, teacher=other, gated=gated, **settings)))

    inputs = (randn(3, H_S, seed=0), randn(5, H_S, seed=2), randn(5, seed=4))
    assert torch.autograd.gradcheck(terms, tuple(x.requires_grad_() for x in inputs))


def test_the_functions_of_one_term_give_the_same() -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2), make_ids()
    other = DenseTeacher(randn(N, H_T, seed=1), make_head(H_T, seed=3))
    terms = token_terms(hidden, head, ids, 0.7, teacher=other)
    torch.testing.assert_close(terms.logps, chunked_token_logps(hidden, head, ids, 0.7))
    torch.testing.assert_close(terms.divergence, chunked_divergence(hidden, head, other.hidden, other.head))


@pytest.mark.parametrize("positions", [[1, 2, 4, 7, 8], [8, 1, 4, 2, 7]])
def test_gated_tokens_by_position(positions: list[int]) -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2), make_ids()
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3))
    leaves, gated = leaves_of(hidden, head), torch.tensor(positions)
    terms = token_terms(hidden, head, ids, teacher=other, gated=gated, chunk_size=2)
    assert_same(parts(terms), plain(hidden, head, ids, 1.0, other, gated, 0.5, 1.0), leaves)


@pytest.mark.parametrize("chunk_size", [1, 4, N, 1000, None])
def test_the_chunk_size_changes_nothing(chunk_size: int | None) -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2), make_ids()
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3))
    leaves = leaves_of(hidden, head)
    got, expected = (
        parts(token_terms(hidden, head, ids, teacher=other, gated=GATED, chunk_size=size)) for size in (chunk_size, 2)
    )
    assert_same(got, expected, leaves, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("v_student", "v_teacher"), [(V, V - 3), (V, V + 3)])
def test_the_policy_has_all_tokens_and_the_divergence_the_common_ones(v_student: int, v_teacher: int) -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2, vocab=v_student), make_ids()
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3, vocab=v_teacher, bias=True))
    leaves = leaves_of(hidden, head)
    terms = token_terms(hidden, head, ids, teacher=other, gated=GATED, chunk_size=2)
    assert_same(parts(terms), plain(hidden, head, ids, 1.0, other, GATED, 0.5, 1.0), leaves)


@pytest.mark.parametrize("teacher", [True, False])
def test_without_entropy_and_without_teacher(teacher: bool) -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2), make_ids()
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3)) if teacher else None
    terms = token_terms(hidden, head, ids, teacher=other, gated=GATED, entropy=False)
    assert terms.entropy is None
    assert terms.divergence.shape == ((M,) if teacher else (0,))
    torch.testing.assert_close(terms.logps, chunked_token_logps(hidden, head, ids))


@pytest.mark.parametrize("term", ["logps", "entropy", "divergence"])
def test_the_gradient_of_one_term_alone(term: str) -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2), make_ids()
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3))
    leaves = leaves_of(hidden, head)
    terms = token_terms(hidden, head, ids, teacher=other, gated=GATED, chunk_size=4)
    wanted = ["logps", "entropy", "divergence"].index(term)
    expected = plain(hidden, head, ids, 1.0, other, GATED, 0.5, 1.0)[wanted]
    assert_same([getattr(terms, term)], [expected], leaves)


def test_only_the_gradients_that_are_needed() -> None:
    head, ids = make_head(H_S, seed=2, bias=True), make_ids()
    hidden = randn(N, H_S, seed=0).requires_grad_()
    token_terms(hidden, head, ids).logps.sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is None
    head.weight.requires_grad_()
    token_terms(hidden.detach(), head, ids).logps.sum().backward()
    assert head.weight.grad is not None
    assert head.bias.grad is None


def test_no_gradient_to_the_teacher() -> None:
    hidden, teacher_hidden = randn(N, H_S, seed=0).requires_grad_(), randn(N, H_T, seed=1).requires_grad_()
    teacher_head = make_head(H_T, seed=3, bias=True)
    teacher_head.weight.requires_grad_()
    terms = token_terms(hidden, make_head(H_S, seed=2), make_ids(), teacher=DenseTeacher(teacher_hidden, teacher_head))
    terms.divergence.sum().backward()
    assert hidden.grad.any()
    assert teacher_hidden.grad is teacher_head.weight.grad is None


# --- tokens that do not matter --------------------------------------------------------------------------------------


def test_a_closed_gate_has_a_gradient_of_exactly_zero() -> None:
    hidden, head = randn(N, H_S, seed=0).requires_grad_(), make_head(H_S, seed=2)
    head.weight.requires_grad_()
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3))
    terms = token_terms(hidden, head, make_ids(), teacher=other, gated=GATED)
    (terms.divergence.sum() + 0.0 * terms.logps.sum()).backward()
    assert not hidden.grad[~GATED].any()
    assert hidden.grad[GATED].all()
    hidden.grad = head.weight.grad = None
    terms = token_terms(hidden, head, make_ids(), teacher=other, gated=GATED)
    (0.0 * (terms.divergence.sum() + terms.logps.sum())).backward()
    assert not hidden.grad.any()
    assert not head.weight.grad.any()


@pytest.mark.parametrize("row", [0, 1])
def test_a_nan_in_a_token_without_gradient_harms_nothing(row: int) -> None:
    hidden, head = randn(N, H_S, seed=0), make_head(H_S, seed=2)
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3))
    kept = torch.arange(N) != row

    def gradients(states: Tensor) -> list[Tensor]:
        leaves = leaves_of(states, head)
        terms = token_terms(states, head, make_ids(), teacher=other, gated=GATED)
        loss = terms.logps[kept].sum() + terms.entropy[kept].sum() + terms.divergence[kept[GATED]].sum()
        return list(torch.autograd.grad(loss, leaves))

    expected = gradients(hidden.clone())
    broken = hidden.clone()
    broken[row] = math.nan
    torch.testing.assert_close(gradients(broken), expected)


def test_a_broken_teacher_is_seen() -> None:
    hidden, states = randn(N, H_S, seed=0).requires_grad_(), randn(M, H_T, seed=1)
    states[2, 1] = math.nan
    terms = token_terms(
        hidden, make_head(H_S, seed=2), make_ids(), teacher=DenseTeacher(states, make_head(H_T, seed=3)), gated=GATED
    )
    assert terms.divergence.isnan().tolist() == [place == 2 for place in range(M)]
    assert not terms.logps.isnan().any()
    terms.divergence.sum().backward()
    assert hidden.grad.isnan().any()


@pytest.mark.parametrize("b", [0.0, 0.5, 1.0])
def test_a_token_that_neither_can_say(b: float) -> None:
    def head(width: int, seed: int) -> OutputHead:
        made = make_head(width, seed, bias=True)
        made.bias[3] = -math.inf
        return made

    hidden = randn(N, H_S, seed=0).requires_grad_()
    other = DenseTeacher(randn(N, H_T, seed=1), head(H_T, 3))
    terms = token_terms(hidden, head(H_S, 2), torch.zeros(N, dtype=torch.long), teacher=other, interpolation=b)
    (terms.divergence.sum() + terms.logps.sum()).backward()
    assert terms.divergence.isfinite().all()
    assert hidden.grad.isfinite().all()


@pytest.mark.parametrize("tokens", [0, N])
@pytest.mark.parametrize("kind", ["dense", "sparse", "none"])
def test_no_tokens_keep_the_graph(tokens: int, kind: str) -> None:
    hidden, head = randn(tokens, H_S, seed=0).requires_grad_(), make_head(H_S, seed=2, bias=True)
    leaves = leaves_of(hidden, head)
    other = {
        "dense": DenseTeacher(torch.zeros(0, H_T), make_head(H_T, seed=3)),
        "sparse": SparseTeacher(torch.zeros(0, K, dtype=torch.long), torch.zeros(0, K)),
        "none": None,
    }[kind]
    terms = token_terms(hidden, head, make_ids(tokens), teacher=other, gated=torch.zeros(tokens, dtype=torch.bool))
    assert (terms.logps.shape, terms.divergence.shape) == ((tokens,), (0,))
    for gradient, leaf in zip(torch.autograd.grad(terms.divergence.sum(), leaves), leaves, strict=True):
        assert gradient.shape == leaf.shape
        assert not gradient.any()


# --- dtypes and memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["bfloat16", "autocast", "float32 under autocast"])
def test_low_precision_is_that_of_the_head(case: str) -> None:
    stored = torch.bfloat16 if case == "bfloat16" else torch.float32
    hidden, head = randn(N, H_S, seed=0, dtype=stored), make_head(H_S, seed=2, dtype=stored)
    other = DenseTeacher(randn(N, H_T, seed=1, dtype=stored), make_head(H_T, seed=3, dtype=stored))
    leaves = leaves_of(hidden, head)
    with torch.autocast("cpu", torch.bfloat16, enabled=case != "bfloat16"):
        dtype = torch.float32 if case == "float32 under autocast" else None
        terms = token_terms(hidden, head, make_ids(), 0.7, teacher=other, chunk_size=4, dtype=dtype)
        divergence = chunked_divergence(hidden, head, other.hidden, other.head)
        with torch.autocast("cpu", enabled=case == "autocast", dtype=torch.bfloat16):
            logps = chunked_token_logps(hidden, head, make_ids(), 0.7)
    assert terms.logps.dtype == terms.entropy.dtype == terms.divergence.dtype == torch.float32
    torch.testing.assert_close(terms.logps, logps)
    got = torch.autograd.grad(terms.logps.sum(), leaves)
    assert [x.dtype for x in got] == [stored, stored]
    torch.testing.assert_close(list(got), list(torch.autograd.grad(logps.sum(), leaves)), rtol=2e-2, atol=2e-2)
    if case != "float32 under autocast":
        torch.testing.assert_close(terms.divergence, divergence)


def test_the_gradient_of_an_autocast_weight_is_summed_over_chunks_in_float32() -> None:
    tokens = 64
    hidden, head = randn(tokens, H_S, seed=0, dtype=torch.float32), make_head(H_S, seed=2, dtype=torch.float32)
    head.weight.requires_grad_()

    def gradient(rows: slice) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            value = token_terms(hidden[rows], head, make_ids(tokens)[rows], chunk_size=1).logps.sum()
        return torch.autograd.grad(value, head.weight)[0]

    one_by_one = torch.stack([gradient(slice(i, i + 1)) for i in range(tokens)]).sum(0)
    torch.testing.assert_close(gradient(slice(None)), one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_never_more_than_a_chunk_of_the_vocabulary(kind: str, tensor_sizes: Callable[[], Any]) -> None:
    tokens, vocab, chunk_size = 40, 64, 5
    hidden, head = randn(tokens, 4, seed=0).requires_grad_(), make_head(4, seed=2, vocab=vocab, bias=True)
    head.weight.requires_grad_()
    top = randn(tokens, vocab, seed=3).log_softmax(-1).topk(K)
    dense = DenseTeacher(randn(tokens, 4, seed=1), make_head(4, seed=3, vocab=vocab))
    other = dense if kind == "dense" else SparseTeacher(top.indices, top.values)
    with tensor_sizes() as sizes:
        terms = token_terms(hidden, head, make_ids(tokens, vocab), teacher=other, chunk_size=chunk_size)
        kept = max(sizes.kept)
        weighted(parts(terms)).backward()
    assert sizes.largest == chunk_size * vocab
    assert kept < chunk_size * vocab


def test_settings_that_cannot_work() -> None:
    hidden, head, ids = randn(N, H_S, seed=0), make_head(H_S, seed=2), make_ids()
    other = DenseTeacher(randn(M, H_T, seed=1), make_head(H_T, seed=3))
    with pytest.raises(ConfigError, match="the divergence's interpolation is 2"):
        token_terms(hidden, head, ids, teacher=other, gated=GATED, interpolation=2.0)
    with pytest.raises(ConfigError, match="temperature is 0"):
        token_terms(hidden, head, ids, 0.0)
    with pytest.raises(ConfigError, match="the divergence's temperature is 0"):
        token_terms(hidden, head, ids, teacher=other, gated=GATED, divergence_temperature=0.0)
    with pytest.raises(ConfigError, match="chunk_size is 0"):
        token_terms(hidden, head, ids, chunk_size=0)
    with pytest.raises(KepoError, match=r"the same number of tokens, but have \[9, 5\]"):
        token_terms(hidden, head, ids, teacher=other)
    with pytest.raises(KepoError, match="9 hidden states must come with as many token ids, but have 3"):
        token_terms(hidden, head, ids[:3])


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_the_peak_is_a_few_chunks_however_many_tokens(kind: str) -> None:
    from torch.distributed._tools.mem_tracker import MemTracker

    vocab, chunk_size, width = 20_000, 8, 2

    def peak(tokens: int) -> int:
        hidden, head = randn(tokens, width, seed=0).requires_grad_(), make_head(width, seed=2, vocab=vocab)
        dense = DenseTeacher(randn(tokens, width, seed=1), make_head(width, seed=3, vocab=vocab))
        sparse = SparseTeacher(make_ids(tokens, vocab)[:, None], torch.full((tokens, 1), -0.1))
        tracker = MemTracker()
        with tracker:
            other = dense if kind == "dense" else sparse
            terms = token_terms(hidden, head, make_ids(tokens, vocab), teacher=other, chunk_size=chunk_size)
            weighted(parts(terms)).backward()
        return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])

    few, many = peak(16), peak(128)
    chunk = 8 * chunk_size * vocab  # bytes in float64
    assert few < 8 * chunk  # student's and teacher's logits, and what is made of a block of them
    assert many - few < 112 * 8 * 50  # of every further token some states and numbers, and nothing of width V
