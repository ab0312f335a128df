"""Rows that share a prompt as one sequence: which rows, which tensors, which mask."""

from __future__ import annotations

import torch

from kepo.models.packing import Cost, Decoder, TokenRow, pack, plan_packs, rows_of

DECODER = Decoder("sdpa", torch.float32)
CHEAP_ATTENTION = Cost(linear=1.0, quadratic=0.0)


def test_rows_are_read_without_padding() -> None:
    ids = torch.tensor([[0, 5, 6, 7, 8], [1, 2, 3, 9, 0]])
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    types = torch.tensor([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    first, second = rows_of(ids, mask, 2, {"token_type_ids": types, "pixel_values": torch.tensor([[1.0], [2.0]])})
    assert (first.prompt, first.completion) == ((5, 6), (7, 8))
    assert (second.prompt, second.completion) == ((1, 2, 3), (9,))
    assert first.token_types == {"token_type_ids": (1, 0, 0, 0)}
    assert second.images["pixel_values"].tolist() == [[2.0]]


def test_equal_prompts_share_a_pack_and_equal_prompts_with_other_images_do_not() -> None:
    shown = torch.ones(1, 3)
    prompt, other = (1,) * 20, (2,) * 20
    rows = [
        TokenRow(prompt, (3,), images={"pixel_values": shown}),
        TokenRow(prompt, (4,), images={"pixel_values": shown.clone()}),
        TokenRow(prompt, (5,), images={"pixel_values": shown + 1}),
        TokenRow(other, (5,), images={"pixel_values": shown}),
    ]
    assert plan_packs(rows, CHEAP_ATTENTION) == [(0, 1), (2,), (3,)]
    assert plan_packs(rows, None) == [(0,), (1,), (2,), (3,)]


def test_images_in_completions_keep_rows_apart() -> None:
    ids, mask = torch.tensor([[1, 2, 9], [1, 2, 3]]), torch.ones(2, 3)
    rows = rows_of(ids, mask, 1, {}, image_token=9)
    assert [row.late_images for row in rows] == [True, False]
    assert plan_packs([*rows, rows[1]], CHEAP_ATTENTION) == [(0,), (1,), (2,)]


def test_long_completions_are_packed_in_smaller_numbers() -> None:
    """With attention as dear as it is here, four completions of 100 tokens behind a prompt of 10 are not worth it."""
    rows = [TokenRow(tuple(range(10)), (1,) * 100) for _ in range(4)]
    assert len(plan_packs(rows, Cost(linear=1.0, quadratic=1.0))) == 4
    assert len(plan_packs(rows, CHEAP_ATTENTION)) == 1
    short = [TokenRow(tuple(range(100)), (1,) * 2) for _ in range(4)]
    assert len(plan_packs(short, Cost(linear=1.0, quadratic=1.0))) == 1


def test_completions_are_dealt_out_by_length() -> None:
    """Attention alone counts: one pack has 102 tokens, two have 61 each, four up to 60; 2 * 61^2 is least."""
    rows = [TokenRow((1,) * 20, (2,) * length) for length in (40, 1, 39, 2)]
    packs = plan_packs(rows, Cost(linear=0.0, quadratic=1.0))
    assert [[len(rows[row].completion) for row in members] for members in packs] == [[40, 1], [39, 2]]


def test_token_types_end_where_a_cut_completion_ends() -> None:
    rows = [TokenRow((5, 9), (7,), token_types={"mm_token_type_ids": (0, 1, 0, 0, 0)})]
    packed = pack(rows, [(0,)], DECODER, 0, "cpu")
    assert packed.inputs["mm_token_type_ids"].tolist() == [[0, 1, 0]]


def test_cost_of_a_decoder_is_that_of_its_matrices() -> None:
    """H 8, two heads of 4 with one shared key-value head, MLP of 16: q, o 8x8, k, v 8x4, three matrices 8x16."""

    class Config:
        hidden_size, num_attention_heads, num_key_value_heads, head_dim, intermediate_size = 8, 2, 1, 4, 16

    cost = Cost.of(Config)
    assert cost.linear == 2 * (64 + 64 + 32 + 32 + 3 * 128)
    assert cost.quadratic == 2 * 2 * 8


def test_a_pack_by_hand() -> None:
    """A prompt of two tokens and completions of two and one tokens; another pack of one row is filled up."""
    rows = [TokenRow((10, 11), (20, 21)), TokenRow((10, 11), (30,)), TokenRow((12,), (40, 41))]
    packed = pack(rows, [(0, 1), (2,)], DECODER, pad_id=0, device="cpu")
    assert packed.inputs["input_ids"].tolist() == [[10, 11, 20, 21, 30], [12, 40, 41, 0, 0]]
    assert packed.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 0, 0]]
    assert packed.inputs["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert packed.inputs["attention_mask"][1, 0, :3, 3:].sum() == 0  # nobody but padding sees padding
    assert packed.inputs["attention_mask"].any(-1).all()  # and everybody sees something
    assert packed.tokens.tolist() == [20, 21, 30, 40, 41]
    assert packed.states.tolist() == [1, 2, 1, 5, 6]
    assert packed.computed == 10


def test_rows_alone_are_ordinary_sequences() -> None:
    rows = [TokenRow((10, 11), (20,)), TokenRow((12,), ())]
    packed = pack(rows, [(0,), (1,)], DECODER, pad_id=0, device="cpu")
    assert packed.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert "position_ids" not in packed.inputs
    assert packed.states.tolist() == [1]


def test_a_window_counts_positions_not_places_in_the_pack() -> None:
    rows = [TokenRow((1, 2, 3), (4,)), TokenRow((1, 2, 3), (5,))]
    decoder = Decoder("sdpa", torch.float32, ("full_attention", "sliding_attention"), window=2)
    masks = pack(rows, [(0, 1)], decoder, pad_id=0, device="cpu").inputs["attention_mask"]
    assert masks["full_attention"][0, 0, 4].tolist() == [True, True, True, False, True]
    assert masks["sliding_attention"][0, 0, 4].tolist() == [False, False, True, False, True]


def test_tokens_of_one_image_see_each_other() -> None:
    types = {"token_type_ids": (0, 1, 1, 0, 1, 0)}
    rows = [TokenRow((1, 2, 3, 4, 5), (6,), types), TokenRow((1, 2, 3, 4, 5), (7,), types)]
    decoder = Decoder("sdpa", torch.float32, bidirectional_images=True)
    mask = pack(rows, [(0, 1)], decoder, pad_id=0, device="cpu").inputs["attention_mask"][0, 0]
    assert mask[1].tolist() == [True, True, True, False, False, False, False]  # the first image sees its second token
    assert mask[4].tolist() == [True, True, True, True, True, False, False]


def test_an_eager_decoder_gets_an_additive_mask() -> None:
    rows = [TokenRow((1,), (2,)), TokenRow((1,), (3,))]
    mask = pack(rows, [(0, 1)], Decoder("eager", torch.float32), pad_id=0, device="cpu").inputs["attention_mask"]
    assert mask[0, 0, 2].tolist() == [0.0, torch.finfo(torch.float32).min, 0.0]


def test_positions_in_space_go_on_behind_the_largest_of_the_prompt() -> None:
    """An image of 4 tokens takes two positions, so the completion of a prompt of 6 tokens begins at position 4."""
    image = {"pixel_values": torch.ones(1, 1)}
    rows = [TokenRow((1, 9, 9, 9, 9, 2), (3, 4), images=image), TokenRow((1, 9, 9, 9, 9, 2), (5,), images=image)]
    of_prompt = torch.tensor([[0, 1, 1, 1, 1, 3], [0, 1, 1, 2, 2, 3], [0, 1, 2, 1, 2, 3]]).unsqueeze(1)

    def rope(fields: dict[str, torch.Tensor]) -> torch.Tensor:
        assert fields["input_ids"].tolist() == [[1, 9, 9, 9, 9, 2]]
        assert fields["attention_mask"].tolist() == [[1] * 6]
        return of_prompt

    positions = pack(rows, [(0, 1)], DECODER, pad_id=0, device="cpu", rope=rope).inputs["position_ids"]
    assert positions[:, 0, :6].tolist() == of_prompt[:, 0].tolist()
    assert positions[:, 0, 6:].tolist() == [[4, 5, 4]] * 3
