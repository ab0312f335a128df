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
OptionName = Annotated[str, Meta(pattern=r"^[a-z][a-z-]*\Z")]
Line = Annotated[str, Meta(pattern=r"^[^\n]*\Z")]


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """What can be written in a study file."""


class ArmSpec(Record, frozen=True):
    """One arm."""

    name: Name
    recipe: Annotated[tuple[Text, ...], Meta(min_length=1)]  # names of shipped recipes, or paths; later ones override
    label: str = ""  # for tables and figures
    baseline: bool = False  # the claim is about a comparison with it
    train: bool = True  # False: the model as it is
    fields: dict[str, Any] = {}  # recipe fields
    tuned_as: str | None = None  # the arm whose choice of the tuning it takes over; None: it is tuned itself
    last: bool = False  # its runs come after those of the other arms


class ModelSpec(Record, frozen=True):
    """One base model."""

    name: Name
    fields: dict[str, Any] = {}  # recipe fields, `model_name_or_path` above all; empty: the recipes' own model


class DataSpec(Record, frozen=True):
    """Paths of the questions, each with an image in one split only: what `kepo prepare` writes."""

    train: Path
    validation: Path
    test: Path


class ValidationSpec(Record, frozen=True):
    """Validation while a model trains: the run ends with the weights that were best in domain."""

    every: Positive  # optimizer steps


class EvaluationSpec(Record, frozen=True):
    """How models are evaluated: options of `kepo eval` for validation and test alike, and the `--limit` of each."""

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
    """Settings that are chosen on validation questions before the study runs."""

    # Recipe field -> values to try; every combination is one run for each arm that is tuned.
    grid: Annotated[dict[str, Annotated[tuple[Any, ...], Meta(min_length=1)]], Meta(min_length=1)]
    seed: Seed  # none of the study's
    arms: tuple[str, ...] = ()  # empty: all that train, but for those with `tuned_as`
    model: str | None = None  # None: the first


class Contrast(Record, frozen=True):
    """One question to the study."""

    title: Text
    # (first arm, second arm), each answered by first minus second; their p-values are adjusted together.
    pairs: Annotated[tuple[tuple[str, str], ...], Meta(min_length=1)]


class SlurmSpec(Record, frozen=True):
    """What a Slurm script says."""

    options: dict[OptionName, int | Line] = {}  # of `sbatch`, by their long names: {"time": "12:00:00"}
    setup: tuple[str, ...] = ()  # shell lines before the command, such as activating an environment
    at_once: Positive | None = None  # most tasks of the array that run at the same time


class StudySpec(Record, frozen=True, kw_only=True):
    """A whole study."""

    source: Path  # the file
    title: str
    question: str = ""  # for its reports
    out: Path  # folder of everything it makes; `$out` in the file's other values
    data: DataSpec
    arms: tuple[ArmSpec, ...]  # in the order of tables
    models: tuple[ModelSpec, ...] = (ModelSpec(name=DEFAULT_MODEL),)
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)]
    modalities: Annotated[tuple[str, ...], Meta(min_length=1)]  # each is the single source of training once
    fields: dict[str, Any] = {}  # recipe fields of all runs; models and arms go over them
    main_arm: str
    validation: ValidationSpec | None = None  # None: every checkpoint is validated afterwards
    evaluation: EvaluationSpec = EvaluationSpec()
    tuning: TuningSpec | None = None
    contrasts: tuple[Contrast, ...] = ()
    # "in-process": processes that stay warm carry out one command after the other, with one thread each; for models so
    # small that starting takes long beside them.
    workers: Literal["commands", "in-process"] = "commands"
    accelerate_config: Text | None = None
    slurm: SlurmSpec = SlurmSpec()

    def arm(self, name: str) -> ArmSpec:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)
