"""What questions show, as hashes, so that questions that a model was trained on are found among those of a test.

Two questions are the same when text, options and images are: case, spaces and the order of the options do not count,
nor do ids, paths and lossless file formats. Images are compared before `image_size` resizes them. A file that was
resized or compressed again has other pixels; it is looked for by a thumbnail, which can only say "alike". Paraphrases,
crops and other near-equal images are not found.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kepo.data.images import ImageError, opened
from kepo.errors import DataError
from kepo.files import image_hash
from kepo.types import Content, Question

if TYPE_CHECKING:
    import numpy as np

_LENGTH = 32  # hexadecimal digits that are kept of a hash
_SIDE = 16  # pixels of a thumbnail
ALIKE = 1.0
"""Mean difference of two thumbnails, in grey levels of 0..255, up to which images count as alike.

A JPEG copy, or one of another size, of a photograph or scan differs by less; two images of a data set by more.
"""


class _Shown(NamedTuple):
    """What one image shows."""

    pixels: str  # hash
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Overlap:
    """The questions that were trained on, by id."""

    asked: int  # how many questions were compared
    same: tuple[str, ...] = ()  # with the same text, options and images
    alike: tuple[str, ...] = ()  # with the same text and options, and images that look alike
    image: tuple[str, ...] = ()  # with an image that was trained on, but another text or other options

    def __bool__(self) -> bool:
        return bool(self.same or self.alike or self.image)


def contents_of(questions: Iterable[Question], workers: int = 8, *, strict: bool = True) -> list[Content]:
    """What each question shows, in order.

    Args:
        questions: Their images may be paths or PIL images.
        workers: Threads that decode image files; every file is decoded once.
        strict: False: a file that cannot be decoded stands for itself, by its path.

    Raises:
        DataError: An image file cannot be decoded.
    """
    # One pass, so that a decoded image can be forgotten before the next one is made.
    keys, held = [], list[list[Path | _Shown]]()
    for one in questions:
        keys.append(text_key(one.text, one.options))
        held.append([Path(image) if isinstance(image, str | Path) else _shown(image) for image in one.images])
    files = list(dict.fromkeys(image for images in held for image in images if isinstance(image, Path)))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        of_file = dict(zip(files, pool.map(partial(_shown_in, strict=strict), files), strict=True))
    shown = [[of_file[image] if isinstance(image, Path) else image for image in images] for images in held]
    return [
        Content(key, tuple(one.pixels for one in images), tuple(one.thumbnail for one in images))
        for key, images in zip(keys, shown, strict=True)
    ]


def text_key(text: str, options: Collection[str] = ()) -> str:
    """Hash of a question and its options, without case, spaces and the order of the options.

    Args:
        text: The question.
        options: Texts of its options, in any order; empty for an open question.
    """
    shown = json.dumps([normalized(text), sorted(map(normalized, options))])
    return hashlib.sha256(shown.encode()).hexdigest()[:_LENGTH]


def normalized(text: str) -> str:
    """`text` without image tags and differences of case, of spaces (also before a stop) and of full- and half-width."""
    folded = unicodedata.normalize("NFKC", text.replace("<image>", " ")).casefold()
    return re.sub(r"\s+(?=[?!.,;:])", "", " ".join(folded.split()))


def overlap(questions: Sequence[Question], trained_on: Collection[Content]) -> Overlap:
    """Which of the questions are among those that were trained on.

    Args:
        questions: To be asked.
        trained_on: `contents_of` the training questions.
    """
    known, images, seen = set(), set[str](), _Thumbnails(trained_on)
    for one in trained_on:
        known.add((one.text, *sorted(one.images)))
        images.update(one.images)
    found: dict[str, list[str]] = {"same": [], "alike": [], "image": []}
    for question, shown in zip(questions, contents_of(questions), strict=True):
        if (shown.text, *sorted(shown.images)) in known:
            found["same"].append(question.id)
        elif shown.images and seen.has_alike(shown):
            found["alike"].append(question.id)
        elif not images.isdisjoint(shown.images):
            found["image"].append(question.id)
    return Overlap(len(questions), **{name: tuple(ids) for name, ids in found.items()})


class _Thumbnails:
    """The thumbnails of questions with images, by text and number of images."""

    def __init__(self, contents: Iterable[Content]) -> None:
        import numpy as np

        held: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
        for one in contents:
            if one.images:
                held[one.text, len(one.images)].append(_pixels(one))
        self._stacked = {key: np.stack(rows) for key, rows in held.items()}  # (rows, images, pixels)

    def has_alike(self, shown: Content) -> bool:
        """Whether a question has the same text and options, and images each of which is alike."""
        import numpy as np

        rows = self._stacked.get((shown.text, len(shown.images)))
        if rows is None:
            return False
        return bool((np.abs(rows - _pixels(shown)).mean(axis=2) <= ALIKE).all(axis=1).any())


def _pixels(shown: Content) -> np.ndarray:
    import numpy as np

    return np.stack([np.frombuffer(one, dtype=np.uint8) for one in shown.thumbnails]).astype(np.int16)


def _shown_in(file: Path, strict: bool) -> _Shown:
    try:
        return _shown(file)
    except ImageError as error:
        if not strict:
            return _Shown(str(file), b"")
        raise DataError(f"the image {file} {error}") from error


def _shown(image: Any) -> _Shown:
    from PIL.Image import Resampling

    rgb = opened(image)
    small = rgb.convert("L").resize((_SIDE, _SIDE), Resampling.BICUBIC)
    return _Shown(image_hash(rgb)[:_LENGTH], small.tobytes())
