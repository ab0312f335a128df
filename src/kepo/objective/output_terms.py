"""All that the loss needs of the student's output head, from one pass over the logits: `token_terms`.

Per token: the log-probability of the sampled token, the entropy, and at the gated tokens the divergence to the teacher.
The student's logits are made once for all three, and once more in backward. Two sizes keep this small and fast:

- a *chunk* of tokens shares one product with the head; its logits are the only tensor of the vocabulary's width (for
  gated tokens the teacher's are a second one);
- a *block* of a chunk's rows is what the softmax and everything after it work on at a time, so that their intermediate
  results stay in the processor's cache.

Where one chunk holds all tokens and the vocabulary is small, the products are kept for backward instead.
Backward leaves out the tokens without gradient, and adds the weight's gradient up in one float32 matrix.

Legend: N tokens, M of them gated, V student's vocabulary, H hidden width, K teacher candidates; n tokens of a chunk,
r of a block. All logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kepo.errors import ConfigError, KepoError
from kepo.objective.divergence import (
    OutputHead,
    check_interpolation,
    check_temperature,
    coarsened,
    mixture,
    product_dtype,
    token_divergence,
)

_CHUNK_ELEMENTS = 2**24  # of a chunk's logits (64 MiB in float32)
_KEPT_ELEMENTS = 2**21  # of all logits (8 MiB in float32)
_BLOCK_ELEMENTS = 2**17  # of a block's logits (512 KiB in float32)


@dataclass(frozen=True, slots=True, eq=False)
class DenseTeacher:
    """A teacher that is known by its hidden states.

    Attributes:
        hidden: (M, H_t), on any device.
        head: Of V_t tokens, on the device where the teacher's logits are to be computed.
    """

    hidden: Tensor
    head: OutputHead


@dataclass(frozen=True, slots=True, eq=False)
class SparseTeacher:
    """A teacher that is known by its K best candidates; see `sparse_divergence`.

    Attributes:
        ids: (M, K); no token twice in a row.
        logps: (M, K) in nats at temperature 1; -inf marks an unused place.
    """

    ids: Tensor
    logps: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TokenTerms:
    """What `token_terms` returns, in at least float32, with gradient to hidden states and head.

    Attributes:
        logps: (N,) log-probability of the given token.
        entropy: (N,) of the distribution that `logps` is from, in nats; None where it was not asked for.
        divergence: (M,) to the teacher, in nats; M is 0 without a teacher.
    """

    logps: Tensor
    entropy: Tensor | None
    divergence: Tensor


def token_terms(
    hidden: Tensor,
    head: OutputHead,
    ids: Tensor,
    temperature: float = 1.0,
    *,
    teacher: DenseTeacher | SparseTeacher | None = None,
    gated: Tensor | None = None,
    interpolation: float = 0.5,
    divergence_temperature: float = 1.0,
    chunk_size: int | None = None,
    entropy: bool = True,
    dtype: torch.dtype | None = None,
) -> TokenTerms:
    """Log-probabilities, entropies and divergences of tokens from the hidden states that predict them.

    The values are those of `chunked_token_logps`, `chunked_divergence` and `sparse_divergence`. A token whose upstream
    gradients are all 0 takes no part in backward, so that a NaN in it harms nothing.

    Args:
        hidden: (N, H); N may be 0.
        head: The student's, of V tokens, on the device of `hidden`.
        ids: (N,) token ids in 0..V-1.
        temperature: Of the policy: divides the logits of `logps` and `entropy`, > 0.
        teacher: Of the gated tokens, in the order of `gated`. None: no divergence.
        gated: (N,) bool, or (M,) different positions of `hidden`. None: all N tokens, where there is a teacher.
        interpolation: b in [0, 1]; see `token_divergence`.
        divergence_temperature: Divides both logits of the divergence to a dense teacher, > 0.
        chunk_size: Most tokens of a chunk, >= 1; None: as many as `chunk_tokens` says.
        entropy: Whether the entropy is wanted.
        dtype: Of the student's product; None: that of `hidden`, or autocast's where it is on.

    Raises:
        ConfigError: a setting is outside its range.
        KepoError: tensors do not have the same number of tokens.
    """
    check_temperature(temperature)
    check_interpolation(interpolation)
    check_temperature(divergence_temperature)
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"chunk_size is {chunk_size}; it is a number of tokens and must be at least 1.")
    if ids.shape[0] != hidden.shape[0]:
        raise KepoError(f"{hidden.shape[0]} hidden states must come with as many token ids, but have {ids.shape[0]}.")
    job = _Job(
        head=replace(head, bias=None),
        temperature=temperature,
        divergence=_divergence(teacher, head, interpolation, divergence_temperature),
        chunk_size=chunk_tokens(head.weight.shape[0], chunk_size),
        entropy=entropy,
        dtype=dtype or product_dtype(hidden),
    )
    positions = _positions(hidden, teacher, gated)
    return TokenTerms(*_TokenTerms.apply(hidden, head.weight, head.bias, ids.to(hidden.device), positions, job))


def chunk_tokens(vocab: int, most: int | None = None) -> int:
    """Tokens of a chunk: as many as make 2**24 logits (64 MiB in float32), at least one.

    Args:
        vocab: Of the student.
        most: Largest number; None: no other bound.
    """
    tokens = max(1, _CHUNK_ELEMENTS // vocab)
    return tokens if most is None else min(tokens, most)


def _positions(hidden: Tensor, teacher: DenseTeacher | SparseTeacher | None, gated: Tensor | None) -> Tensor:
    """(M,) positions of the gated tokens."""
    if teacher is None:
        return torch.empty(0, dtype=torch.long, device=hidden.device)
    if gated is None:
        gated = torch.arange(hidden.shape[0], device=hidden.device)
    elif gated.dtype == torch.bool:
        gated = gated.nonzero().squeeze(-1)
    known = [teacher.hidden] if isinstance(teacher, DenseTeacher) else [teacher.ids, teacher.logps]
    counts = [len(gated), *map(len, known)]
    if len(set(counts)) > 1:
        raise KepoError(f"student and teacher must come with the same number of tokens, but have {counts}.")
    return gated.to(hidden.device)


# --- one pass over the logits ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What `_TokenTerms` is told besides the tensors that have gradients."""

    head: OutputHead  # without bias; for scale and softcap
    temperature: float
    divergence: _Divergence | None
    chunk_size: int
    entropy: bool
    dtype: torch.dtype

    def product(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> _Product:
        """The student's products for one pass."""
        head = replace(self.head, weight=weight, bias=bias)
        return _Product(head, hidden, self.dtype, min(len(hidden), self.chunk_size))

    def reader(self, tokens: int) -> _Dense | _Sparse | None:
        """The reader of the teacher's `tokens` tokens for one pass."""
        if self.divergence is None:
            return None
        teacher = self.divergence.teacher
        if isinstance(teacher, SparseTeacher):
            return _Sparse(teacher, self.divergence)
        return _Dense(teacher, self.divergence, self.temperature, min(tokens, self.chunk_size))

    def is_small(self, tokens: int, vocab: int) -> bool:
        """Whether the logits are so few that keeping them for backward costs less than making them again."""
        return tokens <= self.chunk_size and tokens * vocab <= _KEPT_ELEMENTS


class _TokenTerms(torch.autograd.Function):
    """(logps, entropy, divergence) with the gradient written out."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, gated: Tensor, job: _Job
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)  # an entropy that is only logged has no gradient to compute
        product = job.product(hidden, weight, bias)
        teacher = job.reader(len(gated))
        if job.is_small(len(hidden), weight.shape[0]):
            product.keep_whole()
            if isinstance(teacher, _Dense):
                teacher.product.keep_whole()
        logps = hidden.new_empty(len(hidden), dtype=product.logits_dtype)
        entropy = torch.empty_like(logps)
        divergence = logps.new_empty(len(gated))
        ungated = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device).index_fill(0, gated, False)
        places = torch.arange(len(gated), device=hidden.device)
        for rows, known in _chunks(gated, places, ungated.nonzero().squeeze(-1), job.chunk_size):
            tile = product(rows)
            if teacher is not None and known is not None:
                teacher.read(known)
            for block in _blocks(tile):
                logits, here = product.head.finish(tile[block]), rows[block]
                policy = _log_softmax(logits, job.temperature)
                logps[here] = policy.gather(-1, ids[here].unsqueeze(-1)).squeeze(-1)
                if job.entropy:
                    entropy[here] = -(policy.exp() * policy).sum(-1)
                if teacher is not None and known is not None:
                    divergence[known[block]] = teacher.values(logits, policy, block)
        ctx.save_for_backward(hidden, weight, bias, ids, gated, entropy)
        ctx.job = job
        ctx.kept = product.whole, teacher.product.whole if isinstance(teacher, _Dense) else None
        return logps, entropy if job.entropy else None, divergence

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, for_logps: Tensor | None, for_entropy: Tensor | None, for_divergence: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, gated, entropy = ctx.saved_tensors
        job: _Job = ctx.job
        product = job.product(hidden, weight, bias)
        teacher = job.reader(len(gated))
        product.whole, kept = ctx.kept
        if isinstance(teacher, _Dense):
            teacher.product.whole = kept
        gradients = _Gradients(product, ctx.needs_input_grad)
        for_logps = entropy.new_zeros(len(hidden)) if for_logps is None else for_logps
        for_divergence = entropy.new_zeros(len(gated)) if for_divergence is None else for_divergence
        needed = for_logps != 0 if for_entropy is None else (for_logps != 0) | (for_entropy != 0)
        places = (needed[gated] | (for_divergence != 0)).nonzero().squeeze(-1)
        ungated = needed.index_fill(0, gated, False).nonzero().squeeze(-1)
        for rows, known in _chunks(gated[places], places, ungated, job.chunk_size):
            tile = product(rows)
            if teacher is not None and known is not None:
                teacher.read(known)
            for block in _blocks(tile):
                logits, here = product.head.finish(tile[block]), rows[block]
                policy = _log_softmax(logits, job.temperature)
                gradient = None
                if teacher is not None and known is not None:
                    gradient = teacher.gradient(logits, policy, block, for_divergence[known[block]])
                weights = None if for_entropy is None else for_entropy[here]
                own = _policy_gradient(policy, ids[here], for_logps[here], weights, entropy[here])
                own = own if job.temperature == 1.0 else own.div_(job.temperature)
                if gradient is not None:
                    own[:, : gradient.shape[1]] += gradient
                tile[block] = gradients.of_product(own, logits)
            gradients.add(rows, tile)
        return *gradients.results(), None, None, None


def _chunks(gated: Tensor, places: Tensor, ungated: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """`size` tokens at a time: their positions and, where they are gated, their places among the teacher's tokens."""
    if len(gated):
        yield from zip(gated.split(size), places.split(size), strict=True)
    if len(ungated):
        yield from ((rows, None) for rows in ungated.split(size))


def _blocks(tile: Tensor) -> Iterator[slice]:
    """Rows of `tile` (n, V), some at a time."""
    rows = max(1, _BLOCK_ELEMENTS // tile.shape[1])
    return (slice(start, start + rows) for start in range(0, len(tile), rows))


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)


def _policy_gradient(
    logps: Tensor, ids: Tensor, for_logps: Tensor, for_entropy: Tensor | None, entropy: Tensor
) -> Tensor:
    """(r, V) gradient to the tempered logits, from their log-probabilities (r, V), which are overwritten."""
    p = logps.exp()
    if for_entropy is None:
        gradient = p.mul_(-for_logps.unsqueeze(-1))  # d logp_i / dz_j = [i = j] - p_j
    else:
        # d entropy / dz_j = -p_j (log p_j + entropy)
        gradient = logps.add_(entropy.unsqueeze(-1)).mul_(-for_entropy.unsqueeze(-1)).sub_(for_logps.unsqueeze(-1))
        gradient.mul_(p)
    return gradient.scatter_add_(-1, ids.unsqueeze(-1), for_logps.unsqueeze(-1))


class _Product:
    """Products of hidden states (N, H) with a head's weight: a chunk at a time in the same memory, or kept whole."""

    def __init__(self, head: OutputHead, hidden: Tensor, dtype: torch.dtype, rows: int) -> None:
        self.head = head
        self.hidden = hidden
        self.logits_dtype = dtype if dtype == torch.float64 else torch.float32
        self.weight = head.weight.detach().to(dtype)  # once: a copy for every chunk would cost as much as the product
        self._memory = self.weight.new_empty(rows, self.weight.shape[0])
        self.whole: Tensor | None = None  # (N, V)

    def keep_whole(self) -> None:
        """Make all products now, so that another `_Product` can be given them as its `whole`."""
        self.whole = self._product(self.hidden, self.weight.new_empty(len(self.hidden), self.weight.shape[0]))

    def __call__(self, rows: Tensor) -> Tensor:
        """(n, V) of the states at positions `rows` (n,), to be overwritten; valid until the next call."""
        memory = self._memory[: len(rows)]
        if self.whole is not None:
            return torch.index_select(self.whole, 0, rows, out=memory)
        return self._product(self.hidden[rows], memory)

    def _product(self, states: Tensor, result: Tensor) -> Tensor:
        return torch.mm(states.to(self.weight.dtype), self.weight.T, out=result)  # with `out`, autocast casts nothing


class _Gradients:
    """The gradients to hidden states, weight and bias: the last two are sums over chunks, in at least float32."""

    def __init__(self, product: _Product, needed: tuple[bool, ...]) -> None:
        self._product = product
        head, dtype = product.head, product.logits_dtype
        self.hidden = torch.zeros_like(product.hidden) if needed[0] else None
        self.weight = torch.zeros_like(head.weight, dtype=dtype) if needed[1] else None
        self.bias = torch.zeros_like(head.bias, dtype=dtype) if head.bias is not None and needed[2] else None

    def of_product(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """The gradient to a head's product, from the gradient (r, V) to its logits, which is overwritten."""
        head = self._product.head
        if head.softcap is not None:
            gradient.mul_(1 - (logits / head.softcap).square())
        return gradient if head.scale == 1.0 else gradient.mul_(head.scale)

    def add(self, rows: Tensor, tile: Tensor) -> None:
        """Add a chunk: the gradient (n, V) to the product of the states at positions `rows` (n,)."""
        if self.hidden is not None:
            states = tile.new_empty(len(rows), self.hidden.shape[1])
            self.hidden[rows] = torch.mm(tile, self._product.weight, out=states).to(self.hidden.dtype)
        if self.weight is not None:
            _add_product(self.weight, tile.T, self._product.hidden[rows].to(tile.dtype))
        if self.bias is not None:
            self.bias += tile.sum(0, dtype=self.bias.dtype)

    def results(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        head = self._product.head
        weight = None if self.weight is None else self.weight.to(head.weight.dtype)
        bias = None if self.bias is None or head.bias is None else self.bias.to(head.bias.dtype)
        return self.hidden, weight, bias


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, without rounding the product to the dtype of `a` first."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.device.type == "cuda":
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))


# --- the divergence of a chunk --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Divergence:
    """From which teacher, and which divergence."""

    teacher: DenseTeacher | SparseTeacher
    interpolation: float
    temperature: float  # of a dense teacher's divergence
    dtype: torch.dtype  # of a dense teacher's product


def _divergence(
    teacher: DenseTeacher | SparseTeacher | None, head: OutputHead, interpolation: float, temperature: float
) -> _Divergence | None:
    """The divergence to `teacher`, which is brought to the student's vocabulary (dense) or device (sparse)."""
    device, dtype = head.weight.device, head.weight.dtype
    if isinstance(teacher, SparseTeacher):
        teacher = SparseTeacher(teacher.ids.to(device), teacher.logps.detach().to(device))
    elif isinstance(teacher, DenseTeacher):
        states = teacher.hidden.detach().to(teacher.head.weight.device)
        vocab = min(head.weight.shape[0], teacher.head.weight.shape[0])
        teacher, dtype = DenseTeacher(states, teacher.head.truncate(vocab)), product_dtype(states)
    return None if teacher is None else _Divergence(teacher, interpolation, temperature, dtype)


class _Dense:
    """The divergence to a teacher that is known by its hidden states, a chunk at a time."""

    def __init__(self, teacher: DenseTeacher, divergence: _Divergence, policy_temperature: float, rows: int) -> None:
        self.product = _Product(teacher.head, teacher.hidden, divergence.dtype, rows)
        self._b = divergence.interpolation
        self._temperature = divergence.temperature
        self._same_temperature = divergence.temperature == policy_temperature

    def read(self, places: Tensor) -> None:
        """Make the chunk of the teacher's tokens at `places` (n,) the current one."""
        self._tile = self.product(places.to(self.product.hidden.device))  # (n, V_t)

    def values(self, logits: Tensor, policy: Tensor, block: slice) -> Tensor:
        """(r,) divergence of the chunk's rows `block` from the student's logits (r, V) and their `policy` (r, V)."""
        return token_divergence(*self._logps(logits, policy, block), self._b)

    def gradient(self, logits: Tensor, policy: Tensor, block: slice, upstream: Tensor) -> Tensor:
        """(r, V_t) gradient of `values`, weighted with `upstream` (r,), to the student's logits."""
        student, teacher = self._logps(logits, policy, block)
        weights = upstream.unsqueeze(-1) / self._temperature
        if self._b == 0.0:
            return student.exp().sub_(teacher.exp()).mul_(weights)
        if self._b < 1.0:
            teacher = mixture(student, teacher, self._b)
            weights = weights * (1.0 - self._b)
        # Of KL(student || q) for a fixed q: p (log p - log q - KL). In the mixed divergence q is the mixture, whose own
        # gradient cancels between the two terms.
        p = student.exp()
        gap = torch.where(p > 0, student - teacher, 0.0)
        return gap.sub_((p * gap).sum(-1, keepdim=True)).mul_(p).mul_(weights)

    def _logps(self, logits: Tensor, policy: Tensor, block: slice) -> tuple[Tensor, Tensor]:
        """(r, V_t) log-probabilities of student and teacher."""
        vocab = self._tile.shape[1]
        if not (self._same_temperature and vocab == policy.shape[1]):
            policy = _log_softmax(logits[:, :vocab], self._temperature)
        teacher = _log_softmax(self.product.head.finish(self._tile[block]), self._temperature)
        return policy, teacher.to(policy)


class _Sparse:
    """The divergence to a teacher that is known by its candidates, a chunk at a time."""

    def __init__(self, teacher: SparseTeacher, divergence: _Divergence) -> None:
        self._teacher = teacher
        self._b = divergence.interpolation

    def read(self, places: Tensor) -> None:
        """Make the chunk of the teacher's tokens at `places` (n,) the current one."""
        self._ids, self._logps = self._teacher.ids[places], self._teacher.logps[places]

    def values(self, logits: Tensor, policy: Tensor, block: slice) -> Tensor:
        """(r,) divergence of the chunk's rows `block` from the student's logits (r, V)."""
        return token_divergence(*coarsened(logits, self._ids[block], self._logps[block]), self._b)

    def gradient(self, logits: Tensor, policy: Tensor, block: slice, upstream: Tensor) -> Tensor:
        """(r, V) gradient of `values`, weighted with `upstream` (r,), to the student's logits."""
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            values = self.values(leaf, policy, block)
        return torch.autograd.grad(values, leaf, upstream)[0]
