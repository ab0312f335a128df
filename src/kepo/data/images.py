"""Images of questions: where they may lie, what may be in them, and how they are checked before a run starts."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from kepo.data.sources import is_empty, shortened
from kepo.errors import DataError
from kepo.files import as_shown, replacing
from kepo.types import Question

if TYPE_CHECKING:
    from PIL.Image import Image

Refuse: TypeAlias = Callable[[str, str, str], NoReturn]
"""Called with field, problem, and the problem without its value; raises the DataError of the row."""

# Pillow clips the pixels of modes I and F to 0..255 when it converts to RGB, which turns most of a 12- or 16-bit scan
# white. Of colour images with 16 bits per channel it keeps the high byte, so a dark scan becomes black.
_DEEP = re.compile(r"[IF]|(?:LA|RGB[AXa]?|CMYK);16")
# What Pillow's decoders raise on damaged files, besides what it documents.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, struct.error, zlib.error)
# How base64 texts of JPEG, PNG, GIF and WebP begin; no path begins so by chance.
_BASE64_STARTS = ("data:image", "/9j/4", "iVBORw0KGgo", "R0lGODlh", "UklGR")
_SHOWN_FAILURES, _BAR_FROM = 5, 300
_FRAMES = "kepo_frames"  # in the `info` of an image

logger = logging.getLogger(__name__)


class ImageError(DataError):
    """An image that cannot be used; the text follows its name, `reason` is what is wrong without details."""

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(reason + details)
        self.reason = reason


class ImageRoot:
    """The folder that image paths are relative to, and that none may leave."""

    def __init__(self, folder: Path) -> None:
        self._resolved = folder.resolve()
        self._folders: dict[Path, Path] = {}

    def locate(self, name: str) -> Path:
        """The absolute path of the image `name`, links followed.

        Raises:
            DataError: it lies outside the folder (by `..`, an absolute path or a link), or no file can have that name.
        """
        path = self._resolved / name
        try:
            if "\0" in name:
                raise OSError("the name holds a zero byte")
            # A data set has many images in few folders, so only those are remembered.
            parent = self._folders.get(path.parent)
            if parent is None:
                parent = self._folders[path.parent] = path.parent.resolve()
            resolved = parent / path.name
            if path.name == ".." or resolved.is_symlink():
                resolved = resolved.resolve()
        except (OSError, UnicodeError) as error:
            raise DataError(f"the image {name!r:.80} cannot be looked up: {error}") from error
        if not resolved.is_relative_to(self._resolved):
            raise DataError(f"the image {name!r} lies outside the image root {self._resolved}; move it there")
        return resolved


def read_images(
    row: Mapping[str, Any], root: ImageRoot | None, refuse: Refuse, keep_in: Path | None = None
) -> tuple[Any, ...]:
    """The images of a row, from `image` or `images`, as paths and PIL images.

    Args:
        row: Column -> value: a path relative to `root`, a PIL image, encoded bytes, or `{"bytes": ..., "path": ...}` as
            data sets store it, or a list of these.
        root: The folder that paths may not leave; None where there are no paths.
        refuse: Raises the DataError of the row.
        keep_in: Folder that encoded images are written to, one file for each content; None: they become PIL images.
    """
    fields = [field for field in ("image", "images") if not is_empty(row.get(field))]
    if not fields:
        return ()
    if len(fields) == 2:
        refuse("image", "there is an 'images' column too; keep one of them", "there is an 'images' column too")
    given = row[fields[0]]
    is_list = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    return tuple(_read_image(value, fields[0], root, refuse, keep_in) for value in (given if is_list else [given]))


def _read_image(value: Any, field: str, root: ImageRoot | None, refuse: Refuse, keep_in: Path | None) -> Any:
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes) and value:
        if keep_in is not None:
            return _kept(value, keep_in)
        try:
            return as_rgb(decoded(io.BytesIO(value)))
        except ImageError as error:
            refuse(field, f"the stored image {error}", f"the stored image {error.reason}")
    if isinstance(value, str) and value.lstrip().startswith(_BASE64_STARTS):
        reason = "is an image as base64 text, not a path"
        refuse(field, f"{shortened(value, 40)!r} {reason}; use a preset that reads such (vlmevalkit)", reason)
    if isinstance(value, str | Path) and str(value).strip():
        if root is None:
            reason = "is a path, but no image root was given"
            refuse(field, f"{str(value)!r} {reason} to look it up in; set image_root", reason)
        try:
            return root.locate(str(value).strip())
        except DataError as error:
            outside = error.__cause__ is None
            refuse(field, str(error), "lies outside the image root" if outside else "is no name that a file can have")
    if not (hasattr(value, "convert") and hasattr(value, "size")):
        problem = f"{value!r:.80} is not an image; give a path, a PIL image, or a record of bytes and path"
        refuse(field, problem, "is not an image")
    return value


def _kept(data: bytes, folder: Path) -> Path:
    """A file with this content, named by its hash, so that no name out of a table can lead anywhere."""
    file = folder.resolve() / hashlib.sha256(data).hexdigest()
    if not file.is_file() or file.stat().st_size != len(data):
        with replacing(file) as partial:
            partial.write_bytes(data)
    return file


def check_images(questions: Sequence[Question], workers: int = 8) -> None:
    """Fully decodes every image file once in `workers` threads, so that a run does not end at a broken one.

    Files of several frames are said: a model is shown the first one.

    Args:
        questions: Their images may be paths; decoded ones are not looked at.
        workers: Threads, >= 1.

    Raises:
        DataError: naming the questions and files that cannot be used, the first few of them.
    """
    from rich.progress import track

    used_by: dict[Path, str] = {}
    for question in questions:
        for image in question.images:
            if isinstance(image, str | Path):
                used_by.setdefault(Path(image), question.id)
    few = len(used_by) < _BAR_FROM
    with ThreadPoolExecutor(max_workers=workers) as pool:
        looked_at = pool.map(_looked_at, used_by)
        checked = list(zip(used_by, track(looked_at, "Checking images", len(used_by), disable=few), strict=True))
    failures = [f"question {used_by[path]!r}, field 'images': {path} {found}" for path, found in checked if found.error]
    if failures:
        more = len(failures) - _SHOWN_FAILURES
        listed = "\n".join([*failures[:_SHOWN_FAILURES], *([f"and {more} more"] if more > 0 else [])])
        raise DataError(f"{len(failures)} of {len(used_by)} images cannot be used:\n{listed}")
    if said := several_frames({str(path): found.frames for path, found in checked}):
        logger.warning("%s", said)


def several_frames(frames_of: Mapping[str, int]) -> str | None:
    """A sentence about the images, name -> number of frames, that have more than one; None where none has."""
    several = {name: frames for name, frames in frames_of.items() if frames > 1}
    if not several:
        return None
    name, frames = next(iter(several.items()))
    return f"Images with several frames, of which only the first is shown: {len(several)}; {name} has {frames}."


class _LookedAt(NamedTuple):
    """What is wrong with an image, as the end of a sentence, or how many frames it has."""

    error: str | None
    frames: int = 1

    def __str__(self) -> str:
        return str(self.error)


def _looked_at(file: Path) -> _LookedAt:
    try:
        return _LookedAt(None, frames_of(decoded(file)))
    except ImageError as error:
        return _LookedAt(str(error))


def frames_of(image: Image) -> int:
    """How many frames the file of an image that `decoded` returned has."""
    return int(image.info.get(_FRAMES, 1))


def decoded(file: Path | io.BytesIO) -> Image:
    """The first frame of an image file, decoded whole and turned as its EXIF data says; else an ImageError.

    `frames_of` tells how many frames there are.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    # False also for a folder that may not be entered and a name that is too long.
    if isinstance(file, Path) and not os.path.isfile(file):
        raise ImageError("does not exist", "; put the file there or correct the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                deep = _is_deep(image)
                # Cameras put a preview into a second frame (MPO).
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                image.info[_FRAMES] = frames
    except UnidentifiedImageError as error:
        raise ImageError("is not an image that Pillow can read", "; replace it") from error
    except Image.DecompressionBombError as error:
        raise ImageError("is too large", f": {error}") from error
    except PermissionError as error:
        raise ImageError("may not be read", f" ({error}); change its permissions") from error
    except _DAMAGED as error:
        raise ImageError("is truncated or damaged", f" ({error}); fetch it again") from error
    return image if deep is None else _refuse_deep(deep)


def _is_deep(image: Image) -> str | None:
    """How the pixels of a file that is not decoded yet are packed, if in more than 8 bits per channel; else None.

    Decoded, a colour image does not tell any more.
    """
    packed = (str(_raw_mode(tile)) for tile in getattr(image, "tile", ()))
    return next((mode for mode in (image.mode, *packed) if _DEEP.match(mode)), None)


def _refuse_deep(mode: str) -> NoReturn:
    advice = f" (mode {mode}); scale it to 8 bits first, so that nothing is clipped"
    raise ImageError("has more than 8 bits per channel", advice)


def _raw_mode(tile: Any) -> Any:
    """How the bytes of a part of an image file are packed, such as "RGB;16B"."""
    args = tile[3] if len(tile) > 3 else None
    return args[0] if isinstance(args, tuple) and args else args


def shallow(image: Image) -> Image:
    """`image` itself; an ImageError if it has more than 8 bits per channel."""
    return _refuse_deep(image.mode) if _DEEP.match(image.mode) else image


def as_rgb(image: Image, size: int | None = None) -> Image:
    """`image` as a model is shown it (`kepo.files.as_shown`), resized to (size, size), bicubic, unless that is None.

    Raises:
        ImageError: it has more than 8 bits per channel.
    """
    from PIL.Image import Resampling

    image = as_shown(shallow(image))
    return image if size is None or image.size == (size, size) else image.resize((size, size), Resampling.BICUBIC)


def opened(image: Any, size: int | None = None) -> Image:
    """The image of a question, a file or a PIL image, as `as_rgb` gives it; the one way in which images are read.

    Raises:
        ImageError: it cannot be used.
    """
    return as_rgb(decoded(Path(image)) if isinstance(image, str | Path) else image, size)


def has_transparency(images: Iterable[Any]) -> bool:
    """Whether any of these files has transparent pixels, or could; only their headers are read.

    Raises:
        ImageError: a file has more than 8 bits per channel, which whoever decodes it later may clip without a word.
    """
    from PIL import Image

    found = False
    for file in dict.fromkeys(str(one) for one in images if isinstance(one, str | Path)):
        try:
            with Image.open(file) as image:
                deep, found = _is_deep(image), found or image.has_transparency_data
        except (*_DAMAGED, Image.DecompressionBombError):
            continue  # whoever shows it says what is wrong with it
        if deep is not None:
            raise ImageError(
                f"the image {file} has more than 8 bits per channel", f" (mode {deep}); scale it to 8 bits first"
            )
    return found
