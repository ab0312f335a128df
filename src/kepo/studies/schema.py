"""The study file as frozen records. `kepo.studies.reading` makes them from YAML; docs/study.md explains the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_MODEL = "model"


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """One arm.

    Attributes:
        name: Short name, unique; part of folder names.
        recipe: Name of a shipped recipe, or the path of one; of an arm without training, how it is asked.
        label: For tables and figures.
        baseline: Whether the claim is about a comparison with it.
        train: False: the model as it is.
        fields: Recipe fields of this arm.
    """

    name: str
    recipe: str
    label: str
    baseline: bool = False
    train: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One base model.

    Attributes:
        name: Short name, unique; part of folder names, and what reports call it.
        fields: Recipe fields, `model_name_or_path` above all; empty: the recipes' own model.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Paths of the questions, each with an image on one side only: what `kepo prepare` writes."""

    train: Path
    validation: Path
    test: Path


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """How models are evaluated.

    Attributes:
        options: Options of `kepo eval`, by their names with underscores, for validation and test alike.
        validation_limit: Ask this many validation questions; None: all.
        test_limit: Ask this many test questions; None: all.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    validation_limit: int | None = None
    test_limit: int | None = None


@dataclass(frozen=True, slots=True)
class SlurmSpec:
    """What a Slurm script says.

    Attributes:
        options: Of `sbatch`, by their long names: {"time": "12:00:00", "gpus-per-node": "4"}.
        setup: Shell lines before the command, such as activating an environment.
        at_once: Most tasks of the array that run at the same time; None: no bound.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    at_once: int | None = None


@dataclass(frozen=True, slots=True)
class StudySpec:
    """A whole study.

    Attributes:
        source: The file.
        title: Of its reports.
        question: What it asks, for its reports.
        out: The folder of everything it makes.
        data: The questions.
        arms: In the order of tables.
        models: Base models; at least one.
        seeds: Of training, each once.
        modalities: Each is the single source of training once.
        fields: Recipe fields of all runs; models and arms go over them.
        main_arm: Name of the arm that the others are compared with.
        evaluation: How models are evaluated.
        accelerate_config: As `kepo train --accelerate-config`; None: one process.
        slurm: For `--print slurm`.
    """

    source: Path
    title: str
    question: str
    out: Path
    data: DataSpec
    arms: tuple[ArmSpec, ...]
    models: tuple[ModelSpec, ...]
    seeds: tuple[int, ...]
    modalities: tuple[str, ...]
    fields: Mapping[str, Any]
    main_arm: str
    evaluation: EvaluationSpec
    accelerate_config: str | None
    slurm: SlurmSpec
