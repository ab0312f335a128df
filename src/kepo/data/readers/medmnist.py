"""MedMNIST's 2-D sets as multiple-choice questions, from their `.npz` files; `medmnist.yaml` has the question texts."""

from __future__ import annotations

import importlib.util
import random
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import yaml

from kepo.data.sources import Source, Unusable
from kepo.errors import ConfigError, DataError, MissingExtraError
from kepo.files import replacing
from kepo.types import Question, option_letters

NO_FINDING = "no finding"
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_ADDRESS = "https://zenodo.org/records/10519652/files/{}?download=1"


@dataclass(frozen=True, slots=True)
class ArrayImage:
    """One image of the array [N,H,W] or [N,H,W,3] in a `.npy` file; a `LazyImage`."""

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
    """Name of the file -> title, modality, task, question, labels and MD5 sums of the set."""
    return yaml.safe_load((package_files(__package__) / "medmnist.yaml").read_text(encoding="utf-8"))


def medmnist_source(files: Sequence[Path], unpack_to: Path, seed: int, max_options: int = 4) -> Source:
    """One question per image, in the sets' own splits; which labels are its options is drawn by `seed` and id.

    Of several findings in one image (ChestMNIST) one is the correct option and the others are no options; "no finding"
    is an option of every question, so its presence reveals nothing. `metadata["labels"]` holds all labels.

    Files have their published names, `pathmnist.npz` or `pathmnist_224.npz`, each set once. The arrays in `unpack_to`
    must stay until the images are read. `max_options` is 2..26.
    """
    sets, by_name = medmnist_sets(), dict[str, Path]()
    if not files or not 2 <= max_options <= 26:
        raise ConfigError(f"{len(files)} .npz files and {max_options} options; give at least one file, 2 to 26 options")
    for file in files:
        name, _, size = file.stem.partition("_")
        if not file.is_file() or file.suffix != ".npz" or name not in sets or size not in ("", "64", "128", "224"):
            raise DataError(f"{file}: no such file, or not that of a 2-D set by its name: {', '.join(sets)}, with .npz")
        if by_name.setdefault(name, file) is not file:
            raise ConfigError(f"{name} is given twice, as {by_name[name]} and as {file}; give one of them")
    notes = ["Splits are the sets' own. Question texts and the other options are made by kepo from the sets' labels."]
    notes += [sets[name]["note"] for name in by_name if "note" in sets[name]]
    licenses = {entry["title"]: entry.get("license", "CC BY 4.0") for entry in sets.values()}
    places = [(name, file, split) for name, file in by_name.items() for split in _SPLITS]
    rows = (row for place in places for row in _rows(*place, unpack_to, seed, max_options))
    options = {"seed": seed, "max_options": max_options}
    return Source("MedMNIST", rows, tuple(by_name.values()), licenses.__getitem__, tuple(notes), True, options)


def _rows(name: str, file: Path, split: str, folder: Path, seed: int, limit: int) -> Iterator[Question | Unusable]:
    entry = medmnist_sets()[name]
    texts, multi, title = entry["labels"], entry.get("multi_label", False), entry["title"]
    unpacked, images = _array(file, f"{split}_images", folder)
    labels = _array(file, f"{split}_labels", folder)[1]
    shape, allowed = (len(images), len(texts) if multi else 1), range(2 if multi else len(texts))
    rule = f"not a label of {title}: " + ("flags are 0 or 1" if multi else f"labels are 0 to {allowed[-1]}")
    if images.dtype != "uint8" or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise DataError(f"{file}, '{split}_images': {images.dtype} {images.shape}; 2-D images are uint8 [N,H,W(,3)]")
    if labels.dtype.kind not in "ui" or labels.shape not in (shape, shape[:1]):
        found = f"{labels.dtype} of shape {labels.shape}, where whole numbers {shape} belong to {len(images)} images"
        raise DataError(f"{file}, array '{split}_labels': {found}; fetch the file again")
    for index, label in enumerate(labels.reshape(shape).tolist()):
        question_id = f"{name}-{split}-{index}"
        if not all(value in allowed for value in label):
            yield Unusable(file.name, index + 1, f"{split}_labels", rule, str(label))
            continue
        # By the id, so that a question reads the same whatever else is prepared beside it.
        rng = random.Random(f"{seed}:{question_id}")
        present = [text for text, flag in zip(texts, label, strict=True) if flag] if multi else [texts[label[0]]]
        absent = [text for text in texts if text not in present]
        options = ([rng.choice(present)] if multi and present else present[:]) + [NO_FINDING] * multi
        correct = options[0]
        options += rng.sample(absent, min(len(absent), limit - len(options)))
        rng.shuffle(options)
        answer = option_letters(options)[options.index(correct)]
        image = ArrayImage(f"{name}/{split}/{index:06d}", unpacked, index)
        known = entry["modality"], entry["task"], {"dataset": title, "split": _SPLITS[split], "labels": present}
        yield Question(question_id, entry["question"], answer, tuple(options), (image,), *known)


def _array(archive: Path, name: str, folder: Path) -> tuple[Path, Any]:
    """(file, array) of an archive, unpacked once and mapped into memory: a set may hold more than ten gigabytes."""
    import numpy as np

    try:
        with zipfile.ZipFile(archive) as members:
            info = members.getinfo(f"{name}.npy")
            # The checksum keeps the array of another archive with the same name apart.
            target = folder / f"{archive.stem}-{name}-{info.CRC:08x}.npy"
            if not (target.is_file() and target.stat().st_size == info.file_size):
                folder.mkdir(parents=True, exist_ok=True)
                if shutil.disk_usage(folder).free < info.file_size:
                    raise ValueError(f"it takes {info.file_size / 1e9:.1f} GB of disk space unpacked: use another disk")
                with members.open(info) as packed, replacing(target) as partial, partial.open("wb") as out:
                    shutil.copyfileobj(packed, out, 2**20)
        return target, np.load(target, mmap_mode="r", allow_pickle=False)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive}: not a whole .npz archive with array {name!r} ({error}); fetch it again") from error
    except ValueError as error:
        raise DataError(f"{archive}: {name!r} is not an array that can be used ({error})") from error


def download_medmnist(names: Sequence[str], folder: Path, size: int = 28) -> list[Path]:
    """The `.npz` files of the sets `names` in `folder`, images of `size` (28, 64, 128 or 224) pixels on each side."""
    sets, suffix = medmnist_sets(), "" if size == 28 else f"_{size}"
    for name in names:
        if name.lower() not in sets or size not in sets[name.lower()]["md5"]:
            there = f"there are {', '.join(sets)}, in 28, 64, 128 or 224 pixels"
            raise ConfigError(f"no set {name!r} of size {size}; {there}")
    if importlib.util.find_spec("pooch") is None:
        raise MissingExtraError("pooch", "pip install 'kepo[medmnist]'", "Downloading MedMNIST")
    import pooch

    checksums = {f"{name.lower()}{suffix}.npz": sets[name.lower()]["md5"][size] for name in names}
    for file, checksum in checksums.items():
        url, client = _ADDRESS.format(file), pooch.HTTPDownloader(progressbar=True, timeout=60)
        try:
            pooch.retrieve(url, known_hash=f"md5:{checksum}", fname=file, path=folder, downloader=client)
        except (ValueError, OSError) as error:  # ValueError: another checksum
            by_hand = f"fetch it by hand, check that its MD5 is {checksum}, and give it with --npz"
            raise DataError(f"{file}: it could not be fetched from {url} ({error}); {by_hand}") from error
    return [folder / file for file in checksums]
