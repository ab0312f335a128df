"""The multimodal fields of a batch, cut into rows and put together again for other rows.

Processors lay images out in different ways: one entry per row, per image, per tile, or patches of all images end to
end. Whoever wants some rows of a batch, or one row for several, must know which.

Legend: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Fields: TypeAlias = Mapping[str, Any]
"""What a model takes beside token ids, by name; None where it is not there."""

# Fields with one entry per token of a row, which belong to the text as much as to the images.
TOKEN_TYPE_FIELDS = ("token_type_ids", "mm_token_type_ids")
IMAGE_FIELDS = (
    *("pixel_values", "image_grid_thw", "pixel_attention_mask", "spatial_shapes"),
    *("image_sizes", "image_position_ids"),
)


def split_rows(
    fields: Fields, rows: int, num_images: Sequence[int] | None = None, num_tiles: Sequence[int] | None = None
) -> list[dict[str, Tensor]]:
    """The image fields of each row, as a batch of that row alone has them; of a row without images: empty tensors.

    Args:
        fields: Of the batch; what is not in `IMAGE_FIELDS` is left out.
        rows: B.
        num_images: (B) images of each row; None: one image each, or fields that have one entry per row.
        num_tiles: (B) tiles of each row's images, where the processor cuts images into tiles that lie end to end.
    """
    given = {name: fields[name] for name in IMAGE_FIELDS if fields.get(name) is not None}
    if not given:
        return [{} for _ in range(rows)]
    images = [1] * rows if num_images is None else list(num_images)
    sizes = {name: _sizes(name, given, rows, images, num_tiles) for name in given}
    parts = {name: value.split(sizes[name]) for name, value in given.items()}
    return [{name: part[row] for name, part in parts.items()} for row in range(rows)]


def join_rows(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The fields of a batch of the given rows (see `split_rows`), without those of which nothing is left.

    Entries of different sizes are filled up with zeros, as processors do it.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    parts = {name: [row[name] for row in rows if name in row and len(row[name])] for name in names}
    return {name: torch.cat(_filled_up(values)) for name, values in parts.items() if values}


def first_equal(rows: Sequence[Mapping[str, Tensor]]) -> list[int]:
    """(B) for every row the first one with the same images, itself if there is none before it."""
    # Most images differ in this cheap number; only those that share it are compared in full.
    marks = [_mark(row) for row in rows]
    firsts: list[int] = []
    found = []
    for row, fields in enumerate(rows):
        first = next((f for f in firsts if marks[f] == marks[row] and _equal(rows[f], fields)), row)
        if first == row:
            firsts.append(row)
        found.append(first)
    return found


def _sizes(
    name: str, given: Mapping[str, Tensor], rows: int, images: Sequence[int], tiles: Sequence[int] | None
) -> list[int]:
    """Entries of each row in the first dimension of a field."""
    value = given[name]
    if name in ("image_grid_thw", "image_position_ids", "image_sizes"):
        return list(images)
    if name == "pixel_values" and "image_grid_thw" in given:
        patches = iter(given["image_grid_thw"].prod(-1).tolist())
        return [sum(next(patches) for _ in range(count)) for count in images]
    tiled = tiles is not None and (name in ("pixel_values", "spatial_shapes") or "spatial_shapes" in given)
    if tiled:
        return list(tiles or ())
    if name == "pixel_values" and len(value) == sum(images):
        return list(images)
    return [1] * rows


def _filled_up(values: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one shape but for the first dimension."""
    shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    missing = [[most - size for most, size in zip(shape, value.shape[1:], strict=True)] for value in values]
    return [
        torch.nn.functional.pad(value, [side for size in reversed(sizes) for side in (0, size)])
        if any(sizes)
        else value
        for value, sizes in zip(values, missing, strict=True)
    ]


def _mark(row: Mapping[str, Tensor]) -> tuple[Any, ...]:
    return tuple((tuple(value.shape), float(value.sum(dtype=torch.float64))) for value in row.values())


def _equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())
