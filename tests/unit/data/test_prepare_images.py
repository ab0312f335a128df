"""What an image shows, its resized copy, and work that is shared out over processes and not done twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from kepo.data.images import as_rgb
from kepo.data.prepare.images import HashedImage, content_of, hash_images, resized, write_images
from kepo.data.prepare.parallel import work_through
from kepo.data.prepare.settings import PrepareSettings
from kepo.data.sources import LazyImage
from kepo.errors import ConfigError, DataError

SMALL = PrepareSettings(size=8)


def save(path: Path, size: tuple[int, int] = (20, 10), mode: str = "RGB") -> Path:
    Image.effect_noise(size, 90).convert(mode).save(path)
    return path


@dataclass(frozen=True)
class FromArray:
    """An image that is no file, as a reader of arrays would give it."""

    name: str
    mode: str = "L"

    def load(self) -> Image.Image:
        if self.name == "bad":
            raise ValueError("the array ends early")
        return Image.new(self.mode, (4, 4), 7)


def squares(numbers: Sequence[int]) -> list[int]:
    return [number**2 for number in numbers]


def ending(numbers: Sequence[int]) -> list[int]:
    os._exit(1)


def test_the_same_picture_in_two_files_is_one(tmp_path: Path) -> None:
    grey = Image.effect_noise((6, 5), 60)
    names = [tmp_path / "a.png", tmp_path / "b.bmp", tmp_path / "c.tif", tmp_path / "d.png"]
    for name in names[:3]:
        grey.save(name)
    grey.convert("RGB").save(names[3])
    turned = tmp_path / "e.png"
    grey.transpose(Image.Transpose.ROTATE_90).save(turned)
    hashed = hash_images([*names, turned], tmp_path / "hashed", "")
    assert len({hashed[str(name)].content for name in names}) == 1
    assert hashed[str(turned)].content != hashed[str(names[0])].content


def test_size_counts_as_well_as_pixels() -> None:
    assert content_of(Image.new("L", (2, 8))) != content_of(Image.new("L", (4, 4)))


def test_images_that_cannot_be_used_are_told_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    short = save(tmp_path / "short.jpg", (40, 40))
    short.write_bytes(short.read_bytes()[:900])
    deep = tmp_path / "deep.png"
    Image.new("I;16", (4, 4), 3000).save(deep)
    huge = save(tmp_path / "huge.png", (90, 90))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 45 * 45)
    images = [tmp_path / "none.png", tmp_path, text, short, deep, huge, FromArray("bad"), FromArray("wide", "I")]
    hashed = hash_images(images, tmp_path / "hashed", "")
    assert all(one.content is None for one in hashed.values())
    assert [one.problem for one in hashed.values()] == [
        "does not exist",
        "does not exist",
        "is not an image that Pillow can read",
        "is truncated or damaged",
        "has more than 8 bits per channel",
        "is too large",
        "cannot be read from its file",
        "has more than 8 bits per channel",
    ]


def test_the_same_found_in_one_process_and_in_several(tmp_path: Path) -> None:
    images = [save(tmp_path / f"{number}.png") for number in range(70)] + [tmp_path / "none.png"]
    alone = hash_images(images, tmp_path / "one", "", workers=1)
    shared = hash_images(images, tmp_path / "two", "", workers=2)
    assert alone == shared
    wanted = {alone[str(image)].content or "": image for image in images[:70]}
    for workers, name in ((1, "alone"), (2, "shared")):
        write_images(wanted, tmp_path / name, SMALL, workers=workers)
    names = sorted(os.listdir(tmp_path / "alone"))
    assert names == sorted(f"{content}.png" for content in wanted)
    assert names == sorted(os.listdir(tmp_path / "shared"))
    assert all((tmp_path / "alone" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes() for name in names)


def test_what_was_hashed_is_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, changed, late = save(tmp_path / "a.png"), save(tmp_path / "b.png"), tmp_path / "c.png"
    lazy = FromArray("x")
    assert isinstance(lazy, LazyImage)
    record = tmp_path / "hashed"
    first = hash_images([kept, changed, late, lazy], record, "state")
    # As a run leaves it that was killed while it wrote.
    with record.open("a") as lines:
        lines.write('["half a li')
    save(changed)
    os.utime(changed, ns=(1, 1))
    save(late)
    opened: list[Path] = []
    real_open = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real_open(file))
    monkeypatch.setattr(FromArray, "load", lambda self: pytest.fail("it was known"))
    second = hash_images([kept, changed, late, lazy], record, "state")
    assert opened == [changed, late]
    assert second[str(kept)] == first[str(kept)]
    assert second["x"] == first["x"]
    assert second[str(late)].content
    assert len(record.read_text().splitlines()) == 5


def test_arrays_are_hashed_again_when_their_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hash_images([FromArray("x")], tmp_path / "hashed", "one")
    monkeypatch.setattr(FromArray, "load", lambda self: Image.new("L", (4, 4), 8))
    assert hash_images([FromArray("x")], tmp_path / "hashed", "two")["x"] == HashedImage(
        "x", content_of(Image.new("L", (4, 4), 8)), None
    )


def test_copies_are_those_of_a_plain_resize(tmp_path: Path) -> None:
    image = save(tmp_path / "a.jpg", (30, 20), "L")
    content = hash_images([image], tmp_path / "hashed", "")[str(image)].content or ""
    write_images({content: image}, tmp_path / "images", SMALL)
    with Image.open(image) as whole, Image.open(tmp_path / "images" / f"{content}.png") as copy:
        assert (copy.mode, copy.size) == ("RGB", (8, 8))
        assert copy.tobytes() == as_rgb(whole, 8).tobytes()


def test_an_image_that_lies_on_its_side_is_put_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    content = hash_images([tmp_path / "a.jpg"], tmp_path / "hashed", "")[str(tmp_path / "a.jpg")].content or ""
    write_images({content: tmp_path / "a.jpg"}, tmp_path / "images", PrepareSettings(size=None, longest_side=6))
    with Image.open(tmp_path / "images" / f"{content}.png") as copy:
        assert copy.size == (3, 6)


@pytest.mark.parametrize(
    ("size", "expected"), [((200, 100), (50, 25)), ((100, 200), (25, 50)), ((40, 20), (40, 20)), ((1000, 3), (50, 1))]
)
def test_longest_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized(Image.new("L", size), PrepareSettings(size=None, longest_side=50)).size == expected


def test_copies_are_made_once_and_others_are_removed(tmp_path: Path) -> None:
    one, two = save(tmp_path / "a.png"), save(tmp_path / "b.png")
    hashed = hash_images([one, two], tmp_path / "hashed", "")
    contents = [hashed[str(image)].content or "" for image in (one, two)]
    folder = tmp_path / "images"
    write_images({contents[0]: one}, folder, SMALL)
    (folder / ".half").write_bytes(b"a file that a killed process left")
    before = (folder / f"{contents[0]}.png").stat()
    write_images(dict(zip(contents, (one, two), strict=True)), folder, SMALL)
    assert (folder / f"{contents[0]}.png").stat().st_mtime_ns == before.st_mtime_ns
    write_images({contents[1]: two}, folder, SMALL)
    assert os.listdir(folder) == [f"{contents[1]}.png"]


def test_an_image_that_changes_meanwhile_is_an_error(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has changed while it was being prepared"):
        write_images({"0" * 32: image}, tmp_path / "images", SMALL)
    image.unlink()
    with pytest.raises(DataError, match=r"a\.png does not exist.*could be read a moment ago"):
        write_images({"0" * 32: image}, tmp_path / "images", SMALL)
    assert os.listdir(tmp_path / "images") == []


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = save(tmp_path / "a.png")
    content = hash_images([image], tmp_path / "hashed", "")[str(image)].content or ""

    def full(self: Image.Image, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match=r"cannot be written: .*No space left on device.*goes on from here"):
        write_images({content: image}, tmp_path / "images", SMALL)
    assert os.listdir(tmp_path / "images") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_work_is_done_once(workers: int) -> None:
    assert sorted(work_through(squares, range(200), workers, "", False)) == squares(range(200))
    assert list(work_through(squares, [], workers, "", False)) == []


def test_a_process_that_is_ended_from_outside() -> None:
    with pytest.raises(DataError, match=r"ended from outside.*--workers with a lower number"):
        list(work_through(ending, range(200), 2, "", False))
    with pytest.raises(ConfigError, match="workers is 0"):
        list(work_through(squares, range(200), 0, "", False))
