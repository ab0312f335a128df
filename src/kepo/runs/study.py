"""`study.json`: title, question and arms of a study, for its report; the runs lie in `runs/` beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from kepo.errors import DataError
from kepo.files import write_text

STUDY = "study.json"
RUNS = "runs"
TUNING = "tuning"
"""The folder of a study's trial runs, beside `RUNS`."""


class StudyArm(msgspec.Struct, frozen=True):
    """How an arm is shown."""

    label: str | None = None  # for people; None: its name
    order: float | None = None  # its place among the arms, rising; those without come last, by name
    baseline: bool = False  # whether the claim is about a comparison with it


class StudyContrast(msgspec.Struct, frozen=True):
    """One question to a study."""

    title: str
    pairs: tuple[tuple[str, str], ...]  # (first arm, second arm); each is answered by first minus second


class StudyTuning(msgspec.Struct, frozen=True):
    """How a setting was chosen for every arm."""

    field: str  # the setting
    scores: dict[str, dict[str, float]]  # arm -> value -> in-domain validation accuracy of its trial run, 0..1
    chosen: dict[str, str | float]  # arm -> value


class StudyFile(msgspec.Struct, frozen=True):
    """The content of `study.json`."""

    title: str | None = None
    question: str | None = None
    main_arm: str | None = None  # name of the arm that the others are compared with
    arms: dict[str, StudyArm] = {}  # name -> how it is shown
    contrasts: tuple[StudyContrast, ...] = ()  # empty: whether the main arm is above its baselines
    in_domain: tuple[str, ...] = ()  # the modalities trained on, where the evaluations do not say
    tuning: StudyTuning | None = None  # None where no setting was chosen by trial runs


def write_study_file(folder: Path, study: StudyFile) -> None:
    """Write `study.json` into the folder of a study, whole or not at all; a failure of the disk is a DataError."""
    write_text(msgspec.json.format(msgspec.json.encode(study), indent=2).decode() + "\n", folder / STUDY)


def read_study_file(folders: Sequence[Path]) -> StudyFile:
    """The first `study.json` in one of the folders, or in the folder above it; an empty one where there is none.

    Raises:
        DataError: It is not JSON, or not of this form.
    """
    for file in (place / STUDY for folder in folders for place in (folder, folder.resolve().parent)):
        if file.is_file():
            try:
                return msgspec.json.decode(file.read_bytes(), type=StudyFile)
            except msgspec.ValidationError as error:
                example = '{"title": "...", "arms": {"kepo": {...}}}'
                raise DataError(
                    f"{file} must hold a record such as {example}: {error}. Fix it or remove it."
                ) from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{file} is not JSON ({error}); fix it or remove it.") from error
    return StudyFile()


def runs_of(folder: Path) -> Path:
    """Where the runs of a folder lie: a study also holds trial runs, which are no result."""
    runs = folder / RUNS
    return runs if (folder / STUDY).is_file() and runs.is_dir() else folder
