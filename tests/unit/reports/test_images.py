"""Thumbnails: small, once each, and never an error."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from kepo.reports.images import Thumbnails


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_a_large_image_is_made_small_and_keeps_its_shape(tmp_path: Path) -> None:
    Image.new("RGB", (800, 400)).save(tmp_path / "a.png")
    thumbnails = Thumbnails()
    assert thumbnails.add(tmp_path / "a.png", "a") == 0
    assert decoded(thumbnails.uris[0]).size == (192, 96)


def test_an_image_in_memory_is_not_changed() -> None:
    image = Image.new("RGB", (800, 400))
    Thumbnails().add(image, "a")
    assert image.size == (800, 400)


def test_the_same_image_is_kept_once() -> None:
    thumbnails = Thumbnails()
    assert [thumbnails.add(Image.new("RGB", (8, 8)), key) for key in ("a", "b", "a")] == [0, 1, 0]
    assert len(thumbnails.uris) == 2


def test_beyond_the_budget_images_are_left_out_and_counted() -> None:
    thumbnails = Thumbnails(budget=150)
    assert [thumbnails.add(Image.new("RGB", (8, 8)), key) for key in ("a", "b")] == [0, None]
    assert thumbnails.left_out == 1


@pytest.mark.parametrize("content", [None, b"", b"GIF89a", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_missing_or_broken_is_not_shown(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.png"
    if content is not None:
        file.write_bytes(content)
    assert Thumbnails().add(file, "a") is None
