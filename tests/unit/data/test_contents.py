"""A question is known again by what it shows, and others are not taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kepo.data.contents import contents_of, overlap, text_key
from kepo.data.split import split_disjoint
from kepo.errors import DataError
from kepo.types import Question

OPTIONS = ("cyst", "Naevus", "no finding")


def photograph(seed: int, size: int = 128) -> Image.Image:
    """A smooth image, as photographs and scans are."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def saved(image: Image.Image, file: Path) -> Path:
    image.save(file)
    return file


@pytest.fixture
def asked(tmp_path: Path) -> Question:
    file = saved(photograph(0), tmp_path / "a.png")
    return Question("q1", "Which lesion is shown?", "A", OPTIONS, images=(file,))


@pytest.mark.parametrize(
    "text",
    ["which  lesion is shown?", " Which lesion\nis shown ?", "WHICH LESION IS SHOWN?", "<image>Which lesion is shown?"],
)
def test_case_spaces_and_image_tags_make_no_other_question(text: str, asked: Question) -> None:
    assert overlap([replace(asked, id="t", text=text)], contents_of([asked])).same == ("t",)


def test_order_of_options_path_and_lossless_format_make_no_other_question(asked: Question, tmp_path: Path) -> None:
    shuffled = replace(asked, id="t", options=("no finding", "CYST", "naevus"), answer="B")
    others = [saved(photograph(0), tmp_path / f"copy.{kind}") for kind in ("bmp", "tiff", "png")]
    for image in (*others, str(others[0]), photograph(0)):
        assert overlap([replace(shuffled, images=(image,))], contents_of([asked])).same == ("t",)


@pytest.mark.parametrize("change", ["text", "options", "image", "no image", "one more image"])
def test_another_text_option_or_image_is_another_question(change: str, asked: Question) -> None:
    other = {
        "text": replace(asked, text="Which lesion is not shown?"),
        "options": replace(asked, options=("cyst", "naevus", "carcinoma")),
        "image": replace(asked, images=(photograph(1),)),
        "no image": replace(asked, images=()),
        "one more image": replace(asked, images=(*asked.images, photograph(1))),
    }[change]
    found = overlap([other], contents_of([asked]))
    assert not found.same
    assert not found.alike
    # That an image was trained on is said all the same.
    assert bool(found.image) == (change in ("text", "options", "one more image"))


def test_a_resized_or_compressed_copy_is_alike_and_another_image_is_not(asked: Question, tmp_path: Path) -> None:
    compressed = tmp_path / "copy.jpg"
    photograph(0).save(compressed, quality=80)
    for copy in (compressed, photograph(0).resize((64, 64)), photograph(0).resize((200, 150))):
        found = overlap([replace(asked, id="t", images=(copy,))], contents_of([asked]))
        assert (found.same, found.alike) == ((), ("t",))
    assert not overlap([replace(asked, images=(photograph(1),))], contents_of([asked]))


def test_text_only_questions_are_compared_by_their_text_and_options() -> None:
    known = contents_of([Question("a", "What is 1 12?", "x"), Question("b", "True?", "A", ("yes", "no"))])
    asked = [
        Question("same", "what is 1 12?", "y"),
        Question("other numbers", "What is 11 2?", "x"),
        Question("other options", "True?", "A", ("yes", "no", "unknown")),
        Question("shuffled", "true ?", "B", ("No", "Yes")),
    ]
    assert overlap(asked, known).same == ("same", "shuffled")


def test_full_width_letters_are_letters() -> None:
    assert text_key("ＣＴ？") == text_key("ct?")


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png is not an image"):
        contents_of([Question("a", "?", "x", images=(broken,))])


def test_a_split_keeps_copies_of_an_image_together_whatever_their_paths(tmp_path: Path) -> None:
    questions = [
        Question(f"{copy}{n}", f"Question {n} {copy}", "x", images=(saved(photograph(n), tmp_path / f"{copy}{n}.png"),))
        for n in range(8)
        for copy in ("one", "two")
    ]
    for seed in range(4):
        train, held_out = split_disjoint(questions, None, 6, seed)
        assert not {one.id[3:] for one in train} & {one.id[3:] for one in held_out}


def test_a_split_keeps_texts_together_that_read_the_same() -> None:
    pairs = [(f"What is {n} + 1?", f"what is  {n} + 1 ?") for n in range(8)]
    questions = [Question(f"{n}{i}", text, "x") for n, pair in enumerate(pairs) for i, text in enumerate(pair)]
    for seed in range(4):
        train, held_out = split_disjoint(questions, None, 6, seed)
        assert not {one.id[0] for one in train} & {one.id[0] for one in held_out}
