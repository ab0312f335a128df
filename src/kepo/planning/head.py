"""Bytes of the output head: TRL's tiled log-probabilities and the chunks of the teacher's divergence.

N tokens, H width, V vocabulary.
"""

from __future__ import annotations

# TRL's tiles (trl/kernels/chunked_logprob.py and trl/trainer/utils.py): tokens x vocabulary entries.
TILE_TOKENS, TILE_VOCAB = 4096, 32768
# Vocabulary-wide tensors of a chunk that the Jensen-Shannon divergence holds at once in its backward pass, as measured
# by `python -m benchmarks.memory`.
DIVERGENCE_TENSORS = 9.6


def policy_head_bytes(tokens: int, hidden: int, vocab: int, compute: int, trainable: bool) -> int:
    """Most that the policy's log-probabilities hold in their backward pass.

    Args:
        tokens: Of completions in a micro-batch.
        hidden: H.
        vocab: V.
        compute: Bytes of a product's input.
        trainable: Whether the head is trained: its gradient is summed in float32 then.
    """
    tile = min(tokens, TILE_TOKENS) * min(vocab, TILE_VOCAB) * compute
    states = tokens * hidden * (compute + 4)  # hidden states, and their gradient
    return tile + states + (vocab * hidden * 4 if trainable else 0)


def divergence_bytes(chunk: int, tokens: int, hidden: int, vocab: int, weight: int, copies: int = 0) -> int:
    """Most that the divergence holds in its backward pass.

    Args:
        chunk: Tokens whose vocabulary is expanded at once.
        tokens: Gated tokens of a micro-batch, at most.
        hidden: H of the student.
        vocab: V.
        weight: Bytes of the head's weight, whose gradient is summed over chunks; 0 when the head is frozen.
        copies: Bytes per weight of a copy of the head: a cast one under autocast, a gathered one where it is sharded.
    """
    wide = int(DIVERGENCE_TENSORS * min(chunk, tokens) * vocab * 4)
    return wide + vocab * hidden * (weight + copies)
