"""The split files that OmniMedVQA's users pass around: JSON lists of `image, problem, solution`, one file per modality.

Their rows are those of the preset `r1-v`. The modality is in the name of the file only; question types and collections
are taken from the published rows about the same image, where these are at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kepo.data.images import ImageRoot
from kepo.data.omnimedvqa import MODALITIES, NOTES, QUESTION_FOLDER, canonical_modality, license_of
from kepo.data.readers.presets import preset
from kepo.data.readers.published import question_files
from kepo.data.readers.rows import TableFile, list_of_rows
from kepo.data.readers.table import read_rows
from kepo.data.readers.texts import SPLIT_NAMES
from kepo.data.sources import Source, Unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question


@dataclass(frozen=True, slots=True)
class _File:
    """One split file, and what its name and its folder's name say."""

    path: Path
    shown: str
    modality: str | None
    split: str | None


@dataclass(frozen=True, slots=True)
class _Published:
    """What the published rows know: image -> modality, collection; (image, question) -> question type."""

    modality: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)
    task: dict[tuple[str, str], str] = field(default_factory=dict)


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
        DataError: a file is missing; while rows are read: it is no JSON list.
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
    published = [] if folder is None or not (folder / QUESTION_FOLDER).is_dir() else question_files(folder)
    return Source(
        "OmniMedVQA split files",
        _rows(described, folder if images else None, published),
        (*(file.path for file in described), *published),
        license_of,
        NOTES,
        all(file.split for file in described),
        {"images": images, "modality": known, "names": [file.shown for file in described]},
    )


def _described(paths: Sequence[Path], modality: str | None) -> list[_File]:
    stems = [path.stem for path in paths]
    files = []
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; check --split-file")
        stem, _, suffix = path.stem.rpartition("_")
        split = SPLIT_NAMES.get(suffix.lower())
        name = stem if split else path.stem
        # Two folders may hold files of the same name.
        shown = path.name if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.name}"
        split = split or SPLIT_NAMES.get(path.parent.name.lower())
        files.append(_File(path, shown, modality or canonical_modality(name), split))
    names = [file.shown for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"--split-file: {twice} was given twice, or from two folders of the same name; rename one")
    return files


def _rows(files: Sequence[_File], root: Path | None, published: Sequence[Path]) -> Iterator[Question | Unusable]:
    facts = _published(published)
    given = all(file.split for file in files)
    table_map = replace(preset("r1-v").map, required=("image", "options"))
    table_map = replace(table_map, columns={**table_map.columns, "image": "image"})
    images = None if root is None else ImageRoot(root)
    for file in files:
        for row in read_rows(TableFile(file.path, kind="json"), table_map, images, origin=True, shown=file.shown):
            yield row if isinstance(row, Unusable) else _completed(row, file, facts, root is not None, given)


def _completed(question: Question, file: _File, facts: _Published, images: bool, given: bool) -> Question | Unusable:
    """The question with what its row does not say."""
    number, image = question.metadata["row"], question.metadata.get("image", "").strip()
    if not image:
        return Unusable(file.shown, number, "image", "is not text", "")
    modality = file.modality or facts.modality.get(image)
    if modality is None:
        reason = "is not told by the name of the file"
        return Unusable(file.shown, number, "modality", reason, "", f"{reason}; give --modality")
    metadata = {**question.metadata, "image": image, "dataset": facts.dataset.get(image) or _collection(image)}
    return replace(
        question,
        id=f"{file.shown.removesuffix(file.path.suffix)}-{number:05d}",
        images=question.images if images else (),
        modality=modality,
        task=facts.task.get((image, question.text)),
        metadata={**metadata, "split": file.split} if given else metadata,
    )


def _collection(image: str) -> str:
    """`Images/RadImageNet/normal/a.png` -> `RadImageNet`."""
    parts = [part for part in image.split("/")[:-1] if part not in ("", ".")]
    return next((part for part in parts if part != "Images"), "unknown")


def _published(files: Sequence[Path]) -> _Published:
    facts = _Published()
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
