"""What a study runs: one plan for each arm, base model, training modality and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from msgspec.structs import replace

from kepo.data.arguments import DataArguments, load_questions
from kepo.errors import ConfigError, DataError, did_you_mean
from kepo.files import content_hash, write_text
from kepo.recipes.files import read_recipe
from kepo.runs.study import RUNS, TUNING, StudyArm, StudyContrast, StudyFile, StudyTuning, write_study_file
from kepo.studies.schema import DEFAULT_MODEL, ArmSpec, ModelSpec, StudySpec
from kepo.types import Question

RECIPES = "recipes"
LOGS = "logs"
_HEAD = "# Written by `kepo study`; it is written again each time.\n"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run of a study."""

    study: StudySpec
    arm: ArmSpec
    model: ModelSpec
    modality: str  # the only one trained on
    seed: int | None  # of training; None for an arm that trains nothing
    # Recipe fields that go over all others: what the tuning chose, or what this run of it tries.
    chosen: Mapping[str, Any] = field(default_factory=dict)
    stage: str = RUNS  # or TUNING, for a run that is validated but never tested

    @property
    def name(self) -> str:
        """Unique among the runs of its stage and training modality."""
        model = self.model.name if self.model.name != DEFAULT_MODEL else None
        seed = None if self.seed is None else f"seed-{self.seed}"
        tried = combination(self.chosen) if self.stage == TUNING else None
        return "--".join(part for part in (self.arm.name, model, seed, tried) if part is not None)

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
        return self.root / self.stage / self.name

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
        study = self.study
        fields = {
            "base": list(self.arm.recipe),
            **study.fields,
            **self.model.fields,
            **self.arm.fields,
            **self.chosen,
            "arm": self.arm.name,
            "replicate": self.replicate,
            "data_format": "auto",
            "data_path": str(study.data.train),
            "modality": self.modality,
            "output_dir": str(self.folder),
        }
        if self.seed is not None:
            fields["seed"] = self.seed
        if study.validation is not None:
            fields |= {"validation_path": str(study.data.validation), "validate_every": study.validation.every}
            fields["validation_max_new_tokens"] = study.evaluation.max_new_tokens
        return fields

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the run, where its recipe says so."""
        steps = self.resolved().get("max_steps") if self.arm.train else None
        return int(steps) if steps else None

    def resolved(self) -> dict[str, Any]:
        """The fields of `recipe_file` with those of its bases; the file must have been written."""
        return read_recipe(self.recipe_file)


def combination(fields: Mapping[str, Any]) -> str:
    """Names a combination of the tuning's grid: its values."""
    return ",".join(str(value).replace("/", "_") for value in fields.values())


def chosen_arms(study: StudySpec, only: Sequence[str] = ()) -> list[ArmSpec]:
    """The arms named in `only`, all when it is empty; raises ConfigError for a name that is no arm."""
    names = [arm.name for arm in study.arms]
    unknown = next((name for name in only if name not in names), None)
    if unknown is not None:
        raise ConfigError(f"--only {unknown!r} is no arm of {study.source}; {did_you_mean(unknown, names)}")
    return [arm for arm in study.arms if not only or arm.name in only]


def plan_runs(
    study: StudySpec, only: Sequence[str] = (), chosen: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None
) -> list[RunPlan]:
    """Every run, one repetition after the other, so that a study that is stopped early has compared what it has.

    `chosen` is training modality -> arm -> recipe fields that the tuning chose.
    """
    arms = chosen_arms(study, only)
    plans = [
        RunPlan(study, arm, model, modality, seed, (chosen or {}).get(modality, {}).get(arm.name, {}))
        for seed in (None, *study.seeds)
        for modality in study.modalities
        for model in study.models
        for arm in arms
        if arm.train == (seed is not None)
    ]
    return sorted(plans, key=lambda plan: plan.arm.last)


def write_recipes(plans: Sequence[RunPlan]) -> None:
    """Write the recipe of every run."""
    for plan in plans:
        fields = yaml.safe_dump(plan.fields(), sort_keys=False, allow_unicode=True)
        write_text(_HEAD + fields, plan.recipe_file)


def describe_study(study: StudySpec, tuned: Mapping[str, StudyTuning] | None = None) -> None:
    """Write `study.json` for reports, of the whole and of each training modality, with what its tuning found."""
    described = StudyFile(
        title=study.title,
        question=study.question,
        main_arm=study.main_arm,
        arms={arm.name: StudyArm(arm.label, order, arm.baseline) for order, arm in enumerate(study.arms)},
        contrasts=tuple(StudyContrast(one.title, one.pairs) for one in study.contrasts),
        in_domain=study.modalities,
    )
    write_study_file(study.out, described)
    for modality in study.modalities:
        title = f"{study.title}, trained on {modality}" if len(study.modalities) > 1 else study.title
        found = replace(described, title=title, in_domain=(modality,), tuning=(tuned or {}).get(modality))
        write_study_file(study.out / modality, found)


def check_recipes(plans: Sequence[RunPlan]) -> None:
    """Raise ConfigError for a field of the written recipes that `kepo train` does not know; names file and field."""
    from kepo.recipes.recipe import check_recipe

    seen = set()
    for plan in plans:
        # Runs of an arm and model differ in values only.
        if (plan.arm.name, plan.model.name) not in seen:
            seen.add((plan.arm.name, plan.model.name))
            check_recipe(str(plan.recipe_file))
            if not plan.arm.train and not plan.resolved().get("model_name_or_path"):
                raise ConfigError(
                    f"{plan.study.source}, key 'arms.{plan.arm.name}': no model_name_or_path is named, and this arm "
                    "trains none; name it under models, or in the recipe"
                )


def check_data(study: StudySpec) -> None:
    """Raise DataError for missing questions, ConfigError where a run would be chosen on what it is tested with."""
    data = study.data
    for path in (data.train, data.validation, data.test):
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder; `kepo prepare` writes it, or give --data")
    if study.validation is not None:  # otherwise `kepo eval --best-by` checks it
        validation, test = (load_questions(DataArguments(data_path=str(path))) for path in (data.validation, data.test))
        ids, shown = {question.id for question in validation}, set(map(_shown, validation))
        repeated = [question.id for question in test if question.id in ids or _shown(question) in shown]
        if repeated:
            raise ConfigError(
                f"{data.test}: {len(repeated)} questions are in {data.validation} too, by which a run's weights are "
                f"chosen ({', '.join(map(repr, repeated[:3]))}); a run is never chosen on what it is tested with. Keep "
                "validation and test apart."
            )


def _shown(question: Question) -> str:
    """What a question asks, whatever its id and options."""
    text = " ".join(question.text.casefold().split())
    parts = [{"type": "text", "text": text}, *({"type": "image", "image": image} for image in question.images)]
    return content_hash([{"role": "user", "content": parts}])
