"""A generation batch in micro-batches of whole groups."""

from __future__ import annotations

import torch

from kepo.trainer.adapter.micro_batches import whole_group_batches


def test_rows_keep_what_is_theirs_and_groups_stay_together() -> None:
    """Six rows of three groups, images of the first row of each pair only, in two micro-batches of three rows."""
    torch.manual_seed(0)
    batch = {
        "completion_ids": torch.arange(6).view(6, 1),
        "advantages": torch.arange(6.0),
        "teacher_scores": list("abcdef"),
        "num_images": [1, 0, 1, 0, 1, 0],
        "pixel_values": torch.tensor([[0.0], [2.0], [4.0]]),
        "gate_total": torch.tensor(9.0),
        "num_tiles": None,
    }
    parts = whole_group_batches(batch, 2, 2, 0)
    order = torch.cat([part["completion_ids"] for part in parts]).flatten().tolist()
    assert sorted(order) == list(range(6))
    assert all(order[place + 1] == order[place] + 1 for place in (0, 2, 4))
    for part in parts:
        rows = part["completion_ids"].flatten().tolist()
        assert part["advantages"].tolist() == rows
        assert part["teacher_scores"] == ["abcdef"[row] for row in rows]
        assert part["num_images"] == [1 - row % 2 for row in rows]
        shown = [float(row) for row in rows if row % 2 == 0]
        assert part["pixel_values"].flatten().tolist() == shown
        assert part["gate_total"] == 9.0
        assert part["num_tiles"] is None


def test_a_group_that_begins_on_another_process_is_a_group_here() -> None:
    """The first row of this process is the last of the group before."""
    parts = whole_group_batches({"completion_ids": torch.arange(4).view(4, 1)}, 1, 3, first_row=2)
    order = parts[0]["completion_ids"].flatten().tolist()
    assert order in ([0, 1, 2, 3], [1, 2, 3, 0])
