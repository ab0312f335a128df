"""The dense divergence against sums written out in float64, against its own gradients, and against TRL's kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kepo.errors import ConfigError, KepoError
from kepo.objective import OutputHead, chunked_divergence, chunked_token_logps, token_divergence

INTERPOLATIONS = [0.0, 0.1, 0.5, 0.9, 1.0]
N, V, H_S, H_T = 7, 11, 4, 5
INF = math.inf


def written_out(student: list[float], teacher: list[float], b: float) -> float:
    """The divergence of two lists of probabilities, term by term."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        m = (1 - b) * s + b * t
        if b == 0.0:
            total += t * math.log(t / s) if t else 0.0
        elif b == 1.0:
            total += s * math.log(s / t) if s else 0.0
        else:
            total += b * (t * math.log(t / m) if t else 0.0) + (1 - b) * (s * math.log(s / m) if s else 0.0)
    return total


def softmax(logits: list[float]) -> list[float]:
    exps = [math.exp(x) for x in logits]
    return [e / sum(exps) for e in exps]


def head_logits(hidden: list[float], head: OutputHead) -> list[float]:
    logits = []
    for token, row in enumerate(head.weight.tolist()):
        x = sum(h * w for h, w in zip(hidden, row, strict=True))
        x = (x + (head.bias[token].item() if head.bias is not None else 0.0)) * head.scale
        logits.append(head.softcap * math.tanh(x / head.softcap) if head.softcap else x)
    return logits


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def make_head(width: int, seed: int, vocab: int = V, dtype: torch.dtype = torch.float64, **kwargs: Any) -> OutputHead:
    bias = randn(vocab, seed=seed + 100, dtype=dtype) if kwargs.pop("bias", False) else None
    return OutputHead(randn(vocab, width, seed=seed, dtype=dtype), bias, **kwargs)


HEADS = [
    pytest.param({}, {}, id="plain"),
    pytest.param({"bias": True}, {"bias": True}, id="bias"),
    pytest.param({"softcap": 1.5}, {"softcap": 2.5}, id="softcap"),
    pytest.param({"scale": 0.5, "bias": True, "softcap": 2.0}, {"scale": 1.5}, id="everything"),
]


# --- the definition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("b", INTERPOLATIONS)
def test_definition_equals_the_sum_written_out(b: float) -> None:
    student, teacher = randn(N, V, seed=0).softmax(-1), randn(N, V, seed=1).softmax(-1)
    expected = [written_out(s, t, b) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    torch.testing.assert_close(
        token_divergence(student.log(), teacher.log(), b), torch.tensor(expected, dtype=torch.float64)
    )


def test_two_tokens_by_hand() -> None:
    student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    # forward: 0.75 ln 1.5 + 0.25 ln 0.5; reverse: 0.5 ln (2/3) + 0.5 ln 2
    assert token_divergence(student, teacher, 0.0).item() == pytest.approx(0.130812, abs=1e-6)
    assert token_divergence(student, teacher, 1.0).item() == pytest.approx(0.143841, abs=1e-6)


def test_opposite_distributions_have_the_entropy_of_the_mixture() -> None:
    student, teacher = torch.tensor([[0.0, -INF]]), torch.tensor([[-INF, 0.0]])
    # m = (1 - b, b): b ln(1/b) + (1 - b) ln(1/(1 - b))
    assert token_divergence(student, teacher, 0.5).item() == pytest.approx(math.log(2))
    expected = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert token_divergence(student, teacher, 0.1).item() == pytest.approx(expected)
    assert token_divergence(student, teacher, 0.0).item() == INF
    assert token_divergence(student, teacher, 1.0).item() == INF


@pytest.mark.parametrize("b", INTERPOLATIONS)
def test_the_same_distribution_has_no_divergence(b: float) -> None:
    logps = randn(N, V, seed=0).log_softmax(-1)
    torch.testing.assert_close(token_divergence(logps, logps, b), torch.zeros(N, dtype=torch.float64))


@pytest.mark.parametrize(
    ("b", "student_zeros", "teacher_zeros"),
    # Tokens of probability 0; the last one is impossible for both. A KL's second argument covers its first.
    [(0.0, [3], [2, 3]), (0.1, [1, 3], [2, 3]), (0.5, [1, 3], [2, 3]), (0.9, [1, 3], [2, 3]), (1.0, [2, 3], [3])],
)
def test_probability_zero_contributes_nothing_and_no_nan(
    b: float, student_zeros: list[int], teacher_zeros: list[int]
) -> None:
    logits = randn(2, 4, seed=0).requires_grad_()
    student = logits.index_fill(-1, torch.tensor(student_zeros), -INF).log_softmax(-1)
    teacher = randn(2, 4, seed=1).index_fill(-1, torch.tensor(teacher_zeros), -INF).log_softmax(-1)
    value = token_divergence(student, teacher, b)
    expected = [written_out(s, t, b) for s, t in zip(student.exp().tolist(), teacher.exp().tolist(), strict=True)]
    torch.testing.assert_close(value.detach(), torch.tensor(expected, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()
    assert gradient[:, 0].all()
    assert not gradient[:, student_zeros].any()


def test_a_probability_that_underflows_does_not_meet_an_infinite_gap() -> None:
    teacher = torch.tensor([[0.0, -200.0]], dtype=torch.float32)  # exp(-200) is 0 in float32
    student = torch.tensor([[0.0, -INF]])
    assert token_divergence(student, teacher, 0.0).item() == 0.0


def test_small_interpolations_tend_to_the_kls() -> None:
    student, teacher = randn(N, V, seed=0).log_softmax(-1), randn(N, V, seed=1).log_softmax(-1)
    near = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(
        token_divergence(student, teacher, 1e-6) / 1e-6, token_divergence(student, teacher, 0.0), **near
    )
    close = 1 - 1e-6
    torch.testing.assert_close(
        token_divergence(student, teacher, close) / 1e-6, token_divergence(student, teacher, 1.0), **near
    )


@pytest.mark.parametrize("b", INTERPOLATIONS)
def test_gradient_of_the_definition(b: float) -> None:
    student = randn(3, 5, seed=0).requires_grad_()
    teacher = randn(3, 5, seed=1).log_softmax(-1)
    assert torch.autograd.gradcheck(lambda x: token_divergence(x.log_softmax(-1), teacher, b), (student,))


# --- the head -------------------------------------------------------------------------------------------------------


def test_logits_of_a_head_by_hand() -> None:
    head = OutputHead(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.5, -1.0]), scale=2.0, softcap=3.0)
    # x = (1 + 0.5, 4 - 1) = (1.5, 3); doubled (3, 6); 3 tanh(x / 3)
    logits = head.logits(torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(logits, torch.tensor([[3 * math.tanh(1.0), 3 * math.tanh(2.0)]]))


@pytest.mark.parametrize(
    ("hidden", "weight", "expected"),
    [
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float64, torch.float32, torch.float64),
    ],
)
def test_logits_are_in_at_least_float32(hidden: torch.dtype, weight: torch.dtype, expected: torch.dtype) -> None:
    head = OutputHead(torch.ones(3, 2, dtype=weight), torch.ones(3, dtype=weight))
    assert head.logits(torch.ones(1, 2, dtype=hidden)).dtype == expected


def test_the_product_is_in_the_dtype_of_the_hidden_states_or_of_autocast() -> None:
    hidden, head = torch.full((1, 1), 1.0), OutputHead(torch.full((1, 1), 1.0 + 2**-10))
    assert head.logits(hidden).item() == 1.0 + 2**-10
    assert head.logits(hidden.bfloat16()).item() == 1.0  # bfloat16 has 8 bits
    with torch.autocast("cpu", torch.bfloat16):
        assert head.logits(hidden).item() == 1.0
        assert head.logits(hidden.double()).item() == 1.0 + 2**-10


def test_the_gradient_of_an_autocast_weight_is_summed_over_chunks_in_float32() -> None:
    tokens = 64
    hidden, ids = randn(tokens, H_S, seed=0, dtype=torch.float32), torch.arange(tokens) % V
    head = make_head(H_S, seed=2, dtype=torch.float32)
    head.weight.requires_grad_()

    def gradient(rows: slice) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            value = chunked_token_logps(hidden[rows], head, ids[rows], chunk_size=1).sum()
        return torch.autograd.grad(value, head.weight)[0]

    one_by_one = torch.stack([gradient(slice(i, i + 1)) for i in range(tokens)]).sum(0)
    torch.testing.assert_close(gradient(slice(None)), one_by_one, rtol=1e-5, atol=1e-5)


def test_truncate() -> None:
    head = make_head(H_S, seed=0, bias=True, scale=2.0, softcap=1.0)
    cut = head.truncate(3)
    assert (cut.weight.shape, cut.bias.shape, cut.scale, cut.softcap) == ((3, H_S), (3,), 2.0, 1.0)
    assert head.truncate(V) is head
    assert head.to("meta").weight.device.type == head.to("meta").bias.device.type == "meta"
    for vocab in (0, V + 1):
        with pytest.raises(KepoError, match=f"an output head of {V} tokens cannot be cut to {vocab}"):
            head.truncate(vocab)


# --- in chunks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("student", "teacher"), HEADS)
def test_chunked_equals_the_sum_written_out(b: float, temperature: float, student: Any, teacher: Any) -> None:
    student_head, teacher_head = make_head(H_S, seed=2, **student), make_head(H_T, seed=3, **teacher)
    student_hidden, teacher_hidden = randn(N, H_S, seed=0), randn(N, H_T, seed=1)
    expected = [
        written_out(
            softmax([x / temperature for x in head_logits(s, student_head)]),
            softmax([x / temperature for x in head_logits(t, teacher_head)]),
            b,
        )
        for s, t in zip(student_hidden.tolist(), teacher_hidden.tolist(), strict=True)
    ]
    value = chunked_divergence(student_hidden, student_head, teacher_hidden, teacher_head, b, temperature, 3)
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("b", INTERPOLATIONS)
def test_gradient_to_the_student(b: float) -> None:
    teacher_hidden, teacher_head = randn(3, H_T, seed=1), make_head(H_T, seed=3, vocab=5)

    def divergence(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        head = OutputHead(weight, bias, scale=0.7, softcap=3.0)
        return chunked_divergence(hidden, head, teacher_hidden, teacher_head, b, 1.3, chunk_size=2)

    inputs = (randn(3, H_S, seed=0), randn(5, H_S, seed=2), randn(5, seed=4))
    assert torch.autograd.gradcheck(divergence, tuple(x.requires_grad_() for x in inputs))


def test_no_gradient_to_the_teacher() -> None:
    student_hidden, teacher_hidden = randn(N, H_S, seed=0).requires_grad_(), randn(N, H_T, seed=1).requires_grad_()
    teacher_head = make_head(H_T, seed=3, bias=True)
    teacher_head.weight.requires_grad_()
    teacher_head.bias.requires_grad_()
    chunked_divergence(student_hidden, make_head(H_S, seed=2), teacher_hidden, teacher_head).sum().backward()
    assert student_hidden.grad.any()
    assert teacher_hidden.grad is teacher_head.weight.grad is teacher_head.bias.grad is None


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize("chunk_size", [1, 3, N, 1000])
def test_the_chunk_size_changes_nothing(b: float, chunk_size: int) -> None:
    hidden, head = randn(N, H_S, seed=0).requires_grad_(), make_head(H_S, seed=2)
    head.weight.requires_grad_()
    teacher = randn(N, H_T, seed=1), make_head(H_T, seed=3)

    def run(size: int) -> tuple[Tensor, ...]:
        value = chunked_divergence(hidden, head, *teacher, interpolation=b, chunk_size=size)
        return value.detach(), *torch.autograd.grad(value.square().sum(), (hidden, head.weight))

    for got, expected in zip(run(chunk_size), run(2), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("v_student", "v_teacher"), [(V + 3, V), (V, V + 3)])
def test_differently_padded_vocabularies_are_cut_to_the_common_part(v_student: int, v_teacher: int) -> None:
    student, teacher = make_head(H_S, seed=2, vocab=v_student), make_head(H_T, seed=3, vocab=v_teacher, bias=True)
    student.weight.requires_grad_()
    hidden, teacher_hidden = randn(N, H_S, seed=0), randn(N, H_T, seed=1)
    value = chunked_divergence(hidden, student, teacher_hidden, teacher, 0.5)
    expected = token_divergence(
        (hidden @ student.weight[:V].T).log_softmax(-1),
        (teacher_hidden @ teacher.weight[:V].T + teacher.bias[:V]).log_softmax(-1),
        0.5,
    )
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    assert student.weight.grad.shape == (v_student, H_S)
    assert not student.weight.grad[V:].any()


def test_no_tokens() -> None:
    hidden, head = torch.zeros(0, H_S, requires_grad=True), make_head(H_S, seed=2, dtype=torch.float32)
    head.weight.requires_grad_()
    value = chunked_divergence(hidden, head, torch.zeros(0, H_T), make_head(H_T, seed=3, dtype=torch.float32))
    assert value.shape == (0,)
    value.sum().backward()
    assert value.sum().item() == 0.0
    assert hidden.grad.shape == (0, H_S)
    assert not head.weight.grad.any()


@pytest.mark.parametrize("b", [0.0, 0.5, 1.0])
def test_one_token(b: float) -> None:
    student, teacher = make_head(H_S, seed=2), make_head(H_T, seed=3)
    hidden, teacher_hidden = randn(N, H_S, seed=0), randn(N, H_T, seed=1)
    one = chunked_divergence(hidden[:1], student, teacher_hidden[:1], teacher, b)
    torch.testing.assert_close(one, chunked_divergence(hidden, student, teacher_hidden, teacher, b)[:1])


@pytest.mark.parametrize("b", [0.0, 0.5, 1.0])
def test_never_more_than_a_chunk_of_the_vocabulary(b: float, tensor_sizes: Callable[[], Any]) -> None:
    tokens, vocab, chunk_size = 40, 64, 5
    hidden, head = randn(tokens, 4, seed=0).requires_grad_(), make_head(4, seed=2, vocab=vocab, bias=True)
    head.weight.requires_grad_()
    teacher = randn(tokens, 4, seed=1), make_head(4, seed=3, vocab=vocab)
    with tensor_sizes() as sizes:
        value = chunked_divergence(hidden, head, *teacher, interpolation=b, chunk_size=chunk_size)
        forward = sizes.largest
        value.sum().backward()
    assert forward == chunk_size * vocab
    assert sizes.largest == chunk_size * vocab
    assert max(sizes.kept, default=0) < chunk_size * vocab


@pytest.mark.parametrize("b", INTERPOLATIONS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("student", "teacher"), HEADS)
def test_equals_trl(b: float, temperature: float, student: Any, teacher: Any) -> None:
    # Both sum in float32, in another order: 1e-5 relative on values around 1.
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    single = torch.float32
    hidden, teacher_hidden = randn(N, H_S, seed=0, dtype=single), randn(N, H_T, seed=1, dtype=single)
    head = make_head(H_S, seed=2, dtype=single, **student)
    fixed = make_head(H_T, seed=3, dtype=single, **teacher)
    leaves = [x.requires_grad_() for x in (hidden, head.weight, head.bias) if x is not None]
    weights = torch.arange(1.0, N + 1)

    ours = chunked_divergence(hidden, head, teacher_hidden, fixed, b, temperature, chunk_size=3)
    theirs, _ = ChunkedDivergenceFunction.apply(
        hidden,
        head.weight,
        head.bias,
        teacher_hidden,
        fixed.weight,
        fixed.bias,
        b,
        temperature,
        head.scale,
        head.softcap,
        fixed.scale,
        fixed.softcap,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    our_gradients = torch.autograd.grad((weights * ours).sum(), leaves)
    their_gradients = torch.autograd.grad((weights * theirs).sum(), leaves)
    for got, expected in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_settings_that_cannot_work() -> None:
    arguments = randn(N, H_S, seed=0), make_head(H_S, seed=2), randn(N, H_T, seed=1), make_head(H_T, seed=3)
    for interpolation in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="the divergence's interpolation is"):
            chunked_divergence(*arguments, interpolation=interpolation)
    with pytest.raises(ConfigError, match="the divergence's temperature is 0"):
        chunked_divergence(*arguments, temperature=0.0)
    with pytest.raises(ConfigError, match="chunk_size is 0"):
        chunked_divergence(*arguments, chunk_size=0)
    with pytest.raises(KepoError, match=r"the same number of tokens, but have \[7, 1\]"):
        chunked_divergence(*arguments[:2], randn(1, H_T, seed=1), arguments[3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_a_teacher_on_another_device() -> None:
    hidden, head = randn(N, H_S, seed=0).cuda().requires_grad_(), make_head(H_S, seed=2)
    teacher_hidden, teacher_head = randn(N, H_T, seed=1), make_head(H_T, seed=3)
    value = chunked_divergence(hidden, head.to("cuda"), teacher_hidden, teacher_head, chunk_size=3)
    value.sum().backward()
    expected = chunked_divergence(hidden.detach().cpu(), head, teacher_hidden, teacher_head)
    torch.testing.assert_close(value.detach().cpu(), expected)
    assert hidden.grad.any()


# --- log-probabilities of given tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 3, N])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_token_logps_equal_the_softmax_written_out(chunk_size: int, temperature: float) -> None:
    hidden, head = randn(N, H_S, seed=0), make_head(H_S, seed=2, bias=True, softcap=2.0, scale=1.5)
    ids = torch.tensor([0, V - 1, 3, 3, 7, 1, 2])
    expected = [
        math.log(softmax([x / temperature for x in head_logits(h, head)])[i])
        for h, i in zip(hidden.tolist(), ids.tolist(), strict=True)
    ]
    value = chunked_token_logps(hidden, head, ids, temperature, chunk_size)
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))


def test_gradient_of_token_logps() -> None:
    ids = torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(
        lambda hidden, weight: chunked_token_logps(hidden, OutputHead(weight), ids, 0.8, chunk_size=2),
        (randn(3, H_S, seed=0).requires_grad_(), randn(5, H_S, seed=2).requires_grad_()),
    )


def test_token_logps_of_no_tokens_and_their_memory(tensor_sizes: Callable[[], Any]) -> None:
    head = make_head(4, seed=2, vocab=64)
    empty = torch.zeros(0, 4, requires_grad=True)
    value = chunked_token_logps(empty, head, torch.zeros(0, dtype=torch.long))
    value.sum().backward()
    assert (value.shape, empty.grad.shape) == ((0,), (0, 4))
    hidden = randn(40, 4, seed=0).requires_grad_()
    with tensor_sizes() as sizes:
        chunked_token_logps(hidden, head, torch.zeros(40, dtype=torch.long), chunk_size=5).sum().backward()
    assert sizes.largest == 5 * 64
    assert max(sizes.kept, default=0) < 5 * 64
