"""TRL's generation batch, cut into micro-batches that hold whole groups.

TRL shuffles single rollouts. A group that lies in one micro-batch shares its prompt there. Where an optimizer step
consumes a whole generation batch, its rows are the same either way; otherwise it gets whole groups.

Legend: B rows of this process, G rollouts of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kepo.models.row_fields import IMAGE_FIELDS, join_rows, split_rows


def whole_group_batches(batch: Mapping[str, Any], count: int, group_size: int, first_row: int) -> list[dict[str, Any]]:
    """`count` micro-batches of equally many rows: the groups in random order, the rows of each together.

    Args:
        batch: Values with B entries, tensors of no dimension, and None.
        count: Divides B.
        group_size: G.
        first_row: Index of the first row among those of all processes, whose groups are counted from 0.
    """
    rows = len(batch["completion_ids"])
    group_of = [(first_row + row) // group_size for row in range(rows)]
    groups = sorted(set(group_of))
    order = {groups[place]: rank for rank, place in enumerate(torch.randperm(len(groups)).tolist())}
    shuffled = sorted(range(rows), key=lambda row: order[group_of[row]])  # stable: rows of a group stay in order
    size = rows // count
    images = split_rows(batch, rows, batch.get("num_images"), batch.get("num_tiles"))
    parts = [shuffled[start : start + size] for start in range(0, rows, size)]
    return [{**_taken(batch, part), **join_rows([images[row] for row in part])} for part in parts]


def _taken(batch: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The values of the given rows, images left out."""
    taken: dict[str, Any] = {}
    for name, value in batch.items():
        if name in IMAGE_FIELDS:
            continue
        if value is None or (torch.is_tensor(value) and value.ndim == 0):
            taken[name] = value
        else:
            taken[name] = value[list(rows)] if torch.is_tensor(value) else [value[row] for row in rows]
    return taken
