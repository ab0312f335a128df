"""The address of a request: the same for what is shown the same, another one for anything else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kepo.errors import DataError
from kepo.files import content_hash
from kepo.prompts import hint_request
from kepo.types import Conversation


def _picture(seed: int = 0, size: tuple[int, int] = (3, 2)) -> Image.Image:
    return Image.frombytes("RGB", size, bytes((seed + i) % 256 for i in range(size[0] * size[1] * 3)))


def _as_parts(conversation: Conversation) -> Conversation:
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in conversation]


def _with_image(image: Any, text: str = "What is it?") -> Conversation:
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]


PROMPT: Conversation = [{"role": "user", "content": "What is it?"}]


def test_the_address_is_a_hash_anyone_can_compute() -> None:
    expected = hashlib.sha256(b'[["user",["What is it?"]]]').hexdigest()
    assert content_hash(PROMPT) == expected
    image = {"size": [3, 2], "rgb": hashlib.sha256(bytes(range(18))).hexdigest()}
    shown = f'[["user",[{{"size":[3,2],"rgb":"{image["rgb"]}"}},"What is it?"]]]'
    assert content_hash(_with_image(_picture())) == hashlib.sha256(shown.encode()).hexdigest()


def test_text_has_one_address_as_string_as_parts_and_as_plain_prompt() -> None:
    asked = [hint_request(prompt, "A", ("MRI", "CT"), 1) for prompt in (PROMPT, _as_parts(PROMPT), "What is it?")]
    assert len({content_hash(request) for request in asked}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": [{"role": "user", "content": "What is it ?"}]},
        {"prompt": [{"role": "system", "content": "Be brief."}, *PROMPT]},
        {"prompt": [{"role": "system", "content": "What is it?"}]},
        {"answer": "B"},
        {"options": ("US", "CT")},
        {"level": 2},
    ],
)
def test_whatever_the_teacher_is_shown_is_in_the_address(change: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"prompt": PROMPT, "answer": "A", "options": ("MRI", "CT"), "level": 1}
    assert content_hash(hint_request(**asked)) != content_hash(hint_request(**{**asked, **change}))


def test_the_template_is_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_hash(hint_request(PROMPT, "A", (), 1))
    monkeypatch.setattr("kepo.prompts.HINT_LEVELS", ("a", "another wish", "c"))
    assert content_hash(hint_request(PROMPT, "A", (), 1)) != before


def test_an_image_is_its_pixels_however_it_comes(tmp_path: Path) -> None:
    picture = _picture()
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.bmp")
    addresses = {
        content_hash(_with_image(image))
        for image in (picture, picture.convert("RGBA"), tmp_path / "a.png", str(tmp_path / "b.bmp"))
    }
    assert len(addresses) == 1


def test_other_pixels_or_another_shape_are_another_address() -> None:
    same_bytes = [_picture(0, (3, 2)), _picture(0, (2, 3)), _picture(0, (6, 1)), _picture(1, (3, 2))]
    assert len({content_hash(_with_image(image)) for image in same_bytes}) == 4


def test_a_file_is_read_upright_as_training_reads_it(tmp_path: Path) -> None:
    picture = _picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right to see it upright
    picture.save(tmp_path / "lying.png", exif=exif)
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    assert content_hash(_with_image(tmp_path / "lying.png")) == content_hash(_with_image(upright))


def test_text_before_and_after_an_image_stays_apart() -> None:
    image = {"type": "image", "image": _picture()}
    before, after = {"type": "text", "text": "a"}, {"type": "text", "text": "b"}
    orders: list[list[Any]] = [[before, image, after], [before, after, image], [image, before, after]]
    assert len({content_hash([{"role": "user", "content": parts}]) for parts in orders}) == 3


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        content_hash(_with_image(tmp_path / "gone.png"))


def test_a_part_without_content_is_refused() -> None:
    with pytest.raises(DataError, match="'video'"):
        content_hash([{"role": "user", "content": [{"type": "video", "video": "x.mp4"}]}])


def test_text_that_no_encoding_can_hold_has_an_address() -> None:
    assert len(content_hash([{"role": "user", "content": "half a pair: \ud83d"}])) == 64
