"""Fetches MedMNIST's files from the addresses that the `medmnist` library publishes, and checks them by its checksums.

Of the library only the table of addresses is read. The library itself would load files through torchvision and
scikit-image, which nothing here needs.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kepo.data.medmnist_sets import MEDMNIST_SETS
from kepo.errors import ConfigError, DataError, MissingExtraError

SIZES = (28, 64, 128, 224)
"""Sides of the images in pixels that every 2-D set is published in."""

_PURPOSE = "Downloading MedMNIST"


def download_medmnist(names: Sequence[str], folder: Path, size: int = 28) -> list[Path]:
    """The `.npz` files of the sets `names` in `folder`; a file that is there and whole is not fetched again.

    Args:
        names: Keys of `MEDMNIST_SETS`; case is not looked at.
        folder: Where to; made if missing.
        size: One of `SIZES`.

    Raises:
        ConfigError: an unknown set or size.
        MissingExtraError: `medmnist` or `pooch` is not installed.
        DataError: a file cannot be fetched, or is not the published one.
    """
    names = [name.lower() for name in names]
    unknown = [name for name in names if name not in MEDMNIST_SETS]
    if unknown:
        raise ConfigError(f"unknown set {unknown[0]!r}; the 2-D sets are {', '.join(MEDMNIST_SETS)}")
    if size not in SIZES:
        raise ConfigError(f"size {size}: sets are published in {', '.join(map(str, SIZES))} pixels; give one of these")
    addresses = published()
    return [_fetch(name, addresses[name], folder, size) for name in names]


def published() -> dict[str, dict[str, Any]]:
    """What the `medmnist` library knows of its sets: name -> `url`, `MD5`, `url_64`, ..., `label`, `license`.

    Raises:
        MissingExtraError: the library is not installed.
    """
    found = importlib.util.find_spec("medmnist")
    if found is None or not found.submodule_search_locations:
        # Its other requirements are a CUDA build of torchvision among others, for a table of addresses.
        raise MissingExtraError("medmnist", "pip install --no-deps 'medmnist>=3,<4'", _PURPOSE)
    # Read, not imported: the package imports torchvision, prints when there is none, and makes a folder at home.
    file = Path(found.submodule_search_locations[0]) / "info.py"
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "INFO":
            return ast.literal_eval(statement.value)
    raise DataError(
        f"{file}: there is no table INFO in it; install another version: pip install --no-deps medmnist==3.0.2"
    )


def _fetch(name: str, info: dict[str, Any], folder: Path, size: int) -> Path:
    try:
        import pooch
    except ImportError as error:
        raise MissingExtraError("pooch", "pip install 'kepo[medmnist]'", _PURPOSE) from error
    from requests.exceptions import RequestException

    suffix = "" if size == 28 else f"_{size}"
    url, checksum, file = info[f"url{suffix}"], info[f"MD5{suffix}"], f"{name}{suffix}.npz"
    try:
        pooch.retrieve(
            url,
            known_hash=f"md5:{checksum}",
            fname=file,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=60),
        )
    # pooch raises ValueError when what came is not the file with this checksum.
    except (RequestException, ValueError, OSError) as error:
        raise DataError(
            f"{file}: it could not be fetched from {url} ({error}); fetch it by hand, check that its MD5 is "
            f"{checksum}, and give it with --npz"
        ) from error
    return folder / file
