"""Images that cannot be used are found before a run starts, and every image is read in one way."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kepo.data import check_images, to_dataset
from kepo.data.images import ImageError, as_rgb, decoded, frames_of, opened
from kepo.data.readers.questions import load_dataset_folder
from kepo.data.schema import Place, question_from_row
from kepo.errors import DataError
from kepo.evaluation.asking import OrderedQuestion, conversations
from kepo.evaluation.settings import EvaluationSettings
from kepo.files import content_hash, image_hash
from kepo.types import Question


def question(name: str, *images: object) -> Question:
    return Question(id=name, text="?", answer="x", images=images)


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 40)) -> Path:
    Image.effect_noise(size, 90).convert(mode).save(path)
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.jpg", "L"), ("b.png", "RGBA"), ("b.gif", "P")])
def test_good_images_pass(tmp_path: Path, name: str, mode: str) -> None:
    check_images([question("q", save(tmp_path / name, mode)), question("r", Image.new("L", (2, 2))), question("s")])


def test_broken_images_are_named_with_their_question(tmp_path: Path) -> None:
    good = save(tmp_path / "good.png")
    truncated = {}
    for suffix in ("png", "jpg"):
        truncated[suffix] = save(tmp_path / f"short.{suffix}")
        data = truncated[suffix].read_bytes()
        truncated[suffix].write_bytes(data[: len(data) // 2])
    text = tmp_path / "text.png"
    text.write_text("no image")
    for bad, says in [
        (tmp_path / "none.png", r"does not exist; put the file there"),
        (tmp_path, r"does not exist"),
        (text, "is not an image that Pillow can read"),
        (truncated["png"], "is truncated or damaged .*; fetch it again"),
        (truncated["jpg"], "is truncated or damaged"),
    ]:
        with pytest.raises(DataError, match=rf"1 of 2 images .*:\nquestion 'q2', field 'images': {bad} {says}"):
            check_images([question("q1", good), question("q2", good, bad), question("q3", bad)])


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_images_would_be_clipped_and_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "deep.tif"
    Image.new(mode, (4, 4), 3000).save(path)
    with pytest.raises(DataError, match=r"has more than 8 bits per channel .*; scale it to 8 bits"):
        check_images([question("q", path)])


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="is too large"):
        check_images([question("q", path)])


def test_only_the_first_failures_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        check_images([question(f"q{n}", tmp_path / f"{n}.png") for n in range(7)])
    lines = str(error.value).splitlines()
    assert lines[0] == "7 of 7 images cannot be used:"
    assert len(lines) == 7
    assert lines[-1] == "and 2 more"


def test_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png")
    opened: list[Path] = []
    real_open = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real_open(file))
    check_images([question("q", path), question("r", str(path), path)])
    assert opened == [path]


def test_many_images_show_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = save(tmp_path / "a.png", size=(2, 2))
    check_images([question("q", few)])
    assert capsys.readouterr().out == ""
    paths = [tmp_path / f"{n}.png" for n in range(300)]
    for path in paths:
        path.write_bytes(few.read_bytes())
    check_images([question("q", *paths)])
    assert "Checking images" in capsys.readouterr().out


def test_as_rgb() -> None:
    grey = Image.new("L", (6, 4), 100)
    assert as_rgb(grey).mode == "RGB"
    assert as_rgb(grey).size == (6, 4)
    assert as_rgb(grey, 3).size == (3, 3)
    assert as_rgb(grey, 3).getpixel((1, 1)) == (100, 100, 100)


def deep_png(path: Path, kind: int, channels: int) -> Path:
    """A PNG of 16 bits per channel, dark as a 12-bit scan is; `kind` is PNG's number of the colour type."""
    row = b"\0" + struct.pack(f">{channels}H", *[4000] * channels) * 8

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_images_of_16_bits_are_refused_whatever_their_colours(tmp_path: Path, kind: int, channels: int) -> None:
    path = deep_png(tmp_path / "deep.png", kind, channels)
    with pytest.raises(DataError, match="has more than 8 bits per channel"):
        check_images([question("q", path)])
    with pytest.raises(DataError, match="the stored image has more than 8 bits per channel"):
        question_from_row({"question": "?", "answer": "x", "image": path.read_bytes()}, Place("a.parquet", 1), None)
    with pytest.raises(ImageError, match="more than 8 bits"):
        opened(path)
    with pytest.raises(ImageError, match=r"deep\.png has more than 8 bits per channel"):
        to_dataset([question("q", path)], "plain")


def test_bitmaps_of_16_bits_per_pixel_are_no_deep_images(tmp_path: Path) -> None:
    # 5, 6 and 5 bits per channel, which Pillow reads and does not write.
    pixels = struct.pack("<4H", *[0xF800] * 4)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, len(pixels), 0, 0, 0, 0) + struct.pack(
        "<3I", 0xF800, 0x7E0, 0x1F
    )
    file = tmp_path / "a.bmp"
    file.write_bytes(
        b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels
    )
    assert opened(file).getpixel((0, 0)) == (255, 0, 0)


def drawing(mode: str) -> Image.Image:
    """A black bar on a transparent ground."""
    image = Image.new("RGBA", (64, 32), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((10, 10, 30, 20), fill=(0, 0, 0, 255))
    if mode != "P":
        return image.convert(mode)
    palette = image.convert("RGB").convert("P")
    palette.paste(1, (0, 0, 64, 32))
    palette.paste(0, (10, 10, 31, 21))
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.info["transparency"] = 1
    return palette


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_ground_is_white_wherever_the_image_comes_from(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "drawing.png"
    drawing(mode).save(path)
    expected = np.full((32, 64, 3), 255, dtype=np.uint8)
    expected[10:21, 10:31] = 0
    stored = question_from_row(
        {"question": "?", "answer": "x", "image": path.read_bytes()}, Place("a.parquet", 1), None
    )
    to_dataset([question("q", path)], "plain").with_format(None).save_to_disk(tmp_path / "saved")
    [saved] = load_dataset_folder(tmp_path / "saved", image_root=tmp_path)
    for one in (question("a", path), question("b", drawing(mode)), stored, saved):
        shown = to_dataset([one], "plain")[0]["images"][0]
        [[message]] = conversations([OrderedQuestion(one, 0)], EvaluationSettings(prompt_style="plain"))
        asked = message["content"][0]["image"]
        assert (np.asarray(shown) == expected).all()
        assert (np.asarray(asked) == expected).all()
        assert content_hash([{"role": "user", "content": [{"type": "image", "image": one.images[0]}]}]) == content_hash(
            [{"role": "user", "content": [{"type": "image", "image": shown}]}]
        )
        assert image_hash(shown) == image_hash(decoded(path))


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    assert as_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


def test_images_are_upright_wherever_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((64, 32)).save(path, exif=exif)
    stored = question_from_row(
        {"question": "?", "answer": "x", "image": path.read_bytes()}, Place("a.parquet", 1), None
    )
    by_path = np.asarray(to_dataset([question("a", path)], "plain")[0]["images"][0])
    assert by_path.shape == (64, 32, 3)
    for one in (stored, question("b", Image.open(path)), question("c", Image.open(io.BytesIO(path.read_bytes())))):
        assert (np.asarray(to_dataset([one], "plain")[0]["images"][0]) == by_path).all()
        [[message]] = conversations([OrderedQuestion(one, 0)], EvaluationSettings(prompt_style="plain"))
        assert (np.asarray(message["content"][0]["image"]) == by_path).all()


def test_several_frames_are_said_and_the_first_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.tif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert frames_of(decoded(tmp_path / name)) == 3
        assert opened(tmp_path / name).getpixel((0, 0)) == (255, 0, 0)
    with caplog.at_level(logging.WARNING):
        check_images([question("q", save(tmp_path / "one.png"), tmp_path / "a.gif")])
    assert "Images with several frames, of which only the first is shown: 1;" in caplog.text
    assert "a.gif has 3" in caplog.text
    caplog.clear()
    check_images([question("q", tmp_path / "one.png")])
    assert not caplog.text
