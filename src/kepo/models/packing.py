"""Rows that share a prompt, laid into one sequence: the prompt once, then every completion behind it.

A block mask lets each completion see the prompt and itself, and its positions go on where the prompt's end, so the
states are those of separate rows up to rounding. It is an ordinary forward pass: gradients flow through the shared
prompt, and gradient checkpointing, FSDP, ZeRO and LoRA work as always.

    rows = rows_of(input_ids, attention_mask, completion_length, fields)
    packs = plan_packs(rows, cost)
    packed = pack(rows, packs, decoder, positions)
    states = model(**packed.inputs).last_hidden_state.flatten(0, 1)[packed.states]   # those that predict the tokens

A pack of one row is an ordinary sequence with an ordinary mask; so is every batch in which no pack has two.

Legend: B rows, P prompt tokens, T completion tokens, n packs, S tokens of the longest pack, N scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kepo.models.row_fields import TOKEN_TYPE_FIELDS, Fields, first_equal, join_rows, split_rows

_PADDING = -1  # the segment of padding; the prompt's is 0, those of completions follow


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row as a model reads it, without padding."""

    prompt: tuple[int, ...]  # token ids
    completion: tuple[int, ...]  # those that are scored, from the first on
    token_types: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of prompt and completion, by field
    images: Mapping[str, Tensor] = field(default_factory=dict)  # see `split_rows`
    late_images: bool = False  # some of the images stand in the completion, because a tool returned them


@dataclass(frozen=True, slots=True)
class Cost:
    """What a sequence of S tokens costs a decoder: linear * S + quadratic * S^2, in floating-point operations.

    The quadratic part is that of a kernel that computes the whole square of a masked attention.
    """

    linear: float
    quadratic: float

    @classmethod
    def of(cls, config: Any) -> Cost:
        """Of a decoder's configuration, for a forward pass; what it does not state is taken as usual."""
        hidden = config.hidden_size
        heads = getattr(config, "num_attention_heads", 1)
        width = heads * (getattr(config, "head_dim", None) or hidden // heads)
        shared = (getattr(config, "num_key_value_heads", None) or heads) / heads
        inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", 4 * hidden)
        inner *= getattr(config, "num_experts_per_tok", None) or 1
        return cls(2 * hidden * (2 * width * (1 + shared) + 3 * inner), 4 * width)

    def __call__(self, packs: int, longest: int) -> float:
        """Of `packs` sequences that are padded to `longest` tokens."""
        return packs * longest * (self.linear + self.quadratic * longest)


@dataclass(frozen=True, slots=True)
class Decoder:
    """What a decoder wants to be told about attention."""

    implementation: str  # of transformers: "sdpa", "eager", "flex_attention", ...
    dtype: torch.dtype  # of an additive mask
    kinds: tuple[str, ...] = ("full_attention",)  # of its layers
    window: int | None = None  # tokens that layers of the kind "sliding_attention" look back
    bidirectional_images: bool = False  # the tokens of one image see each other, also those behind them


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch of packs.

    Attributes:
        inputs: For `model(**inputs)`.
        states: (N,) where the states that predict the scored tokens stand among the n * S of the batch, in the order of
            rows, and in each of tokens.
        tokens: (N,) the scored tokens.
        computed: Tokens that the decoder computes, padding included: n * S.
    """

    inputs: dict[str, Any]
    states: Tensor
    tokens: Tensor
    computed: int


def rows_of(
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_length: int,
    fields: Fields,
    num_images: Sequence[int] | None = None,
    num_tiles: Sequence[int] | None = None,
    image_token: int | None = None,
) -> list[TokenRow]:
    """The rows of a batch with prompts padded on the left and completions padded on the right.

    Args:
        input_ids: (B, P + T).
        attention_mask: (B, P + T), 0 at padding, and in completions that are left out.
        completion_length: T.
        fields: What the model takes beside them; names that are neither images nor token types are not kept.
        num_images: See `split_rows`.
        num_tiles: See `split_rows`.
        image_token: The token that stands for a piece of an image; None: the model sees none.
    """
    width = input_ids.size(1) - completion_length
    ids, mask = input_ids.tolist(), attention_mask.bool().tolist()
    types = {name: fields[name].tolist() for name in TOKEN_TYPE_FIELDS if fields.get(name) is not None}
    images = split_rows(fields, len(ids), num_images, num_tiles)

    def kept(row: int, values: Sequence[int], start: int, stop: int) -> tuple[int, ...]:
        return tuple(value for value, there in zip(values[start:stop], mask[row][start:stop], strict=True) if there)

    return [
        TokenRow(
            prompt=kept(row, ids[row], 0, width),
            completion=(completion := kept(row, ids[row], width, len(ids[row]))),
            token_types={name: kept(row, values[row], 0, len(ids[row])) for name, values in types.items()},
            images=images[row],
            late_images=image_token in completion,
        )
        for row in range(len(ids))
    ]


def plan_packs(rows: Sequence[TokenRow], cost: Cost | None) -> list[tuple[int, ...]]:
    """Which rows share a sequence: the packs of least cost, of rows with equal prompts and images.

    Long completions in one pack make its attention dear, short ones leave the prompt's share dear; so the rows of a
    prompt are dealt out, longest first, to as many packs as cost least.

    Args:
        rows: B.
        cost: Of the decoder; None: every row alone, as it is where a completion holds images.

    Returns:
        The rows of each pack; every row is in one.
    """
    alone: list[tuple[int, ...]] = [(row,) for row in range(len(rows))]
    if cost is None or any(row.late_images for row in rows):
        return alone
    firsts = first_equal([row.images for row in rows])
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault((row.prompt, firsts[place]), []).append(place)
    largest = max((len(group) for group in groups.values()), default=0)
    if largest < 2:
        return alone
    plans = [_dealt(groups.values(), rows, size) for size in range(1, largest + 1)]
    return min(plans, key=lambda plan: cost(len(plan), max(_length(rows, pack) for pack in plan)))


def pack(
    rows: Sequence[TokenRow],
    packs: Sequence[Sequence[int]],
    decoder: Decoder,
    pad_id: int,
    device: torch.device | str,
    rope: Callable[[dict[str, Any]], Tensor] | None = None,
) -> Packed:
    """The tensors of a batch of packs.

    Args:
        rows: B, not all of which need be in a pack.
        packs: The rows of each pack.
        decoder: Of the model that reads them.
        pad_id: Fills sequences up, on the right.
        device: Where the tensors go.
        rope: From the fields of the packs' prompts (right-padded, `attention_mask` included) to their (3, n, P)
            positions, of a model whose images have positions in space; None: positions count tokens.
    """
    firsts = [rows[members[0]] for members in packs]
    shared = max(len(members) for members in packs) > 1
    longest = max(_length(rows, members) for members in packs)
    ids, segments, positions = (
        torch.tensor([[*given, *[fill] * (longest - len(given))] for given in sequences], device=device)
        for sequences, fill in zip(_sequences(rows, packs), (pad_id, _PADDING, 0), strict=True)
    )  # (n, S) each
    inputs: dict[str, Any] = {"input_ids": ids}
    for name in firsts[0].token_types:
        # No longer than the sequence, whose completion may have been cut.
        types = [row.token_types[name][: len(row.prompt) + (0 if shared else len(row.completion))] for row in firsts]
        padded = [[*given, *[0] * (longest - len(given))] for given in types]
        inputs[name] = torch.tensor(padded, device=device)
    inputs |= {name: value.to(device) for name, value in join_rows([row.images for row in firsts]).items()}
    if not shared:
        inputs["attention_mask"] = (segments != _PADDING).long()
    else:
        blocks = _image_blocks(inputs.get("token_type_ids")) if decoder.bidirectional_images else None
        inputs["attention_mask"] = _masks(segments, positions, blocks, decoder)
        inputs["position_ids"] = positions
        if rope is not None:
            inputs["position_ids"] = _in_space(rope(_prompt_fields(inputs, segments)), segments, positions)
    states, tokens = _scored(rows, packs, longest)
    return Packed(inputs, states.to(device), tokens.to(device), computed=ids.numel())


def _dealt(groups: Any, rows: Sequence[TokenRow], size: int) -> list[tuple[int, ...]]:
    """Packs of at most `size` rows of one group each: each row, longest first, to the pack that is shortest so far."""
    packs: list[tuple[int, ...]] = []
    for group in groups:
        dealt: list[list[int]] = [[] for _ in range(-(-len(group) // size))]
        totals = [0] * len(dealt)
        for row in sorted(group, key=lambda row: -len(rows[row].completion)):
            place = min(range(len(dealt)), key=lambda place: (len(dealt[place]) >= size, totals[place]))
            dealt[place].append(row)
            totals[place] += len(rows[row].completion)
        packs += [tuple(sorted(members)) for members in dealt]
    return packs


def _length(rows: Sequence[TokenRow], members: Sequence[int]) -> int:
    return len(rows[members[0]].prompt) + sum(len(rows[row].completion) for row in members)


def _sequences(
    rows: Sequence[TokenRow], packs: Sequence[Sequence[int]]
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Of each pack the token ids, the segment of each token, and its position."""
    ids: list[list[int]] = []
    segments: list[list[int]] = []
    positions: list[list[int]] = []
    for members in packs:
        prompt = rows[members[0]].prompt
        ids.append([*prompt])
        segments.append([0] * len(prompt))
        positions.append([*range(len(prompt))])
        for segment, row in enumerate(members, start=1):
            completion = rows[row].completion
            ids[-1] += completion
            segments[-1] += [segment] * len(completion)
            positions[-1] += range(len(prompt), len(prompt) + len(completion))
    return ids, segments, positions


def _scored(rows: Sequence[TokenRow], packs: Sequence[Sequence[int]], longest: int) -> tuple[Tensor, Tensor]:
    """`Packed.states` and `Packed.tokens`."""
    starts: dict[int, tuple[int, int]] = {}  # row -> where its prompt's last token and its first own token stand
    for place, members in enumerate(packs):
        end = place * longest + len(rows[members[0]].prompt)
        own = end
        for row in members:
            starts[row] = (end - 1, own)
            own += len(rows[row].completion)
    states: list[int] = []
    tokens: list[int] = []
    for row in sorted(starts):
        last, own = starts[row]
        completion = rows[row].completion
        states += [last, *range(own, own + len(completion) - 1)][: len(completion)]
        tokens += completion
    return torch.tensor(states, dtype=torch.long), torch.tensor(tokens, dtype=torch.long)


def _masks(segments: Tensor, positions: Tensor, blocks: Tensor | None, decoder: Decoder) -> Any:
    """What the decoder takes as `attention_mask`: one mask, or one by kind of layer where it has several kinds."""
    full = _visible(segments, blocks)
    by_kind = {"full_attention": full, "sliding_attention": full}
    if decoder.window is not None and int(positions.max()) >= decoder.window:
        distance = positions.unsqueeze(2) - positions.unsqueeze(1)
        by_kind["sliding_attention"] = full & (distance < decoder.window)
    masks = {kind: _as_taken(by_kind[kind], decoder) for kind in decoder.kinds}
    # A decoder with layers of one kind makes one mask, and takes one.
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _visible(segments: Tensor, blocks: Tensor | None) -> Tensor:
    """(n, S, S) which token (third dimension) each token (second) sees: the prompt, and its own segment so far."""
    segments = segments.to(torch.int16)  # a third of the time
    length = segments.size(1)
    before = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    key = segments.unsqueeze(1)
    # Padding sees the prompt too, because a token that sees none would be NaN.
    visible = (key == segments.unsqueeze(2)).logical_or_(key == 0).logical_and_(before)
    if blocks is not None:
        visible |= (blocks.unsqueeze(2) == blocks.unsqueeze(1)) & (blocks.unsqueeze(1) > 0)
    return visible


def _as_taken(visible: Tensor, decoder: Decoder) -> Any:
    if decoder.implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        count, length, _ = visible.shape

        def seen(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return visible[batch, query, key]

        return create_block_mask(seen, count, None, length, length, device=str(visible.device))
    mask = visible.unsqueeze(1)  # (n, 1, S, S)
    if decoder.implementation == "eager":
        least = torch.finfo(decoder.dtype).min
        return torch.zeros(mask.shape, dtype=decoder.dtype, device=mask.device).masked_fill(~mask, least)
    return mask


def _image_blocks(types: Tensor | None) -> Tensor | None:
    """(n, S) 0 for text, else the number of the run of image tokens that a token belongs to."""
    if types is None:
        return None
    image = types == 1
    starts = image & ~torch.nn.functional.pad(image, (1, 0))[:, :-1]
    return starts.cumsum(1) * image


def _prompt_fields(inputs: Mapping[str, Any], segments: Tensor) -> dict[str, Any]:
    """The fields of the packs' prompts alone, right-padded."""
    inside = segments == 0  # (n, S)
    width = int(inside.sum(1).max())
    per_token = {"input_ids", *TOKEN_TYPE_FIELDS}
    fields = {name: value for name, value in inputs.items() if name not in ("attention_mask", "position_ids")}
    fields = {name: value[:, :width] if name in per_token else value for name, value in fields.items()}
    return {**fields, "attention_mask": inside[:, :width].long()}


def _in_space(prompt_positions: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
    """(3, n, S) the given positions of the prompts (3, n, P), and those of completions going on behind the largest."""
    inside = segments == 0
    width = prompt_positions.size(2)
    lengths = inside.sum(1)  # (n,) P of each pack
    real = torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)
    ends = prompt_positions.masked_fill(~real, 0).amax((0, 2)) + 1  # (n,)
    shifted = positions - lengths.unsqueeze(1) + ends.unsqueeze(1)  # of completions
    placed = shifted.masked_fill(segments == _PADDING, 0).repeat(3, 1, 1)
    placed[:, :, :width] = torch.where(inside[:, :width], prompt_positions, placed[:, :, :width])
    return placed
