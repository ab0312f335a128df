"""Images of questions: where they may lie, what may be in them, and how they are checked before a run starts."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from kepo.errors import DataError
from kepo.types import Question

if TYPE_CHECKING:
    from PIL.Image import Image

Refuse: TypeAlias = Callable[[str, str, str], NoReturn]
"""Called with field, problem, and the problem without its value; raises the DataError of the row."""

# Pillow clips these to 0..255 when it converts to RGB, which turns most of a 12- or 16-bit scan white.
_MORE_THAN_8_BIT = ("I", "F")
# What Pillow's decoders raise on damaged files, besides what it documents.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, struct.error, zlib.error)
_SHOWN_FAILURES = 5
_BAR_FROM = 300


class ImageError(DataError):
    """An image that cannot be used; the text is the end of a sentence that begins with its name.

    Attributes:
        reason: What is wrong, without details, so that images can be counted by it.
    """

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
            DataError: it lies outside the folder: `..`, an absolute path, or a link that leads out; or no file can have
                that name.
        """
        try:
            return self._located(name)
        except (OSError, UnicodeError) as error:
            raise DataError(f"the image {name!r:.80} cannot be looked up: {error}") from error

    def _located(self, name: str) -> Path:
        if "\0" in name:
            raise OSError("the name holds a zero byte")
        path = self._resolved / name
        # A data set has many images in few folders, so only those are remembered.
        parent = self._folders.get(path.parent)
        if parent is None:
            parent = self._folders[path.parent] = path.parent.resolve()
        resolved = parent / path.name
        if path.name == ".." or resolved.is_symlink():
            resolved = resolved.resolve()
        if not resolved.is_relative_to(self._resolved):
            raise DataError(f"the image {name!r} lies outside the image root {self._resolved}; move it there")
        return resolved


def read_images(
    row: Mapping[str, Any], root: Path | ImageRoot | None, refuse: Refuse, keep_in: Path | None = None
) -> tuple[Any, ...]:
    """The images of a row, from `image` or `images`.

    An image is a path relative to `root`, a PIL image, or an encoded one: bytes, or `{"bytes": ..., "path": ...}` as
    data sets store it.

    Args:
        row: Column -> value.
        root: The folder that paths are relative to and may not leave; None where there are no paths.
        refuse: Raises the DataError of the row.
        keep_in: Folder that encoded images are written to, one file for each content; None: they become PIL images.

    Returns:
        Paths and PIL images.

    Raises:
        DataError: by `refuse`; a path leaves `root`, there is no `root`, or the bytes are no whole image.
    """
    fields = [field for field in ("image", "images") if row.get(field) is not None]
    if not fields:
        return ()
    if len(fields) == 2:
        refuse("image", "there is an 'images' column too; keep one of them", "there is an 'images' column too")
    field = fields[0]
    given = row[field]
    is_list = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    values = list(given) if is_list else [given]
    if isinstance(root, Path):
        root = ImageRoot(root)
    return tuple(_read_image(value, field, root, refuse, keep_in) for value in values)


def _read_image(value: Any, field: str, root: ImageRoot | None, refuse: Refuse, keep_in: Path | None) -> Any:
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes) and value:
        return _decoded_later(value, field, refuse) if keep_in is None else _kept(value, keep_in)
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


def _decoded_later(data: bytes, field: str, refuse: Refuse) -> Any:
    """The image, decoded once as a check and then only when it is used."""
    problem = _problem(io.BytesIO(data))
    if problem:
        refuse(field, f"the stored image {problem}", "the stored image cannot be decoded")
    from PIL import Image

    return Image.open(io.BytesIO(data))


def _kept(data: bytes, folder: Path) -> Path:
    """A file with this content, named by its hash, so that no name out of a table can lead anywhere."""
    file = folder.resolve() / hashlib.sha256(data).hexdigest()
    if not file.is_file() or file.stat().st_size != len(data):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_bytes(data)
        part.replace(file)
    return file


def check_images(questions: Sequence[Question], workers: int = 8) -> None:
    """Opens and fully decodes every image file once, so that a run does not end at the one that is broken.

    Args:
        questions: Their images that are paths are checked; decoded ones are taken as they are.
        workers: Threads.

    Raises:
        DataError: naming the questions and files that cannot be used, the first few of them.
    """
    used_by: dict[Path, str] = {}
    for question in questions:
        for image in question.images:
            if isinstance(image, str | Path):
                used_by.setdefault(Path(image), question.id)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        problems = list(_with_bar(pool.map(_problem, used_by), len(used_by)))
    failures = [
        f"question {used_by[path]!r}, field 'images': {path} {problem}"
        for path, problem in zip(used_by, problems, strict=True)
        if problem
    ]
    if failures:
        more = len(failures) - _SHOWN_FAILURES
        listed = failures[:_SHOWN_FAILURES] + ([f"and {more} more"] if more > 0 else [])
        raise DataError(f"{len(failures)} of {len(used_by)} images cannot be used:\n" + "\n".join(listed))


def _with_bar(results: Iterable[str | None], total: int) -> Iterable[str | None]:
    if total < _BAR_FROM:
        return results
    from rich.progress import track

    return track(results, total=total, description="Checking images")


def _problem(file: Path | io.BytesIO) -> str | None:
    """What is wrong with an image, as the end of a sentence; None if it decodes."""
    try:
        decoded(file)
    except ImageError as error:
        return str(error)
    return None


def decoded(file: Path | io.BytesIO) -> Image:
    """The first frame of an image file, decoded whole, and upright where its EXIF data says that it lies.

    Raises:
        ImageError: it is missing, no image, too large, damaged, or has more than 8 bits per channel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(file, Path) and not _is_file(file):
        raise ImageError("does not exist", "; put the file there or correct the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError as error:
        raise ImageError("is not an image that Pillow can read", "; replace it") from error
    except Image.DecompressionBombError as error:
        raise ImageError("is too large", f": {error}") from error
    except PermissionError as error:
        raise ImageError("may not be read", f" ({error}); change its permissions") from error
    except _DAMAGED as error:
        raise ImageError("is truncated or damaged", f" ({error}); fetch it again") from error
    return shallow(image)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A folder that may not be entered, or a name that is too long.
        return False


def shallow(image: Image) -> Image:
    """`image` itself, if it has at most 8 bits per channel.

    Raises:
        ImageError: it has more.
    """
    if image.mode.startswith(_MORE_THAN_8_BIT):
        raise ImageError(
            "has more than 8 bits per channel",
            f" (mode {image.mode}); scale it to 8 bits first, so that nothing is clipped",
        )
    return image


def as_rgb(image: Image, size: int | None = None) -> Image:
    """`image` in RGB, and resized to (size, size) with the bicubic filter unless `size` is None."""
    from PIL.Image import Resampling

    if image.mode != "RGB":
        image = image.convert("RGB")
    return image if size is None or image.size == (size, size) else image.resize((size, size), Resampling.BICUBIC)
