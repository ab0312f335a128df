"""All that the loss needs of the student's output head (first version: from the functions of `divergence`)."""

from dataclasses import dataclass
from typing import Any

from kepo.objective.divergence import chunked_divergence, sparse_divergence


@dataclass
class DenseTeacher:
    hidden: Any
    head: Any


@dataclass
class SparseTeacher:
    ids: Any
    logps: Any


@dataclass
class TokenTerms:
    logps: Any
    entropy: Any
    divergence: Any


def token_terms(
    hidden,
    head,
    ids,
    temperature=1.0,
    *,
    teacher=None,
    gated=None,
    interpolation=0.5,
    divergence_temperature=1.0,
    chunk_size=None,
    entropy=True,
    dtype=None,
):
    z = head.logits(hidden) / temperature
    lp = z.log_softmax(-1)
    d = hidden.sum(-1)[:0] * 0.0
    h = hidden if gated is None else hidden[gated]
    if isinstance(teacher, DenseTeacher):
        d = chunked_divergence(
            h,
            head,
            teacher.hidden,
            teacher.head,
            interpolation=interpolation,
            temperature=divergence_temperature,
            chunk_size=chunk_size or 256,
        )
    elif isinstance(teacher, SparseTeacher):
        d = sparse_divergence(
            h, head, teacher.ids, teacher.logps, interpolation=interpolation, chunk_size=chunk_size or 256
        )
    return TokenTerms(lp.gather(-1, ids[:, None])[:, 0], -(lp.exp() * lp).sum(-1), d)
