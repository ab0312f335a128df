"""Data sets as they unpack: JSON lists beside folders of images, each read by its preset.

The split files of OmniMedVQA's users hold rows of the preset `r1-v`, one file per modality. Only the name of the file
says the modality; question types and collections come from the published rows about the same image, where these exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase

from kepo.data.images import ImageRoot
from kepo.data.omnimedvqa import MODALITIES, NOTES, QUESTION_FOLDER, canonical_modality, license_of
from kepo.data.readers.presets import load_preset
from kepo.data.readers.questions import read_rows, read_tables
from kepo.data.readers.rows import TableFile, list_of_rows
from kepo.data.readers.texts import SPLIT_NAMES
from kepo.data.schema import Place
from kepo.data.sources import Source, Unusable, strict
from kepo.errors import ConfigError, DataError
from kepo.types import Question


def load_omnimedvqa(root: str | Path) -> list[Question]:
    """All questions of OmniMedVQA's open-access part, file by file in the order of their names.

    Images are paths (not opened here); the metadata names the source `dataset`.

    Args:
        root: The folder that holds `QA_information` and `Images`.
    """
    files = _omnimedvqa_files(Path(root))
    return strict(_omnimedvqa(Path(root), files, origin=False), files)


def omnimedvqa_source(root: str | Path) -> Source:
    """As `load_omnimedvqa`, for `kepo prepare`: rows that cannot be used are listed; images may be missing."""
    files = _omnimedvqa_files(Path(root))
    return Source("OmniMedVQA", _omnimedvqa(Path(root), files, origin=True), tuple(files), license_of, NOTES)


def _omnimedvqa_files(root: Path) -> list[Path]:
    files = sorted((root / QUESTION_FOLDER).glob("*.json"))
    if not files:
        raise DataError(f"{root}: no file matches {QUESTION_FOLDER}/*.json; give the folder that OmniMedVQA unpacks to")
    return files


def _omnimedvqa(root: Path, files: Sequence[Path], *, origin: bool) -> Iterator[Question | Unusable]:
    lettered = {f"option_{letter}": f"option_{letter}" for letter in ascii_uppercase}
    table_map = load_preset("omnimedvqa").map
    # Not resolved file by file: a row that lacks a column is a problem of that row.
    table_map = replace(table_map, columns={**table_map.columns, **lettered})
    images, seen = ImageRoot(root), dict[str, Place]()
    for file in files:
        yield from read_rows(TableFile(file), table_map, images, seen=seen, origin=origin)


# --- split files of OmniMedVQA ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _File:
    """One split file, and what its name and its folder's name say."""

    path: Path
    shown: str
    modality: str | None
    split: str | None


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the published rows say: image -> modality, collection; (image, question) -> question type."""

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
    published = [] if folder is None or not (folder / QUESTION_FOLDER).is_dir() else _omnimedvqa_files(folder)
    return Source(
        "OmniMedVQA split files",
        _split_file_rows(described, folder if images else None, published),
        (*(file.path for file in described), *published),
        license_of,
        NOTES,
        all(file.split for file in described),
        {"images": images, "modality": known, "names": [file.shown for file in described]},
    )


def _described(paths: Sequence[Path], modality: str | None) -> list[_File]:
    stems = [path.stem for path in paths]
    files: dict[str, _File] = {}
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; check --split-file")
        stem, _, suffix = path.stem.rpartition("_")
        split = SPLIT_NAMES.get(suffix.lower())
        name = stem if split else path.stem
        # Two folders may hold files of the same name.
        shown = path.name if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.name}"
        if shown in files:
            raise ConfigError(
                f"--split-file: {shown} was given twice, or from two folders of the same name; rename one"
            )
        split = split or SPLIT_NAMES.get(path.parent.name.lower())
        files[shown] = _File(path, shown, modality or canonical_modality(name), split)
    return list(files.values())


def _split_file_rows(
    files: Sequence[_File], root: Path | None, published: Sequence[Path]
) -> Iterator[Question | Unusable]:
    facts = _facts(published)
    given = all(file.split for file in files)
    table_map = load_preset("r1-v").map
    table_map = replace(table_map, columns={**table_map.columns, "image": "image"}, required=("image", "options"))
    images = None if root is None else ImageRoot(root)
    for file in files:
        table, shown = TableFile(file.path, kind="json"), images is not None
        for row in read_rows(table, table_map, images, origin=True, shown=file.shown, with_images=shown):
            yield row if isinstance(row, Unusable) else _completed(row, file, facts, given)


def _completed(question: Question, file: _File, facts: _Facts, given: bool) -> Question | Unusable:
    """The question with what its row does not say."""
    number, image = question.metadata["row"], question.metadata.get("image", "").strip()
    if not image:
        return Unusable(file.shown, number, "image", "is not text", "")
    modality = file.modality or facts.modality.get(image)
    if modality is None:
        reason = "is not told by the name of the file"
        return Unusable(file.shown, number, "modality", reason, "", f"{reason}; give --modality")
    # The collection of `Images/RadImageNet/normal/a.png` is RadImageNet.
    folders = (part for part in image.split("/")[:-1] if part not in ("", ".", "Images"))
    dataset = facts.dataset.get(image) or next(folders, "unknown")
    metadata = {**question.metadata, "image": image, "dataset": dataset}
    return replace(
        question,
        id=f"{file.shown.removesuffix(file.path.suffix)}-{number:05d}",
        modality=modality,
        task=facts.task.get((image, question.text)),
        metadata={**metadata, "split": file.split} if given else metadata,
    )


def _facts(files: Sequence[Path]) -> _Facts:
    facts = _Facts()
    for row in (row for file in files for row in list_of_rows(file) if isinstance(row, Mapping)):
        texts = {key: value.strip() for key, value in row.items() if isinstance(value, str)}
        image = texts.get("image_path")
        if image is None:
            continue
        if (modality := canonical_modality(texts.get("modality_type", ""))) is not None:
            facts.modality[image] = modality
        if "dataset" in texts:
            facts.dataset[image] = texts["dataset"]
        if "question" in texts and "question_type" in texts:
            facts.task[image, texts["question"]] = texts["question_type"]
    return facts


# --- VQA-RAD and SLAKE ------------------------------------------------------------------------------------------------


def published_source(
    name: str,
    root: Path,
    questions: Sequence[Path] = (),
    images: Path | None = None,
    closed_only: bool = False,
    language: str | None = None,
) -> Source:
    """The questions of VQA-RAD ("vqa-rad") or SLAKE ("slake"), in their own splits.

    Args:
        name: The preset.
        root: The folder that the data set unpacks to.
        questions: JSON files instead of those in `root`.
        images: Image folder instead of that in `root`.
        closed_only: Leave out what does not become multiple choice with yes and no.
        language: `q_lang` of the questions to use ("en", "zh"); None: all.
    """
    layout = load_preset(name)
    table_map = replace(layout.map, closed_only=closed_only)
    if language is not None:
        if "q_lang" not in table_map.metadata:
            raise ConfigError(f"language {language!r}: {layout.title} is in English only")
        table_map = replace(table_map, where={"q_lang": language})
    tables = [TableFile(file) for file in questions or _first_found(root, "", layout.question_files)]
    # Not resolved by the columns of the table: a row that lacks a column is a problem of that row.
    maps = [table_map.with_split_of(table.path) for table in tables]
    for table, resolved in zip(tables, maps, strict=True):
        if "split" not in (*resolved.columns, *resolved.constants):
            name = "its name is not train, validate or test"
            raise DataError(f"{table.path}: {name}, so its split is not known; rename it")
    folder = images or _first_found(root, "image folder ", [(name,) for name in layout.image_folders])[0]
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path")
    notes = [*layout.notes, "Closed questions with the answer yes or no are multiple choice with the options Yes, No."]
    if not closed_only:
        notes.append("All other questions are open: they have no options, and their answer is a text.")
    return Source(
        name=layout.title or name,
        rows=read_tables(tables, maps, ImageRoot(folder), None),
        files=tuple(table.path for table in tables),
        license_of=lambda dataset: layout.license,
        notes=tuple(notes),
        split_given=True,
        options={"closed_only": closed_only, "language": language},
    )


def _first_found(root: Path, kind: str, choices: Sequence[Sequence[str]]) -> list[Path]:
    """Those files or folders of the first choice of which there is any."""
    for names in choices:
        found = [root / name for name in names if (root / name).exists()]
        if found:
            return found
    listed = " or ".join(", ".join(names) for names in choices)
    raise DataError(
        f"{root}: there is no {kind}{listed}; give the folder that the data set unpacks to, or the option for it"
    )
