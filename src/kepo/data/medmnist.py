"""MedMNIST's 2-D sets as multiple-choice questions, from their `.npz` files."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeAlias

from kepo.data.medmnist_sets import MEDMNIST_SETS, NO_FINDING, MedMnistSet
from kepo.data.npz import ImageArray, image_array, mapped, unpack_array
from kepo.data.sources import Source, Unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question

# The right option, wrong ones that every question has, those to draw from, and all labels that are present.
_Choice: TypeAlias = tuple[str, list[str], list[str], list[str]]

_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def medmnist_source(files: Sequence[Path], unpack_to: Path, seed: int, max_options: int = 4) -> Source:
    """Questions about the images of MedMNIST's 2-D sets, one per image, in the sets' own splits.

    A question has the right label and up to `max_options - 1` others of the set, in an order of its own; both depend on
    `seed` and the question's id alone. Of several findings in one image (ChestMNIST) one is asked for and the others
    are no options; where there is none, "no finding" is right, and it is an option of every question, so that its
    presence tells nothing. All present labels stand in `metadata["labels"]`.

    Args:
        files: `.npz` files by their published names, `pathmnist.npz` or `pathmnist_224.npz`; each set once.
        unpack_to: A folder for the unpacked image arrays, which must stay until the images have been read. It takes the
            arrays' plain size (28 pixels: 0.25 GB for PathMNIST; 224 pixels: 16 GB). In memory is one image at a time.
        seed: Seeds wrong options and their order.
        max_options: Options per question, 2..26.

    Raises:
        ConfigError: `files` or `max_options` cannot be.
        DataError: a file that is missing or no set of this kind. While rows are read: an archive that is not whole, or
            arrays that do not fit together. A label that is none of the set's is an `Unusable` row.
    """
    if not 2 <= max_options <= len(ascii_uppercase):
        raise ConfigError(f"{max_options} options per question; give 2 to {len(ascii_uppercase)}")
    if not files:
        raise ConfigError("no .npz file was given; give at least one")
    by_name: dict[str, Path] = {}
    for file in files:
        name = set_name(file)
        if name in by_name:
            raise ConfigError(f"{name} is given twice, as {by_name[name]} and as {file}; give one of them")
        by_name[name] = file
    return Source(
        name="MedMNIST",
        rows=_rows(by_name, unpack_to, seed, max_options),
        files=tuple(by_name.values()),
        licences={MEDMNIST_SETS[name].title: MEDMNIST_SETS[name].licence for name in by_name},
        notes=_notes(by_name),
        split_given=True,
        options={"seed": seed, "max_options": max_options},
    )


def set_name(file: Path) -> str:
    """The set that a file holds, by its name.

    Raises:
        DataError: there is no such file, or its name is none of `MEDMNIST_SETS`, with or without a size.
    """
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; check the path")
    name = re.sub(r"_(64|128|224)$", "", file.stem)
    if file.suffix != ".npz" or name not in MEDMNIST_SETS:
        listed = ", ".join(MEDMNIST_SETS)
        raise DataError(
            f"{file}: the name is not that of a 2-D set of MedMNIST; known are {listed}, each with .npz or _64.npz, "
            "_128.npz, _224.npz; give the file its published name"
        )
    return name


def _notes(names: dict[str, Path]) -> tuple[str, ...]:
    notes = ["Splits are the sets' own. Question texts and wrong options are made by kepo from the sets' labels."]
    if any(MEDMNIST_SETS[name].multi_label for name in names):
        notes.append(f"ChestMNIST: images without any of the 14 findings have the right option {NO_FINDING!r}.")
    return tuple(notes)


def _rows(by_name: dict[str, Path], unpack_to: Path, seed: int, max_options: int) -> Iterator[Question | Unusable]:
    for name, file in by_name.items():
        for split in _SPLITS:
            images, labels = _arrays(file, name, split, unpack_to)
            for index, label in enumerate(labels):
                yield _question(name, split, index, label.tolist(), file, images, seed, max_options)


def _arrays(file: Path, name: str, split: str, unpack_to: Path) -> tuple[ImageArray, Any]:
    """(images, labels [N,L]) of one split, checked against each other."""
    images = image_array(unpack_array(file, f"{split}_images", unpack_to), f"{file}, array '{split}_images'")
    labels = mapped(unpack_array(file, f"{split}_labels", unpack_to))
    shape = images.shape
    columns = len(MEDMNIST_SETS[name].labels) if MEDMNIST_SETS[name].multi_label else 1
    labels = labels.reshape(-1, 1) if labels.ndim == 1 else labels
    if labels.dtype.kind not in "ui" or labels.shape != (shape[0], columns):
        raise DataError(
            f"{file}, array '{split}_labels': {labels.dtype} of shape {labels.shape}; whole numbers of shape "
            f"({shape[0]}, {columns}) belong to the {shape[0]} images; fetch the file again"
        )
    return images, labels


def _question(
    name: str, split: str, index: int, label: list[int], file: Path, images: ImageArray, seed: int, max_options: int
) -> Question | Unusable:
    entry = MEDMNIST_SETS[name]
    question_id = f"{name}-{split}-{index}"
    # Seeded by the id, so that a question reads the same whatever else is prepared beside it.
    rng = random.Random(f"{seed}:{question_id}")
    choice = _multi_label(entry, label, rng) if entry.multi_label else _single_label(entry, label[0])
    if choice is None:
        allowed = "flags are 0 or 1" if entry.multi_label else f"labels are 0 to {len(entry.labels) - 1}"
        return Unusable(file.name, index + 1, f"{split}_labels", f"not a label of {entry.title}: {allowed}", str(label))
    right, always, others, present = choice
    options = [right, *always]
    options += rng.sample(others, min(len(others), max_options - len(options)))
    rng.shuffle(options)
    return Question(
        id=question_id,
        text=entry.question,
        answer=ascii_uppercase[options.index(right)],
        options=tuple(options),
        images=(images.image(f"{name}/{split}/{index:06d}", index),),
        modality=entry.modality,
        task=entry.task,
        metadata={"dataset": entry.title, "split": _SPLITS[split], "labels": present},
    )


def _single_label(entry: MedMnistSet, label: int) -> _Choice | None:
    """None if there is no such label."""
    if not 0 <= label < len(entry.labels):
        return None
    right = entry.labels[label]
    return right, [], [text for text in entry.labels if text != right], [right]


def _multi_label(entry: MedMnistSet, flags: list[int], rng: random.Random) -> _Choice | None:
    """One of the present labels is drawn as the right one; None if a flag is no flag."""
    if not set(flags) <= {0, 1}:
        return None
    present = [text for text, flag in zip(entry.labels, flags, strict=True) if flag]
    absent = [text for text, flag in zip(entry.labels, flags, strict=True) if not flag]
    if not present:
        return NO_FINDING, [], absent, []
    return rng.choice(present), [NO_FINDING], absent, present
