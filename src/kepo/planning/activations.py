"""Bytes that a forward pass keeps for its backward pass, of a key-value cache and of the output head.

Counted from what the layers of transformers save: RMS-normalized decoders with gated MLPs (Qwen, Llama), and towers
with LayerNorm (SigLIP, Qwen-VL). benchmarks/memory.py compares every formula with what autograd really keeps.

Legend, all per token: H width, A heads x head width, K the same of keys, I width of the MLP; V the vocabulary;
c bytes of a product's input, r bytes of the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from kepo.objective import chunk_tokens
from kepo.planning.architecture import Decoder, Tower

_STATISTIC = 4  # bytes of a mean, a scale or a log-sum, float32
# TRL's tiles (trl/kernels/chunked_logprob.py and trl/trainer/utils.py): tokens x vocabulary entries.
TILE_TOKENS, TILE_VOCAB = 4096, 32768
# What the softmax of `kepo.objective.output_terms` works on at a time, and how many float32 tensors of that size it
# holds at once in its backward pass, as measured by `python -m benchmarks.memory`.
BLOCK_ELEMENTS, BLOCK_TENSORS = 2**17, 7


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes per value in a forward pass."""

    compute: int  # inputs of matrix products
    residual: int  # the residual stream
    casts: bool = False  # every product casts its own input and weight (autocast over float32 weights)
    cached: int = 2  # cached keys and values


FLOAT32 = Precision(compute=4, residual=4, cached=4)
BFLOAT16 = Precision(compute=2, residual=2)
AUTOCAST = Precision(compute=2, residual=4, casts=True, cached=4)
"""float32 weights under bfloat16 autocast: rotary positions leave the keys, and so the whole cache, in float32."""


def decoder_layer_bytes(decoder: Decoder, tokens: int, precision: Precision) -> int:
    """What one decoder layer keeps for `tokens` (rows x length), its input included.

    Keys and values are counted as wide as the queries, because batches with padding expand them.
    """
    queries, keys = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    compute = precision.compute
    norms = 2 * (decoder.hidden * (4 + precision.residual) + _STATISTIC)
    inputs = (5 if precision.casts else 2) * decoder.hidden * compute  # of q, k, v and of gate, up
    qk_norms = (queries + keys) * (4 + compute) + _STATISTIC * (decoder.heads + decoder.kv_heads)
    attention = 4 * queries * compute + _STATISTIC * decoder.heads  # q, k, v, output
    mlp = 4 * decoder.mlp_width * compute  # gate before and after its activation, up, product
    return tokens * (norms + inputs + (qk_norms if decoder.qk_norm else 0) + attention + mlp)


def tower_layer_bytes(tower: Tower, patches: int, precision: Precision) -> int:
    """What one layer of the vision encoder keeps for `patches`, its input included."""
    compute = precision.compute
    norms = 2 * (tower.hidden * precision.residual + 2 * _STATISTIC)
    # A fused projection stays whole behind the values; queries and keys are new tensors either way.
    projected = 5 if tower.fused_qkv else 3
    inputs = (3 if precision.casts and not tower.fused_qkv else 1) + 1  # of the projections, of the MLP
    attention = (projected + (2 if tower.fused_qkv else 1)) * tower.hidden * compute + _STATISTIC * tower.heads
    mlp = 2 * tower.mlp_width * compute
    return patches * (norms + inputs * tower.hidden * compute + attention + mlp)


def mergers_bytes(tower: Tower, decoder: Decoder, patches: int, precision: Precision) -> int:
    """What the projections from tower to decoder keep."""
    if tower.merge == 1:  # two linear layers with an activation between
        return patches * (tower.hidden + 2 * decoder.hidden) * precision.compute
    # Three inputs each; what the last one normalizes is its own, the others normalize inputs of layers.
    per_patch = tower.mergers * (3 * tower.hidden * precision.compute + 2 * _STATISTIC)
    return patches * (per_patch + tower.hidden * precision.residual)


def decoder_bytes(decoder: Decoder, tokens: int, precision: Precision, checkpointing: bool) -> int:
    """What the decoder keeps between forward and backward: with checkpointing the inputs of its layers only."""
    final_norm = tokens * decoder.hidden * (4 + precision.residual)
    if checkpointing:
        return decoder.layers * tokens * decoder.hidden * precision.residual + final_norm
    return decoder.layers * decoder_layer_bytes(decoder, tokens, precision) + final_norm


def tower_bytes(tower: Tower, patches: int, precision: Precision, checkpointing: bool) -> int:
    """What the vision encoder keeps between forward and backward."""
    if checkpointing:
        return tower.layers * patches * tower.hidden * precision.residual
    return tower.layers * tower_layer_bytes(tower, patches, precision)


def forward_bytes(decoder: Decoder, tokens: int, precision: Precision) -> int:
    """Most that a forward pass without gradients holds at once: the widest moment is in an MLP."""
    attention = decoder.heads * decoder.head_dim * 4
    return tokens * (3 * decoder.hidden + max(3 * decoder.mlp_width, attention)) * max(precision.compute, 2)


def kv_cache_bytes(decoder: Decoder, rows: int, length: int, precision: Precision) -> int:
    """Keys and values of `rows` sequences of `length` tokens."""
    width = decoder.kv_heads * decoder.head_dim
    return decoder.layers * rows * length * width * 2 * precision.cached


def mask_bytes(decoder: Decoder, count: int, longest: int, precision: Precision, layers: int) -> int:
    """The mask of `count` sequences padded to `longest`, and the additive copies that `layers` layers hold of it.

    Each layer's attention makes its own copy, in the arithmetic of the scores, and keeps it for its backward pass.
    """
    return count * longest**2 * (decoder.masks + layers * precision.compute)


def trl_policy_bytes(tokens: int, hidden: int, vocab: int, compute: int, weight: int) -> int:
    """Most that TRL's kernel of log-probabilities holds for `tokens` completion tokens in its backward pass.

    `compute` is bytes of a product's input, `weight` those of a weight of the head, 0 when it is frozen. The gradient
    of the head is summed in float32.
    """
    tile = min(tokens, TILE_TOKENS) * min(vocab, TILE_VOCAB) * compute
    states = tokens * hidden * (compute + 4)  # hidden states, and their gradient
    return tile + states + (vocab * hidden * 4 if weight else 0)


def trl_divergence_bytes(tokens: int, hidden: int, vocab: int, compute: int, weight: int) -> int:
    """Most that TRL's kernel of the divergence holds for `tokens` gated tokens in its backward pass.

    Arguments as in `trl_policy_bytes`, whose gradient of the head is there by then.
    """
    tiles = min(tokens, TILE_TOKENS) * min(vocab, TILE_VOCAB) * (4 + 4 + compute)  # student's, teacher's, a cast one
    states = 2 * tokens * hidden * (compute + 4)  # hidden states and their gradient, of either kernel
    return tiles + states + (vocab * hidden * (4 + weight) if weight else 0)


def one_pass_bytes(
    tokens: int, hidden: int, vocab: int, precision: Precision, weight: int, teacher: int = 0, most: int | None = None
) -> int:
    """Most that `kepo.objective.token_terms` holds for `tokens` completion tokens in its backward pass.

    Its chunks have a bounded number of logits, so that neither tokens nor vocabulary make them larger.

    Args:
        tokens: Of all completions.
        hidden: Width.
        vocab: Rows of the head.
        precision: Of the student.
        weight: Bytes of a weight of the head, 0 when it is frozen. Its gradient is summed in float32, then cast.
        teacher: Bytes of a logit of the teacher, 0 without one here.
        most: Largest number of tokens of a chunk, where it is set.
    """
    tiles = min(tokens, chunk_tokens(vocab, most)) * vocab * (precision.compute + teacher)
    blocks = BLOCK_TENSORS * max(vocab, BLOCK_ELEMENTS) * 4
    states = 2 * tokens * hidden * precision.residual  # gathered, and their gradient
    gradient = 0 if not weight else vocab * hidden * (4 if weight == 4 else 4 + weight)
    return tiles + blocks + states + gradient
