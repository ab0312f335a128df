"""How far the student's next-token distribution is from the teacher's, token by token.

Three divergences by one number, the interpolation (GKD, arXiv 2306.13649, eq. 1; the convention of TRL): 0 is the
forward KL(teacher || student), 1 the reverse KL(student || teacher), in between the generalized Jensen-Shannon
divergence

    D_b = b KL(teacher || m) + (1 - b) KL(student || m),    m = b teacher + (1 - b) student.

D_b vanishes at both ends (D_b / b tends to the forward KL for b -> 0, D_b / (1 - b) to the reverse KL for b -> 1), so
the two KLs are chosen by exactly 0 and exactly 1, and a small b is not "almost forward KL" in size.

`token_divergence` is the definition; the others compute the same from hidden states and never hold a tensor of the
vocabulary's width for more than `chunk_size` tokens, neither in forward nor in backward, which recomputes each chunk.

Legend: N flattened tokens, V vocabulary, H hidden width, K teacher candidates. All logarithms are natural.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kepo.errors import ConfigError, KepoError

# The least mass of a teacher's tail. Candidates of a confident teacher sum to 1 within float32's rounding; a tail of
# exactly 0 would then make the reverse KL infinite although the teacher said nothing of the kind.
_LEAST_TAIL = torch.finfo(torch.float32).eps


@dataclass(frozen=True, slots=True, eq=False)
class OutputHead:
    """The last layer of a language model, from hidden states to logits.

    Attributes:
        weight: (V, H).
        bias: (V,) or None.
        scale: Factor on the logits (Cohere, Granite).
        softcap: Bound of the logits, softcap * tanh(x / softcap), > 0 (Gemma 2); None for no bound.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of `hidden` (N, H): the product in the hidden states' dtype, the rest in at least float32.

        Under autocast the product is in autocast's dtype.
        """
        dtype = product_dtype(hidden)
        return self.finish(F.linear(hidden.to(dtype), self.weight.to(dtype)))

    def finish(self, product: Tensor) -> Tensor:
        """Logits (N, V) from the product of hidden states and weight: bias, scale and softcap, in at least float32."""
        logits = product if product.dtype == torch.float64 else product.float()
        if self.bias is not None:
            logits = logits + self.bias.to(logits.dtype)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def to(self, device: torch.device | str) -> OutputHead:
        """This head on `device`."""
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, weight=self.weight.to(device), bias=bias)

    def truncate(self, vocab: int) -> OutputHead:
        """The head of the first `vocab` tokens.

        Raises:
            KepoError: `vocab` is outside 1..V.
        """
        rows = self.weight.shape[0]
        if not 1 <= vocab <= rows:
            raise KepoError(f"an output head of {rows} tokens cannot be cut to {vocab}; ask for 1 to {rows}.")
        if vocab == rows:
            return self
        return replace(self, weight=self.weight[:vocab], bias=None if self.bias is None else self.bias[:vocab])


def token_divergence(student_logps: Tensor, teacher_logps: Tensor, interpolation: float) -> Tensor:
    """The divergence of each token from both full distributions: the definition on top of this module.

    Args:
        student_logps: (N, V) log-probabilities, normalized. -inf is probability 0 and contributes 0 * ... = 0.
        teacher_logps: (N, V), likewise.
        interpolation: b in [0, 1].

    Returns:
        (N,) >= 0 up to rounding, in nats. A KL is infinite where its first argument has mass that the second denies.

    Raises:
        ConfigError: `interpolation` is outside [0, 1].
    """
    check_interpolation(interpolation)
    if interpolation == 0.0:
        return _kl(teacher_logps, student_logps)
    if interpolation == 1.0:
        return _kl(student_logps, teacher_logps)
    mixture_logps = mixture(student_logps, teacher_logps, interpolation)
    return interpolation * _kl(teacher_logps, mixture_logps) + (1.0 - interpolation) * _kl(student_logps, mixture_logps)


def chunked_divergence(
    student_hidden: Tensor,
    student_head: OutputHead,
    teacher_hidden: Tensor,
    teacher_head: OutputHead,
    interpolation: float = 0.5,
    temperature: float = 1.0,
    chunk_size: int = 256,
) -> Tensor:
    """`token_divergence` of the two heads' distributions, with gradient to the student's hidden states and head only.

    Heads that are padded to different sizes are cut to their common first min(V_s, V_t) entries and normalized over
    these. That the entries mean the same tokens is not checked here; `Teacher.check_student` does.

    A teacher on another device stays there: its log-probabilities travel, chunk by chunk.

    Args:
        student_hidden: (N, H_s).
        student_head: Of V_s tokens, on the device of `student_hidden`.
        teacher_hidden: (N, H_t), on any device.
        teacher_head: Of V_t tokens, on the device where the teacher's part is to be computed.
        interpolation: b in [0, 1].
        temperature: Divides both logits, > 0. The result is not multiplied by its square (as in TRL).
        chunk_size: Tokens per chunk, >= 1.

    Returns:
        (N,) in nats, on the student's device; N may be 0.

    Raises:
        ConfigError: a setting is outside its range.
        KepoError: student and teacher do not have the same number of tokens.
    """
    check_interpolation(interpolation)
    check_temperature(temperature)
    vocab = min(student_head.weight.shape[0], teacher_head.weight.shape[0])
    student, teacher = student_head.truncate(vocab), teacher_head.truncate(vocab)

    def chunk(student_states: Tensor, teacher_states: Tensor) -> Tensor:
        with torch.no_grad():
            states = teacher_states.to(teacher.weight.device)
            teacher_logps = (teacher.logits(states) / temperature).log_softmax(-1)
        student_logps = (student.logits(student_states) / temperature).log_softmax(-1)
        return token_divergence(student_logps, teacher_logps.to(student_logps), interpolation)

    return _in_chunks(chunk, chunk_size, student_hidden, teacher_hidden)


def sparse_divergence(
    student_hidden: Tensor,
    student_head: OutputHead,
    ids: Tensor,
    logps: Tensor,
    interpolation: float = 0.5,
    chunk_size: int = 256,
) -> Tensor:
    """The divergence when the teacher is known on K candidates only.

    Both distributions are coarsened to K + 1 outcomes, the candidates and one tail that holds the rest of the mass; by
    the data processing inequality the result is at most the dense divergence. With K = V the tail is empty on
    both sides and the result is the dense one.

    There is no temperature: servers return log-probabilities at temperature 1, and K of them cannot be tempered.

    Args:
        student_hidden: (N, H).
        student_head: Of V tokens.
        ids: (N, K) the teacher's candidates; no token twice in a row. One outside 0..V-1 counts as part of the tail.
        logps: (N, K) their log-probabilities, in nats; -inf marks an unused place, whose id is ignored.
        interpolation: b in [0, 1].
        chunk_size: Tokens per chunk, >= 1.

    Returns:
        (N,) in nats, with gradient to the student's hidden states and head only; N may be 0.

    Raises:
        ConfigError: a setting is outside its range.
        KepoError: the inputs do not have the same number of tokens.
    """
    check_interpolation(interpolation)
    device = student_hidden.device

    def chunk(states: Tensor, chunk_ids: Tensor, chunk_logps: Tensor) -> Tensor:
        student, teacher = coarsened(student_head.logits(states), chunk_ids, chunk_logps)
        return token_divergence(student, teacher, interpolation)

    return _in_chunks(chunk, chunk_size, student_hidden, ids.to(device), logps.detach().to(device))


def chunked_token_logps(
    hidden: Tensor, head: OutputHead, ids: Tensor, temperature: float = 1.0, chunk_size: int = 256
) -> Tensor:
    """Log-probabilities of given tokens.

    Args:
        hidden: (N, H) the states that predict the tokens.
        head: Of V tokens; gradient flows to it and to `hidden`.
        ids: (N,) token ids in 0..V-1.
        temperature: Divides the logits, > 0.
        chunk_size: Tokens per chunk, >= 1.

    Returns:
        (N,) in nats; N may be 0.

    Raises:
        ConfigError: a setting is outside its range.
        KepoError: the inputs do not have the same number of tokens.
    """
    check_temperature(temperature)

    def chunk(states: Tensor, chunk_ids: Tensor) -> Tensor:
        logits = head.logits(states) / temperature
        return logits.gather(-1, chunk_ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)

    return _in_chunks(chunk, chunk_size, hidden, ids.to(hidden.device))


def mixture(student_logps: Tensor, teacher_logps: Tensor, interpolation: float) -> Tensor:
    """Log-probabilities of m = b teacher + (1 - b) student, for 0 < b < 1."""
    # A finite stand-in for -inf: where both are -inf, logaddexp has a NaN gradient, which a later mask cannot undo.
    teacher_part = teacher_logps.clamp_min(torch.finfo(teacher_logps.dtype).min) + math.log(interpolation)
    return torch.logaddexp(student_logps + math.log1p(-interpolation), teacher_part)


def _kl(p_logps: Tensor, q_logps: Tensor) -> Tensor:
    p = p_logps.exp()
    # p > 0 rather than p_logps > -inf: a probability that underflows must not meet an infinite gap either.
    return (p * torch.where(p > 0, p_logps - q_logps, 0.0)).sum(-1)


def coarsened(logits: Tensor, ids: Tensor, logps: Tensor) -> tuple[Tensor, Tensor]:
    """Student and teacher on the K candidates and the tail: (n, K + 1) log-probabilities each, from logits (n, V)."""
    vocab = logits.shape[-1]
    # `!=` lets a NaN through, so that a broken teacher is seen in the loss instead of vanishing from it.
    used = (logps != -math.inf) & (ids >= 0) & (ids < vocab)
    ids = torch.where(used, ids, 0)

    teacher = logps.to(logits.dtype).masked_fill(~used, -math.inf)
    teacher_tail = (-torch.expm1(teacher.logsumexp(-1, keepdim=True))).clamp_min(_LEAST_TAIL).log()
    # When every token is a candidate there is no tail, on either side.
    teacher_tail = torch.where(used.sum(-1, keepdim=True) < vocab, teacher_tail, -math.inf)

    log_z = logits.logsumexp(-1, keepdim=True)
    student = torch.where(used, logits.gather(-1, ids) - log_z, -math.inf)
    # The student's tail is summed over its own tokens: 1 - sum would lose all digits once the student is confident.
    candidate = torch.zeros_like(logits).scatter_add_(-1, ids, used.to(logits.dtype)) > 0
    student_tail = logits.masked_fill(candidate, -math.inf).logsumexp(-1, keepdim=True) - log_z
    return torch.cat([student, student_tail], dim=-1), torch.cat([teacher, teacher_tail], dim=-1)


def _in_chunks(function: Callable[..., Tensor], chunk_size: int, *tensors: Tensor) -> Tensor:
    """`function` of `chunk_size` rows of `tensors` at a time, each chunk recomputed in backward.

    Zero rows are one chunk of zero rows, so that the result hangs on the graph all the same.
    """
    if chunk_size < 1:
        raise ConfigError(f"chunk_size is {chunk_size}; it is a number of tokens and must be at least 1.")
    counts = [tensor.shape[0] for tensor in tensors]
    if len(set(counts)) > 1:
        raise KepoError(f"student and teacher must come with the same number of tokens, but have {counts}.")
    pieces = zip(*(tensor.split(chunk_size) for tensor in tensors), strict=True)
    # Nothing in a chunk is random, so the random state need not be kept for it.
    return torch.cat([checkpoint(function, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces])


def product_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype in which a head's product with `hidden` is made: theirs, or autocast's where it is on."""
    # Not left to autocast: it would share one half-precision copy of the weight between chunks, and so sum the weight's
    # gradient over chunks in half precision. It leaves float64 alone, as is done here.
    device = hidden.device.type
    if hidden.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def check_interpolation(interpolation: float) -> None:
    """Refuse an interpolation outside [0, 1] with a `ConfigError`."""
    if not 0.0 <= interpolation <= 1.0:
        raise ConfigError(
            f"the divergence's interpolation is {interpolation}; it must lie in [0, 1]: 0 for the forward KL, 1 for "
            "the reverse KL, between them the generalized Jensen-Shannon divergence."
        )


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not above 0 with a `ConfigError`."""
    if not temperature > 0.0:
        raise ConfigError(f"the divergence's temperature is {temperature}; it must be greater than 0.")
