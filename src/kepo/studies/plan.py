"""What a study runs: one plan for each arm, base model, training modality and seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kepo.errors import ConfigError, DataError
from kepo.recipes.files import read_recipe
from kepo.runs import RUNS, STUDY
from kepo.studies.schema import DEFAULT_MODEL, ArmSpec, DataSpec, ModelSpec, StudySpec

RECIPES = "recipes"
LOGS = "logs"
_HEAD = "# Written by `kepo study`; it is written again each time.\n"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run of a study.

    Attributes:
        study: The study.
        arm: How it is trained.
        model: From what.
        modality: The only one trained on.
        seed: Of training; None for an arm that trains nothing.
    """

    study: StudySpec
    arm: ArmSpec
    model: ModelSpec
    modality: str
    seed: int | None

    @property
    def name(self) -> str:
        """Unique among the runs of its training modality."""
        parts = [self.arm.name]
        if self.model.name != DEFAULT_MODEL:
            parts.append(self.model.name)
        if self.seed is not None:
            parts.append(f"seed-{self.seed}")
        return "--".join(parts)

    @property
    def title(self) -> str:
        """Unique in the study."""
        return f"{self.modality}/{self.name}"

    @property
    def root(self) -> Path:
        """Everything of this training modality: a study of its own to `kepo report`."""
        return self.study.out / self.modality

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.root / RUNS / self.name

    @property
    def recipe_file(self) -> Path:
        """The recipe of this one run."""
        return self.root / RECIPES / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """What its commands print."""
        return self.root / LOGS / f"{self.name}.log"

    @property
    def replicate(self) -> str:
        """Which repetition: reports pair the arms' runs by it, and take what stands before "/" for the base model."""
        return self.model.name if self.seed is None else f"{self.model.name}/seed-{self.seed}"

    def fields(self) -> dict[str, Any]:
        """The content of `recipe_file`."""
        return {
            "base": self.arm.recipe,
            **self.study.fields,
            **self.model.fields,
            **self.arm.fields,
            "arm": self.arm.name,
            "replicate": self.replicate,
            **({} if self.seed is None else {"seed": self.seed}),
            "data_format": "auto",
            "data_path": str(self.study.data.train),
            "modality": self.modality,
            "output_dir": str(self.folder),
        }

    def resolved(self) -> dict[str, Any]:
        """The fields of `recipe_file` with those of its bases; the file must have been written."""
        return read_recipe(self.recipe_file)


def plan_runs(study: StudySpec, only: Sequence[str] = ()) -> list[RunPlan]:
    """Every run, one repetition after the other, so that a study that is stopped early has compared what it has.

    Args:
        study: The study.
        only: Names of arms; empty: all.

    Raises:
        ConfigError: One of `only` is no arm.
    """
    names = [arm.name for arm in study.arms]
    unknown = next((name for name in only if name not in names), None)
    if unknown is not None:
        raise ConfigError(f"--only {unknown!r} is no arm of {study.source}; there are {', '.join(names)}")
    arms = [arm for arm in study.arms if not only or arm.name in only]
    untrained = [
        RunPlan(study, arm, model, modality, None)
        for modality in study.modalities
        for model in study.models
        for arm in arms
        if not arm.train
    ]
    return untrained + [
        RunPlan(study, arm, model, modality, seed)
        for seed in study.seeds
        for modality in study.modalities
        for model in study.models
        for arm in arms
        if arm.train
    ]


def write_plans(study: StudySpec, plans: Sequence[RunPlan]) -> None:
    """Write the recipe of every run, and `study.json` for reports: names and order of the arms.

    Raises:
        DataError: The disk refuses.
    """
    arms = {
        arm.name: {"label": arm.label, "order": order, "baseline": arm.baseline} for order, arm in enumerate(study.arms)
    }
    described = {"title": study.title, "question": study.question, "main_arm": study.main_arm, "arms": arms}
    try:
        for modality in study.modalities:
            title = f"{study.title}, trained on {modality}" if len(study.modalities) > 1 else study.title
            _write(
                study.out / modality / STUDY, json.dumps({**described, "title": title}, indent=2, ensure_ascii=False)
            )
        _write(study.out / STUDY, json.dumps(described, indent=2, ensure_ascii=False))
        for plan in plans:
            _write(plan.recipe_file, _HEAD + yaml.safe_dump(plan.fields(), sort_keys=False, allow_unicode=True).strip())
    except OSError as error:
        raise DataError(f"{study.out} cannot be written: {error}. Choose another --out.") from error


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n", encoding="utf-8")


def check_recipes(plans: Sequence[RunPlan]) -> None:
    """Check that every field of the written recipes is one that `kepo train` knows.

    Raises:
        ConfigError: names file and field.
    """
    from kepo.recipes.recipe import check_recipe

    seen = set()
    for plan in plans:
        # Runs of an arm and model differ in values only.
        if (plan.arm.name, plan.model.name) not in seen:
            seen.add((plan.arm.name, plan.model.name))
            check_recipe(str(plan.recipe_file))
            _check_model(plan)


def _check_model(plan: RunPlan) -> None:
    if not plan.arm.train and not plan.resolved().get("model_name_or_path"):
        raise ConfigError(
            f"{plan.study.source}, key 'arms.{plan.arm.name}': no model_name_or_path is named, and this arm "
            "trains none; name it under models, or in the recipe"
        )


def check_data(data: DataSpec) -> None:
    """Check that the questions are there.

    Raises:
        DataError: names what is missing.
    """
    for path in (data.train, data.validation, data.test):
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder; `kepo prepare` writes it, or give --data")
