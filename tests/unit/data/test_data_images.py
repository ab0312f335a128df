"""Images that cannot be used are found before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from kepo.data import check_images
from kepo.data.images import as_rgb
from kepo.errors import DataError
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
