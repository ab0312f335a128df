"""The divergence from K candidates and a tail, against sums written out and against the dense one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from kepo.errors import ConfigError, KepoError
from kepo.objective import OutputHead, sparse_divergence, token_divergence

INTERPOLATIONS = [0.0, 0.1, 0.5, 0.9, 1.0]
N, V, H, K = 6, 9, 4, 3
INF = math.inf


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def hidden() -> Tensor:
    return randn(N, H, seed=0).requires_grad_()


@pytest.fixture
def head() -> OutputHead:
    return OutputHead(randn(V, H, seed=1).requires_grad_(), randn(V, seed=2), scale=0.8, softcap=4.0)


@pytest.fixture
def teacher_logps() -> Tensor:
    return randn(N, V, seed=3).log_softmax(-1)


def written_out(student: list[float], teacher: list[float], b: float) -> float:
    """The divergence of two lists of probabilities, none of them 0, term by term."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        m = (1 - b) * s + b * t
        forward, reverse = t * math.log(t / s), s * math.log(s / t)
        mixed = b * t * math.log(t / m) + (1 - b) * s * math.log(s / m)
        total += {0.0: forward, 1.0: reverse}.get(b, mixed)
    return total


def buckets(probabilities: list[float], ids: list[int]) -> list[float]:
    """The candidates' probabilities and the sum of all others."""
    return [probabilities[i] for i in ids] + [sum(p for i, p in enumerate(probabilities) if i not in ids)]


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize("k", [1, K, V - 1])
def test_candidates_and_tail_equal_the_sum_written_out(
    b: float, k: int, hidden: Tensor, head: OutputHead, teacher_logps: Tensor
) -> None:
    logps, ids = teacher_logps.topk(k)
    student = head.logits(hidden).softmax(-1).tolist()
    expected = [
        written_out(buckets(s, i), buckets(t, i), b)
        for s, t, i in zip(student, teacher_logps.exp().tolist(), ids.tolist(), strict=True)
    ]
    value = sparse_divergence(hidden, head, ids, logps, b, chunk_size=4)
    torch.testing.assert_close(value.detach(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("b", INTERPOLATIONS)
def test_all_tokens_as_candidates_is_the_dense_divergence(
    b: float, hidden: Tensor, head: OutputHead, teacher_logps: Tensor
) -> None:
    logps, ids = teacher_logps.topk(V)
    sparse = sparse_divergence(hidden, head, ids, logps, b, chunk_size=4)
    dense = token_divergence(head.logits(hidden).log_softmax(-1), teacher_logps, b)
    torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-14)
    leaves = (hidden, head.weight)
    for got, expected in zip(
        torch.autograd.grad(sparse.sum(), leaves), torch.autograd.grad(dense.sum(), leaves), strict=True
    ):
        assert got.isfinite().all()
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize("k", [K, V])
def test_gradient(b: float, k: int) -> None:
    logps, ids = randn(2, V, seed=3).log_softmax(-1).topk(k)
    inputs = (randn(2, H, seed=0), randn(V, H, seed=1), randn(V, seed=2))

    def divergence(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return sparse_divergence(hidden, OutputHead(weight, bias, softcap=3.0), ids, logps, b, chunk_size=1)

    assert torch.autograd.gradcheck(divergence, tuple(x.requires_grad_() for x in inputs))


@pytest.mark.parametrize("b", INTERPOLATIONS)
def test_fewer_candidates_never_say_more(b: float, hidden: Tensor, head: OutputHead, teacher_logps: Tensor) -> None:
    with torch.no_grad():
        values = [sparse_divergence(hidden, head, *_topk(teacher_logps, k), b) for k in (1, 3, 6, V)]
    for less, more in pairwise(values):
        assert (less <= more + 1e-12).all()


def _topk(logps: Tensor, k: int) -> tuple[Tensor, Tensor]:
    top = logps.topk(k)
    return top.indices, top.values


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize("filler", [0, 5, -1, V + 7])
def test_unused_places_contribute_nothing_whatever_their_id(
    b: float, filler: int, hidden: Tensor, head: OutputHead, teacher_logps: Tensor
) -> None:
    ids, logps = _topk(teacher_logps, K)
    padded_ids = torch.cat([torch.full((N, 2), filler), ids], dim=1)
    padded_logps = torch.cat([torch.full((N, 2), -INF, dtype=torch.float64), logps], dim=1)
    value = sparse_divergence(hidden, head, padded_ids, padded_logps, b)
    expected = sparse_divergence(hidden, head, ids, logps, b)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)
    got, wanted = (torch.autograd.grad(x.sum(), hidden)[0] for x in (value, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-13)


def test_rows_of_different_numbers_of_candidates(hidden: Tensor, head: OutputHead, teacher_logps: Tensor) -> None:
    ids, logps = _topk(teacher_logps, V)
    logps = logps.clone()
    logps[0, :] = -INF  # none: nothing is known, so both distributions are one tail
    logps[1, 2:] = -INF  # two; all others keep every token
    value = sparse_divergence(hidden, head, ids, logps, 0.5)
    dense = token_divergence(head.logits(hidden).log_softmax(-1), teacher_logps, 0.5)
    two = sparse_divergence(hidden[1:2], head, ids[1:2, :2], logps[1:2, :2], 0.5)
    torch.testing.assert_close(value, torch.cat([torch.zeros(1, dtype=torch.float64), two, dense[2:]]))
    (gradient,) = torch.autograd.grad(value.sum(), hidden)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[0], torch.zeros(H, dtype=torch.float64))


@pytest.mark.parametrize("unknown", [V, V + 2, -1])
def test_a_candidate_the_student_does_not_have_is_part_of_the_tail(
    unknown: int, head: OutputHead, hidden: Tensor
) -> None:
    probabilities = torch.tensor([[0.5, 0.3]], dtype=torch.float64).expand(N, 2)
    with_unknown = sparse_divergence(hidden, head, torch.tensor([[1, unknown]]).expand(N, 2), probabilities.log(), 0.5)
    without = sparse_divergence(hidden, head, torch.tensor([[1]]).expand(N, 1), probabilities[:, :1].log(), 0.5)
    torch.testing.assert_close(with_unknown, without)


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize("logps", [[0.0, -40.0], [1e-4, -9.0], [-1e-9, -INF]])
def test_a_teacher_without_tail_mass_stays_finite(b: float, logps: list[float]) -> None:
    hidden, weight = randn(1, H, seed=0).float().requires_grad_(), randn(V, H, seed=1).float()
    value = sparse_divergence(hidden, OutputHead(weight), torch.tensor([[2, 4]]), torch.tensor([logps]), b)
    (gradient,) = torch.autograd.grad(value.sum(), hidden)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert value.item() > 0


@pytest.mark.parametrize("b", INTERPOLATIONS)
def test_the_tail_of_a_confident_student_keeps_its_digits(b: float) -> None:
    # Probabilities 1 - 1e-12 and 1e-12 in float32: one minus the first is 0, the tail's own sum is not.
    gap = math.log(1e-12)
    head, hidden = OutputHead(torch.tensor([[0.0], [gap]])), torch.ones(1, 1, requires_grad=True)
    value = sparse_divergence(hidden, head, torch.tensor([[0]]), torch.tensor([[math.log(0.75)]]), b)
    expected = written_out([1 - 1e-12, 1e-12], [0.75, 0.25], b)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), hidden)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("chunk_size", [1, 3, N, 100])
def test_the_chunk_size_changes_nothing(
    chunk_size: int, hidden: Tensor, head: OutputHead, teacher_logps: Tensor
) -> None:
    ids, logps = _topk(teacher_logps, K)

    def run(size: int) -> tuple[Tensor, ...]:
        value = sparse_divergence(hidden, head, ids, logps, 0.5, chunk_size=size)
        return value.detach(), *torch.autograd.grad(value.square().sum(), (hidden, head.weight))

    for got, expected in zip(run(chunk_size), run(2), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("k", [0, K])
def test_no_tokens(k: int, head: OutputHead) -> None:
    hidden = torch.zeros(0, H, dtype=torch.float64, requires_grad=True)
    value = sparse_divergence(hidden, head, torch.zeros(0, k, dtype=torch.long), torch.zeros(0, k))
    value.sum().backward()
    assert value.shape == (0,)
    assert hidden.grad.shape == (0, H)
    assert not head.weight.grad.any()


def test_no_gradient_to_the_teacher(hidden: Tensor, head: OutputHead, teacher_logps: Tensor) -> None:
    ids, logps = _topk(teacher_logps, K)
    logps.requires_grad_()
    sparse_divergence(hidden, head, ids, logps).sum().backward()
    assert hidden.grad.any()
    assert logps.grad is None


def test_a_broken_teacher_is_seen(hidden: Tensor, head: OutputHead, teacher_logps: Tensor) -> None:
    ids, logps = _topk(teacher_logps, K)
    logps = logps.clone()
    logps[2, 1] = math.nan
    value = sparse_divergence(hidden, head, ids, logps)
    assert value.isnan().tolist() == [row == 2 for row in range(N)]


@pytest.mark.parametrize("b", [0.0, 0.5, 1.0])
def test_never_more_than_a_chunk_of_the_vocabulary(b: float, tensor_sizes: Callable[[], Any]) -> None:
    tokens, vocab, chunk_size = 40, 64, 5
    hidden, head = randn(tokens, H, seed=0).requires_grad_(), OutputHead(randn(vocab, H, seed=1).requires_grad_())
    ids, logps = _topk(randn(tokens, vocab, seed=3).log_softmax(-1), K)
    with tensor_sizes() as sizes:
        sparse_divergence(hidden, head, ids, logps, b, chunk_size=chunk_size).sum().backward()
    assert sizes.largest == chunk_size * vocab
    assert max(sizes.kept, default=0) < chunk_size * vocab


def test_settings_that_cannot_work(hidden: Tensor, head: OutputHead, teacher_logps: Tensor) -> None:
    ids, logps = _topk(teacher_logps, K)
    with pytest.raises(ConfigError, match=r"the divergence's interpolation is 2\.0"):
        sparse_divergence(hidden, head, ids, logps, 2.0)
    with pytest.raises(ConfigError, match="chunk_size is -1"):
        sparse_divergence(hidden, head, ids, logps, chunk_size=-1)
    with pytest.raises(KepoError, match=r"the same number of tokens, but have \[6, 5, 5\]"):
        sparse_divergence(hidden, head, ids[:5], logps[:5])
