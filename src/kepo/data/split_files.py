"""The split files that OmniMedVQA's users pass around: JSON lists of `image, problem, solution`, one file per modality.

The options stand inside the problem's text (`... image? A)CT, B)MRI, C)X-ray`), the solution is a letter in
`<answer>` tags, and the modality is in the name of the file only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from kepo.data.images import ImageRoot
from kepo.data.omnimedvqa import (
    MODALITIES,
    NOTES,
    QUESTION_FOLDER,
    canonical_modality,
    image_at,
    licence_of,
    list_of_rows,
    question_files,
    text_field,
)
from kepo.data.schema import Place, RowError, resolve_answer
from kepo.data.sources import Source, Unusable, unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question

_SIDES: Mapping[str, str] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "eval": "validation",
    "test": "test",
}
_SOLUTION = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
# An option that still holds the mark of another one was not lettered in order.
_LATER_MARK = re.compile(r"[,\n]\s*[A-Z]\)\S")


@dataclass(frozen=True, slots=True)
class _File:
    """One split file, and what its name and its folder's name say."""

    path: Path
    shown: str
    modality: str | None
    side: str | None


@dataclass(frozen=True, slots=True)
class _Published:
    """What the published rows, where they are at hand, know about an image."""

    modality: dict[str, str]
    dataset: dict[str, str]
    task: dict[tuple[str, str], str]


def split_file_source(
    files: Sequence[str | Path], root: str | Path | None, *, images: bool = True, modality: str | None = None
) -> Source:
    """Split files for `kepo prepare`.

    The modality is `modality`, else what the name of the file says, else that of the published row about the same
    image. Question types and collections come from the published rows, where `root` holds `QA_information`; without
    them the type is unknown, and the collection is the image's folder below `Images`. The split counts as given where
    the names of all files, or of their folders, say train, validation or test.

    Args:
        files: At least one.
        root: The folder that image paths are relative to; may be None without images.
        images: False leaves the images out, for counting and for work on the text alone.
        modality: One of `MODALITIES`, or a published spelling.

    Raises:
        ConfigError: no file, images without `root`, or an unknown modality.
        DataError: a file is missing, or no JSON list.
    """
    if not files:
        raise ConfigError("no split file was given; name at least one with --split-file")
    if images and root is None:
        raise ConfigError("--root is missing: split files name images below it; or leave the images out (--no-images)")
    known = None if modality is None else canonical_modality(modality)
    if modality is not None and known is None:
        raise ConfigError(f"--modality {modality!r} is none of {', '.join(MODALITIES)}")
    described = _described([Path(file) for file in files], known)
    folder = None if root is None else Path(root)
    given = all(file.side for file in described)
    published = [] if folder is None or not (folder / QUESTION_FOLDER).is_dir() else question_files(folder)
    rows = tuple(_rows(described, folder if images else None, published, given))
    datasets = sorted({row.metadata["dataset"] for row in rows if isinstance(row, Question)})
    licences = {dataset: licence_of(dataset) for dataset in datasets}
    paths = (*(file.path for file in described), *published)
    options = {"images": images, "modality": known, "names": [file.shown for file in described]}
    return Source("OmniMedVQA split files", rows, paths, licences, NOTES, given, options)


def _described(paths: Sequence[Path], modality: str | None) -> list[_File]:
    stems = [path.stem for path in paths]
    files = []
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; check --split-file")
        stem, _, suffix = path.stem.rpartition("_")
        side = _SIDES.get(suffix.lower())
        name = stem if side else path.stem
        # Two folders may hold files of the same name.
        shown = path.name if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.name}"
        side = side or _SIDES.get(path.parent.name.lower())
        files.append(_File(path, shown, modality or canonical_modality(name), side))
    names = [file.shown for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"--split-file: {twice} was given twice, or from two folders of the same name; rename one")
    return files


def _rows(
    files: Sequence[_File], root: Path | None, published: Sequence[Path], given: bool
) -> Iterator[Question | Unusable]:
    facts = _published(published)
    images = None if root is None else ImageRoot(root)
    for file in files:
        for number, row in enumerate(list_of_rows(file.path), start=1):
            place = Place(file.shown, number)
            try:
                yield _question(row, place, file, images, facts, given)
            except RowError as error:
                yield unusable(error, row)


def _question(
    row: Any, place: Place, file: _File, images: ImageRoot | None, facts: _Published, given: bool
) -> Question:
    if not isinstance(row, Mapping):
        place.refuse("", f"it is {type(row).__name__}, not a record with columns", "is not a record with columns")
    image = text_field(row, "image", place)
    text, options = parse_problem(text_field(row, "problem", place), place)
    modality = file.modality or facts.modality.get(image)
    if modality is None:
        place.refuse("modality", "is not told by the name of the file; give --modality")
    metadata = {
        "dataset": facts.dataset.get(image) or _collection(image),
        "image": image,
        "file": file.shown,
        "row": place.row,
    }
    return Question(
        id=f"{file.shown.removesuffix(file.path.suffix)}-{place.row:05d}",
        text=text,
        answer=_answer(text_field(row, "solution", place), options, place),
        options=options,
        images=() if images is None else image_at(image, images, place, "image"),
        modality=modality,
        task=facts.task.get((image, text)),
        metadata={**metadata, "split": file.side} if given else metadata,
    )


def parse_problem(problem: str, place: Place) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a text such as `What is it? A)CT, B)MRI, C)X-ray`.

    Args:
        problem: The text.
        place: For errors.

    Raises:
        RowError: there are not at least two options, or their letters are not in order.
    """
    # Commas first: "vitamin B)" inside an option is no mark, but some files set options apart by spaces only.
    for before in (r"[,\n]\s*", r"\s+"):
        parts = _split_at_letters(problem, before)
        if len(parts) > 2:
            break
    question, *options = (part.strip() for part in parts)
    if len(options) < 2:
        place.refuse("problem", "has no options of the form 'A)..., B)...'")
    if any(not option or _LATER_MARK.search(option) for option in options):
        place.refuse("problem", "its options are not lettered in order, or one is empty")
    if not question:
        place.refuse("problem", "has options but no question")
    return question, tuple(options)


def _split_at_letters(problem: str, before: str) -> list[str]:
    """The text before `A)`, and what follows each letter."""
    parts: list[str] = []
    rest = problem
    for letter in ascii_uppercase:
        mark = before if parts else r"(?:^|\s)"
        marks = list(re.finditer(rf"{mark}{letter}\)", rest))
        if not marks:
            break
        # "(type A)" is no mark; a bracket that is never closed is a slip, and hides none.
        found = next((one for one in marks if not _inside_brackets(rest[: one.start()])), marks[0])
        parts.append(rest[: found.start()])
        rest = rest[found.end() :]
    return [*parts, rest]


def _inside_brackets(before: str) -> bool:
    return before.count("(") > before.count(")")


def _answer(solution: str, options: tuple[str, ...], place: Place) -> str:
    found = _SOLUTION.search(solution)
    answer = (found.group(1) if found else solution).strip()
    letter = re.fullmatch(r"\(?([A-Za-z])[).]?", answer)
    # In these files a single letter is always meant as one, also where an option's text is a letter.
    return resolve_answer(
        f"({letter.group(1)})" if letter else answer, options, place, "solution", letters=bool(letter)
    )


def _collection(image: str) -> str:
    """`Images/RadImageNet/normal/a.png` -> `RadImageNet`."""
    parts = [part for part in image.split("/")[:-1] if part not in ("", ".")]
    return next((part for part in parts if part != "Images"), "unknown")


def _published(files: Sequence[Path]) -> _Published:
    facts = _Published({}, {}, {})
    for file in files:
        for row in list_of_rows(file):
            if not isinstance(row, Mapping) or not isinstance(row.get("image_path"), str):
                continue
            image = row["image_path"].strip()
            modality = canonical_modality(str(row.get("modality_type")))
            if modality is not None:
                facts.modality[image] = modality
            if isinstance(row.get("dataset"), str):
                facts.dataset[image] = row["dataset"].strip()
            if isinstance(row.get("question"), str) and isinstance(row.get("question_type"), str):
                facts.task[image, row["question"].strip()] = row["question_type"].strip()
    return facts
