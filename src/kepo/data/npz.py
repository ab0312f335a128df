"""Images inside NumPy archives (`.npz`): unpacked to disk once, then read one at a time.

The member of a compressed archive can only be read from its start, and the largest published ones hold more than ten
gigabytes. So a member is unpacked to a file of its own and mapped into memory: any image can be read at any time, by
any process, and what is in memory is that image alone. The price is disk space of the array's plain size.
"""

from __future__ import annotations

import math
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kepo.errors import DataError
from kepo.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

_BAR_FROM_BYTES = 200 * 2**20


@dataclass(frozen=True, slots=True)
class ArrayImage:
    """One image of an array on disk.

    Attributes:
        name: Unique in its source.
        file: The unpacked `.npy` file.
        offset: Where the image begins in it, in bytes.
        shape: (H, W) for a grey image, (H, W, 3) for RGB; one byte per value.
    """

    name: str
    file: Path
    offset: int
    shape: tuple[int, ...]

    def load(self) -> Image:
        """The image, grey or RGB.

        Raises:
            OSError: the file is gone, or ends before the image does.
        """
        from PIL import Image

        size = math.prod(self.shape)
        with self.file.open("rb") as content:
            content.seek(self.offset)
            values = content.read(size)
        if len(values) != size:
            raise OSError(f"{self.file} ends before the image {self.name}")
        height, width, *colours = self.shape
        return Image.frombytes("RGB" if colours else "L", (width, height), values)


@dataclass(frozen=True, slots=True)
class ImageArray:
    """An unpacked array of images, as far as one image needs to know.

    Attributes:
        file: The `.npy` file.
        start: Where the first image begins in it, in bytes.
        shape: [N,H,W] or [N,H,W,3].
    """

    file: Path
    start: int
    shape: tuple[int, ...]

    def image(self, name: str, index: int) -> ArrayImage:
        """The image `index`, 0..N-1."""
        return ArrayImage(name, self.file, self.start + index * math.prod(self.shape[1:]), self.shape[1:])


def image_array(file: Path, shown: str) -> ImageArray:
    """The images in a `.npy` file, which is not read.

    Args:
        file: The file.
        shown: Names the array in messages.

    Raises:
        DataError: no array, or none of 2-D images.
    """
    array = mapped(file)
    shape = tuple(array.shape)
    two_dimensional = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    if array.dtype != "uint8" or not two_dimensional or not array.flags.c_contiguous:
        raise DataError(
            f"{shown}: {array.dtype} of shape {shape}; 2-D images are uint8 of shape [N,H,W] or [N,H,W,3], one after "
            "the other; fetch the file again"
        )
    return ImageArray(file, array.offset, shape)


def mapped(file: Path) -> Any:
    """The array of a `.npy` file, mapped and not read.

    Raises:
        DataError: the file is cut off, no array, or an array of Python objects (which only unpickling could read).
    """
    import numpy as np

    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{file}: not an array that can be used ({error}); fetch the archive again") from error


def unpack_array(archive: Path, name: str, folder: Path) -> Path:
    """Unpacks the array `name` of `archive` into `folder`, unless it lies there already.

    Args:
        archive: The `.npz` file.
        name: Name of the array, without `.npy`; chosen by the caller, never by the archive.
        folder: Where to; made if missing.

    Returns:
        The `.npy` file.

    Raises:
        DataError: no archive, no such array, damaged, or not enough space.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            info = _member(members, archive, name)
            # The checksum in the name keeps the array of another archive with the same name apart.
            target = folder / f"{archive.stem}-{name}-{info.CRC:08x}.npy"
            if target.is_file() and target.stat().st_size == info.file_size:
                return target
            folder.mkdir(parents=True, exist_ok=True)
            _check_space(folder, info.file_size, archive, name)
            with members.open(info) as packed:
                _write(packed, target, info.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive}: not a whole .npz archive ({error}); fetch the file again") from error
    return target


def _member(members: zipfile.ZipFile, archive: Path, name: str) -> zipfile.ZipInfo:
    try:
        return members.getinfo(f"{name}.npy")
    except KeyError as error:
        listed = ", ".join(sorted(member.removesuffix(".npy") for member in members.namelist()))
        raise DataError(f"{archive}: there is no array {name!r}; the archive has {listed or 'none'}") from error


def _check_space(folder: Path, needed: int, archive: Path, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{archive}, array {name!r}: it needs {needed / 1e9:.1f} GB of disk space unpacked and {folder} has "
            f"{free / 1e9:.1f} GB; name a folder with more space"
        )


def _write(packed: Any, target: Path, size: int) -> None:
    with replacing(target) as partial, partial.open("wb") as out:
        _copy(packed, out, size, target.name)


def _copy(packed: Any, out: BinaryIO, size: int, what: str) -> None:
    if size < _BAR_FROM_BYTES:
        shutil.copyfileobj(packed, out)
        return
    from rich.progress import wrap_file

    with wrap_file(packed, total=size, description=f"Unpacking {what}") as watched:
        shutil.copyfileobj(watched, out, 2**20)
