"""Log-probability, entropy and divergence by whichever is faster: TRL's fused kernels on a GPU, one pass of ours else.

On a CPU, TRL's kernels run as torch operations; `benchmarks/divergence.py` compares both there.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import is_triton_available
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from kepo import objective
from kepo.objective import DenseTeacher, OutputHead, SparseTeacher, TokenTerms, sparse_divergence

_VOCABULARY_CHUNK = 32768  # TRL's own choice for its fused head


def token_terms(hidden: Tensor, head: OutputHead, ids: Tensor, temperature: float = 1.0, **settings: Any) -> TokenTerms:
    """`kepo.objective.token_terms`, with TRL's kernels where Triton runs them.

    The kernels compute in float32. They do not leave out tokens without gradient, so on a GPU a NaN in such a token
    reaches the head's gradient, as in TRL.

    Args and errors: as in `kepo.objective.token_terms`.
    """
    triton = hidden.device.type in ("cuda", "xpu") and is_triton_available()
    # The kernels would gather a parameter that DeepSpeed has split; what comes here then is a copy of the whole one.
    fits = hidden.dtype != torch.float64 and not is_deepspeed_zero3_enabled()
    use = trl_token_terms if triton and fits else objective.token_terms
    return use(hidden, head, ids, temperature, **settings)


def trl_token_terms(
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
    """`kepo.objective.token_terms` from TRL's kernels; only the divergence to candidates is ours.

    `chunk_size` is used for candidates alone: the kernels have tiles of a fixed size.
    """
    states = hidden if dtype is None else hidden.to(dtype)
    with contextlib.nullcontext() if dtype is None else torch.autocast(hidden.device.type, enabled=False):
        outputs = ("entropy",) if entropy else ()
        logps, entropies, *_ = ChunkedLogProbFunction.apply(
            states,
            head.weight,
            head.bias,
            ids.to(hidden.device),
            temperature,
            _VOCABULARY_CHUNK,
            head.softcap,
            head.scale,
            outputs,
        )
    if teacher is None:
        return TokenTerms(logps, entropies, logps[:0])
    chosen = states if gated is None else states[gated.to(hidden.device)]
    if isinstance(teacher, SparseTeacher):
        size = objective.chunk_tokens(head.weight.shape[0], chunk_size)
        divergence = sparse_divergence(chosen, head, teacher.ids, teacher.logps, interpolation, size)
    else:
        divergence = _dense_divergence(chosen, head, teacher, interpolation, divergence_temperature)
    return TokenTerms(logps, entropies, divergence)


def _dense_divergence(
    student: Tensor, head: OutputHead, teacher: DenseTeacher, interpolation: float, temperature: float
) -> Tensor:
    """(M,) by TRL's kernel, which wants both heads on one device and of one size."""
    vocab = min(head.weight.shape[0], teacher.head.weight.shape[0])
    own, other = head.truncate(vocab), teacher.head.truncate(vocab).to(student.device)
    divergence, _ = ChunkedDivergenceFunction.apply(
        student,
        own.weight,
        own.bias,
        teacher.hidden.detach().to(student.device),
        other.weight.detach(),
        None if other.bias is None else other.bias.detach(),
        interpolation,
        temperature,
        own.scale,
        own.softcap,
        other.scale,
        other.softcap,
    )
    return divergence
