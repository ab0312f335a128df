"""The study file as frozen records. `kepo.studies.reading` makes them from YAML; docs/study.md explains the keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

DEFAULT_MODEL = "model"

Positive = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1)]
# Part of a folder's name, in which "--" separates.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9](-?[A-Za-z0-9._@])*\Z")]


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """What can be written in a study file."""


class ArmSpec(Record, frozen=True):
    """One arm.

    Attributes:
        name: Short name, unique; part of folder names.
        recipe: Names of shipped recipes, or paths, later ones over earlier ones; of an arm without training, how it is
            asked.
        label: For tables and figures; empty: its name.
        baseline: Whether the claim is about a comparison with it.
        train: False: the model as it is.
        fields: Recipe fields of this arm.
        tuned_as: Name of the arm whose choice of the tuning it takes over; None: it is tuned itself.
        last: Its runs come after those of the other arms.
    """

    name: Name
    recipe: Annotated[tuple[Text, ...], Meta(min_length=1)]
    label: str = ""
    baseline: bool = False
    train: bool = True
    fields: dict[str, Any] = {}
    tuned_as: str | None = None
    last: bool = False


class ModelSpec(Record, frozen=True):
    """One base model.

    Attributes:
        name: Short name, unique; part of folder names, and what reports call it.
        fields: Recipe fields, `model_name_or_path` above all; empty: the recipes' own model.
    """

    name: Name
    fields: dict[str, Any] = {}


class DataSpec(Record, frozen=True):
    """Paths of the questions, each with an image in one split only: what `kepo prepare` writes."""

    train: Path
    validation: Path
    test: Path


class ValidationSpec(Record, frozen=True):
    """Validation while a model trains: the run ends with the weights that were best in domain; no checkpoint is needed.

    Attributes:
        every: Optimizer steps between two validations.
    """

    every: Positive


class EvaluationSpec(Record, frozen=True):
    """How models are evaluated: options of `kepo eval`, for validation and test alike, None: its default.

    Attributes:
        validation_limit: Ask this many validation questions; None: all.
        test_limit: Ask this many test questions; None: all.
    """

    batch_size: Positive | None = None
    dtype: str | None = None
    device: str | None = None
    devices: str | None = None
    max_new_tokens: Positive | None = None
    prompt_style: str | None = None
    image_size: Positive | None = None
    reward: str | None = None
    validation_limit: Positive | None = None
    test_limit: Positive | None = None

    @property
    def options(self) -> dict[str, str]:
        """Those that are given, by their names with underscores."""
        limits = ("validation_limit", "test_limit")
        given = {name: getattr(self, name) for name in self.__struct_fields__ if name not in limits}
        return {name: str(value) for name, value in given.items() if value is not None}


class TuningSpec(Record, frozen=True):
    """Settings that are chosen on validation questions before the study runs.

    Attributes:
        grid: Recipe field -> values to try; every combination is one run for each arm that is tuned.
        seed: Of these runs; none of the study's.
        arms: Names of the arms that are tuned; empty: all that train, but for those with `tuned_as`.
        model: Name of the base model that they start from; None: the first.
    """

    grid: Annotated[dict[str, Annotated[tuple[Any, ...], Meta(min_length=1)]], Meta(min_length=1)]
    seed: Seed
    arms: tuple[str, ...] = ()
    model: str | None = None


class Contrast(Record, frozen=True):
    """One question to the study.

    Attributes:
        title: The question.
        pairs: (first arm, second arm), each answered by first minus second. Their p-values are adjusted together.
    """

    title: Text
    pairs: Annotated[tuple[tuple[str, str], ...], Meta(min_length=1)]


class SlurmSpec(Record, frozen=True):
    """What a Slurm script says.

    Attributes:
        options: Of `sbatch`, by their long names: {"time": "12:00:00", "gpus-per-node": "4"}.
        setup: Shell lines before the command, such as activating an environment.
        at_once: Most tasks of the array that run at the same time; None: no bound.
    """

    options: dict[
        Annotated[str, Meta(pattern=r"^[a-z][a-z-]*\Z")], int | Annotated[str, Meta(pattern=r"^[^\n]*\Z")]
    ] = {}
    setup: tuple[str, ...] = ()
    at_once: Positive | None = None


class StudySpec(Record, frozen=True, kw_only=True):
    """A whole study.

    Attributes:
        source: The file.
        title: Of its reports.
        question: What it asks, for its reports.
        out: The folder of everything it makes; `$out` in the file's other values stands for it.
        data: The questions.
        arms: In the order of tables.
        models: Base models; at least one.
        seeds: Of training, each once.
        modalities: Each is the single source of training once.
        fields: Recipe fields of all runs; models and arms go over them.
        main_arm: Name of the arm that the others are compared with.
        validation: Validation while a model trains; None: every checkpoint is validated afterwards.
        evaluation: How models are evaluated.
        tuning: Settings to choose first; None: none.
        contrasts: Questions to the study, for its reports.
        workers: "commands": every command is a process of its own. "in-process": processes that stay warm carry out
            one command after the other, with one thread each; for models so small that starting takes long beside them.
        accelerate_config: As `kepo train --accelerate-config`; None: one process.
        slurm: For `--print slurm`.
    """

    source: Path
    title: str
    question: str = ""
    out: Path
    data: DataSpec
    arms: tuple[ArmSpec, ...]
    models: tuple[ModelSpec, ...] = (ModelSpec(name=DEFAULT_MODEL),)
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)]
    modalities: Annotated[tuple[str, ...], Meta(min_length=1)]
    fields: dict[str, Any] = {}
    main_arm: str
    validation: ValidationSpec | None = None
    evaluation: EvaluationSpec = EvaluationSpec()
    tuning: TuningSpec | None = None
    contrasts: tuple[Contrast, ...] = ()
    workers: Literal["commands", "in-process"] = "commands"
    accelerate_config: Text | None = None
    slurm: SlurmSpec = SlurmSpec()

    def arm(self, name: str) -> ArmSpec:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)
