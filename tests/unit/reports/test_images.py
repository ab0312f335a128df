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
    assert thumbnails.add(tmp_path / "a.png") == 0
    assert decoded(thumbnails.uris[0]).size == (192, 96)


def _two_files(folder: Path) -> list[Path]:
    files = [folder / "a.png", folder / "b.png"]
    for file in files:
        Image.new("RGB", (8, 8)).save(file)
    return files


def test_the_same_file_is_kept_once(tmp_path: Path) -> None:
    thumbnails, (first, second) = Thumbnails(), _two_files(tmp_path)
    assert [thumbnails.add(file) for file in (first, second, first)] == [0, 1, 0]
    assert len(thumbnails.uris) == 2


def test_beyond_the_budget_images_are_left_out_and_counted(tmp_path: Path) -> None:
    thumbnails = Thumbnails(budget=150)
    assert [thumbnails.add(file) for file in _two_files(tmp_path)] == [0, None]
    assert thumbnails.left_out == 1


@pytest.mark.parametrize("content", [None, b"", b"GIF89a", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_missing_or_broken_is_not_shown(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.png"
    if content is not None:
        file.write_bytes(content)
    assert Thumbnails().add(file) is None
