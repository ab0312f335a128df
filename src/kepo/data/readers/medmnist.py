"""MedMNIST's 2-D sets as multiple-choice questions, from their `.npz` files; what is asked stands in `medmnist.yaml`.

A compressed archive can only be read from its start, and large ones hold more than ten gigabytes. So its arrays are
unpacked to `.npy` files once and mapped into memory: any process reads any image, and no other one.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import yaml

from kepo.data.sources import Source, Unusable
from kepo.errors import ConfigError, DataError, MissingExtraError
from kepo.types import Question

NO_FINDING = "no finding"
"""What is correct where none of the labels of a multi-label set is present."""
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_NEEDED = {"medmnist": "pip install --no-deps 'medmnist>=3,<4'", "pooch": "pip install 'kepo[medmnist]'"}


@dataclass(frozen=True, slots=True)
class ArrayImage:
    """The image `name`, at `index` of the images [N,H,W] or [N,H,W,3] in a `.npy` file; a `LazyImage`."""

    name: str
    file: Path
    index: int

    def load(self) -> Any:
        """The PIL image, grey or RGB. Raises OSError or ValueError where the file is gone or cut off."""
        import numpy as np
        from PIL import Image

        return Image.fromarray(np.array(np.load(self.file, mmap_mode="r", allow_pickle=False)[self.index]))


@cache
def medmnist_sets() -> Mapping[str, Mapping[str, Any]]:
    """Name of the file -> title, modality, task, question and labels of the set."""
    return yaml.safe_load((package_files(__package__) / "medmnist.yaml").read_text(encoding="utf-8"))


def medmnist_source(files: Sequence[Path], unpack_to: Path, seed: int, max_options: int = 4) -> Source:
    """One question per image, in the sets' own splits: the correct label and others of the set, drawn by `seed` and id.

    Of several findings in one image (ChestMNIST) one is asked for and the others are no options; "no finding" is an
    option of each question, so that its presence tells nothing. All present labels stand in `metadata["labels"]`.

    Args:
        files: `.npz` files by their published names, `pathmnist.npz` or `pathmnist_224.npz`; each set once.
        unpack_to: A folder for the unpacked arrays, at their plain size, which must stay until the images are read.
        seed: Seeds the other options and their order.
        max_options: Options per question, 2..26.

    Raises:
        ConfigError, DataError: files or options that cannot be. While rows are read: an archive that is not whole, or
            arrays that do not fit together. A label that is none of the set's is an `Unusable` row.
    """
    sets, by_name = medmnist_sets(), dict[str, Path]()
    if not files or not 2 <= max_options <= 26:
        raise ConfigError(
            f"{len(files)} .npz files and {max_options} options; give at least one file, and 2 to 26 options"
        )
    for file in files:
        name = re.sub(r"_(64|128|224)$", "", file.stem)
        if not file.is_file() or file.suffix != ".npz" or name not in sets:
            raise DataError(f"{file}: no such file, or not that of a 2-D set by its name: {', '.join(sets)}, with .npz")
        if by_name.setdefault(name, file) is not file:
            raise ConfigError(f"{name} is given twice, as {by_name[name]} and as {file}; give one of them")
    notes = ["Splits are the sets' own. Question texts and the other options are made by kepo from the sets' labels."]
    if any("multi_label" in sets[name] for name in by_name):
        notes.append(f"ChestMNIST: images without any of the 14 findings have the correct option {NO_FINDING!r}.")
    licenses = {entry["title"]: entry.get("license", "CC BY 4.0") for entry in sets.values()}
    places = [(name, file, split) for name, file in by_name.items() for split in _SPLITS]
    rows = (row for place in places for row in _rows(*place, unpack_to, seed, max_options))
    options = {"seed": seed, "max_options": max_options}
    return Source("MedMNIST", rows, tuple(by_name.values()), licenses.__getitem__, tuple(notes), True, options)


def _rows(name: str, file: Path, split: str, folder: Path, seed: int, limit: int) -> Iterator[Question | Unusable]:
    entry = medmnist_sets()[name]
    texts, multi = entry["labels"], entry.get("multi_label", False)
    unpacked, images = _array(file, f"{split}_images", folder)
    labels = _array(file, f"{split}_labels", folder)[1]
    shape = (len(images), len(texts) if multi else 1)
    if images.dtype != "uint8" or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise DataError(f"{file}, '{split}_images': {images.dtype} {images.shape}; 2-D images are uint8 [N,H,W(,3)]")
    if labels.dtype.kind not in "ui" or labels.shape not in (shape, shape[:1]):
        found = f"{labels.dtype} of shape {labels.shape}, where whole numbers {shape} belong to {len(images)} images"
        raise DataError(f"{file}, array '{split}_labels': {found}; fetch the file again")
    for index, label in enumerate(labels.reshape(shape).tolist()):
        question_id = f"{name}-{split}-{index}"
        if not all(0 <= value < (2 if multi else len(texts)) for value in label):
            allowed = "flags are 0 or 1" if multi else f"labels are 0 to {len(texts) - 1}"
            reason = f"not a label of {entry['title']}: {allowed}"
            yield Unusable(file.name, index + 1, f"{split}_labels", reason, str(label))
            continue
        # Seeded by the id, so that a question reads the same whatever else is prepared beside it.
        rng = random.Random(f"{seed}:{question_id}")
        present = [text for text, flag in zip(texts, label, strict=True) if flag] if multi else [texts[label[0]]]
        absent = [text for text in texts if text not in present]
        options = [rng.choice(present)] if multi and present else present[:]
        options += [NO_FINDING] if multi else []
        correct = options[0]
        options += rng.sample(absent, min(len(absent), limit - len(options)))
        rng.shuffle(options)
        answer = ascii_uppercase[options.index(correct)]
        image = ArrayImage(f"{name}/{split}/{index:06d}", unpacked, index)
        metadata = {"dataset": entry["title"], "split": _SPLITS[split], "labels": present}
        known = entry["modality"], entry["task"], metadata
        yield Question(question_id, entry["question"], answer, tuple(options), (image,), *known)


def _array(archive: Path, name: str, folder: Path) -> tuple[Path, Any]:
    """(file, mapped array) of one array of an archive, unpacked to `folder` unless it lies there."""
    import numpy as np

    try:
        with zipfile.ZipFile(archive) as members:
            info = members.getinfo(f"{name}.npy")
            # The checksum in the name keeps the array of another archive with the same name apart.
            target = folder / f"{archive.stem}-{name}-{info.CRC:08x}.npy"
            part = target.with_suffix(".part")
            if not (target.is_file() and target.stat().st_size == info.file_size):
                folder.mkdir(parents=True, exist_ok=True)
                if shutil.disk_usage(folder).free < info.file_size:
                    space = f"{info.file_size / 1e9:.1f} GB of disk space unpacked, more than {folder} has"
                    raise DataError(f"{archive}, array {name!r}: it needs {space}; name a folder with more space")
                try:
                    with members.open(info) as packed, part.open("wb") as out:
                        shutil.copyfileobj(packed, out, 2**20)
                    part.replace(target)
                finally:
                    part.unlink(missing_ok=True)
        return target, np.load(target, mmap_mode="r", allow_pickle=False)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"{archive}: not a whole .npz archive with an array {name!r} ({error}); fetch it again"
        ) from error
    except ValueError as error:
        raise DataError(f"{archive}: {name!r} is not an array that can be used ({error}); fetch it again") from error


def published() -> dict[str, dict[str, Any]]:
    """The table INFO of the package `medmnist`: name -> `url`, `MD5`, `url_64`, ..."""
    # Read, not imported: the package imports torchvision, prints when there is none, and makes a folder at home.
    (folder,) = importlib.util.find_spec("medmnist").submodule_search_locations  # type: ignore[union-attr, misc]
    text = (Path(folder) / "info.py").read_text(encoding="utf-8")
    return ast.literal_eval(re.split(r"^INFO = ", text, flags=re.MULTILINE)[1])


def download_medmnist(names: Sequence[str], folder: Path, size: int = 28) -> list[Path]:
    """The `.npz` files of the sets `names` in `folder`, images of `size` (28, 64, 128 or 224) pixels on each side.

    A file that is there and whole is not fetched again.

    Raises:
        ConfigError: an unknown set or size.
        MissingExtraError: `medmnist` or `pooch` is not installed.
        DataError: a file cannot be fetched, or is not the published one.
    """
    unknown = [name for name in names if name.lower() not in medmnist_sets()]
    if unknown or size not in (28, 64, 128, 224):
        wrong = f"unknown set {unknown[0]!r}" if unknown else f"size {size}"
        raise ConfigError(f"{wrong}; the 2-D sets are {', '.join(medmnist_sets())}, in 28, 64, 128 or 224 pixels")
    for package, command in _NEEDED.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, command, "Downloading MedMNIST")
    import pooch

    info, suffix = published(), "" if size == 28 else f"_{size}"
    client, files = pooch.HTTPDownloader(progressbar=True, timeout=60), []
    for name in map(str.lower, names):
        url, checksum, file = info[name][f"url{suffix}"], info[name][f"MD5{suffix}"], f"{name}{suffix}.npz"
        try:
            pooch.retrieve(url, known_hash=f"md5:{checksum}", fname=file, path=folder, downloader=client)
        # pooch raises ValueError when what came is not the file with this checksum; errors of requests are OSErrors.
        except (ValueError, OSError) as error:
            by_hand = f"fetch it by hand, check that its MD5 is {checksum}, and give it with --npz"
            raise DataError(f"{file}: it could not be fetched from {url} ({error}); {by_hand}") from error
        files.append(folder / file)
    return files
