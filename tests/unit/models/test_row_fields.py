"""Image fields of a batch, cut into rows and joined again, in the layouts of the processors."""

from __future__ import annotations

import torch

from kepo.models.row_fields import first_equal, join_rows, split_rows


def test_one_entry_per_row() -> None:
    """Idefics 3: (B, images, 3, height, width), whatever the number of images."""
    fields = {"pixel_values": torch.arange(2 * 3).view(2, 3), "pixel_attention_mask": torch.tensor([[1], [0]])}
    rows = split_rows(fields, 2, num_images=[2, 1])
    assert rows[1]["pixel_values"].tolist() == [[3, 4, 5]]
    assert join_rows([rows[1], rows[0]])["pixel_attention_mask"].tolist() == [[0], [1]]


def test_one_entry_per_image() -> None:
    fields = {"pixel_values": torch.arange(3).view(3, 1), "image_sizes": torch.arange(6).view(3, 2)}
    rows = split_rows(fields, 3, num_images=[2, 0, 1])
    assert [row["pixel_values"].flatten().tolist() for row in rows] == [[0, 1], [], [2]]
    assert rows[2]["image_sizes"].tolist() == [[4, 5]]
    assert join_rows([rows[1]]) == {}


def test_patches_end_to_end() -> None:
    """Qwen-VL: images of 4 and 2 patches in the first row, of 1 in the second."""
    grid = torch.tensor([[1, 2, 2], [1, 1, 2], [1, 1, 1]])
    rows = split_rows({"pixel_values": torch.arange(7), "image_grid_thw": grid}, 2, num_images=[2, 1])
    assert rows[0]["pixel_values"].tolist() == [0, 1, 2, 3, 4, 5]
    assert rows[1]["pixel_values"].tolist() == [6]
    joined = join_rows([rows[1], rows[0]])
    assert joined["pixel_values"].tolist() == [6, 0, 1, 2, 3, 4, 5]
    assert joined["image_grid_thw"].tolist() == [[1, 1, 1], [1, 2, 2], [1, 1, 2]]


def test_tiles() -> None:
    """LFM2-VL and InternVL: every image is cut into tiles that lie end to end."""
    fields = {"pixel_values": torch.arange(3), "spatial_shapes": torch.arange(6).view(3, 2)}
    rows = split_rows(fields, 2, num_images=[1, 1], num_tiles=[2, 1])
    assert rows[0]["pixel_values"].tolist() == [0, 1]
    assert rows[1]["spatial_shapes"].tolist() == [[4, 5]]


def test_text() -> None:
    assert split_rows({"pixel_values": None}, 2) == [{}, {}]
    assert join_rows([{}, {}]) == {}
    assert first_equal([{}, {}]) == [0, 0]


def test_equal_images_are_found() -> None:
    """Images of one sum are told apart, too."""
    images = [{"pixel_values": torch.tensor(values)} for values in ([1.0, 2.0], [2.0, 1.0], [1.0, 2.0])]
    assert first_equal(images) == [0, 1, 0]
