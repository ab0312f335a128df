"""The formulas on numbers that a hand can compute."""

from __future__ import annotations

from kepo.planning import activations
from kepo.planning.activations import AUTOCAST, BFLOAT16, FLOAT32
from kepo.planning.architecture import Decoder, Tower

DECODER = Decoder(layers=3, hidden=64, heads=4, kv_heads=2, head_dim=32, mlp_width=160, vocab=1000, qk_norm=True)
TOWER = Tower(
    layers=2, hidden=48, heads=4, mlp_width=128, fused_qkv=True, patch=16, merge=2, mergers=2, image_size=None
)


def test_a_decoder_layer() -> None:
    # Norms 2 x (64 x (4 + 2) + 4) = 776, inputs 2 x 64 x 2 = 256, q and k norms 192 x (4 + 2) + 4 x 6 = 1176,
    # attention 4 x 128 x 2 + 4 x 4 = 1040, MLP 4 x 160 x 2 = 1280
    assert activations.decoder_layer_bytes(DECODER, 1, BFLOAT16) == 776 + 256 + 1176 + 1040 + 1280
    # float32: 2 x (64 x 8 + 4) = 1032, 512, 192 x 8 + 24 = 1560, 4 x 128 x 4 + 16 = 2064, 2560
    assert activations.decoder_layer_bytes(DECODER, 10, FLOAT32) == 10 * (1032 + 512 + 1560 + 2064 + 2560)
    # autocast: 1032, five inputs of 64 x 2, 1176, 1040, 1280
    assert activations.decoder_layer_bytes(DECODER, 1, AUTOCAST) == 1032 + 640 + 1176 + 1040 + 1280


def test_a_tower_layer() -> None:
    # Norms 2 x (48 x 4 + 8) = 400, inputs 2 x 48 x 4 = 384, attention 7 x 48 x 4 + 16 = 1360, MLP 2 x 128 x 4 = 1024
    assert activations.tower_layer_bytes(TOWER, 1, FLOAT32) == 400 + 384 + 1360 + 1024


def test_checkpointing_keeps_inputs_of_layers() -> None:
    # 3 layers x 5 tokens x 64 x 2, and the last norm 5 x 64 x (4 + 2)
    assert activations.decoder_bytes(DECODER, 5, BFLOAT16, checkpointing=True) == 1920 + 1920
    assert activations.tower_bytes(TOWER, 7, BFLOAT16, checkpointing=True) == 2 * 7 * 48 * 2


def test_a_cache_holds_keys_and_values_of_every_layer() -> None:
    # 3 layers x 2 rows x 10 tokens x 2 heads x 32 x (2 + 2) bytes
    assert activations.kv_cache_bytes(DECODER, 2, 10, BFLOAT16) == 15360
    assert activations.kv_cache_bytes(DECODER, 2, 10, FLOAT32) == 2 * 15360


def test_a_mask_is_quadratic_in_the_length() -> None:
    assert activations.mask_bytes(DECODER, 2, 10, BFLOAT16, layers=0) == 2 * 100
    assert activations.mask_bytes(DECODER, 2, 10, BFLOAT16, layers=3) == 2 * 100 * (1 + 3 * 2)


def test_the_logits_of_the_output_head_grow_with_their_chunk_only() -> None:
    # blocks 7 x 2^17 x 4; a chunk of 256 x 1000 x (2 + 2); states 2 x tokens x 64 x 2
    blocks = 7 * 2**17 * 4
    small = activations.one_pass_bytes(1000, 64, 1000, BFLOAT16, weight=0, teacher=2, most=256)
    assert small == blocks + 256 * 1000 * 4 + 2 * 1000 * 64 * 2
    more = activations.one_pass_bytes(100_000, 64, 1000, BFLOAT16, weight=0, teacher=2, most=256)
    assert more - small == 2 * 99_000 * 64 * 2
    # The gradient of the head: float32, and in the weight's 2 bytes.
    trained = activations.one_pass_bytes(1000, 64, 1000, BFLOAT16, weight=2, teacher=2, most=256)
    assert trained - small == 1000 * 64 * (4 + 2)


def test_trls_kernels_need_tiles_and_the_heads_gradient() -> None:
    # tile 100 x 1000 x 2, states 100 x 64 x (2 + 4), gradient 1000 x 64 x 4
    assert activations.trl_policy_bytes(100, 64, 1000, 2, weight=2) == 200_000 + 38_400 + 256_000
    assert activations.trl_policy_bytes(100, 64, 1000, 2, weight=0) == 238_400
    # tiles 100 x 1000 x (4 + 4 + 2), states twice, gradients 1000 x 64 x (4 + 2)
    assert activations.trl_divergence_bytes(100, 64, 1000, 2, weight=2) == 1_000_000 + 76_800 + 384_000
