"""What a study runs: settings of the whole, and one plan per run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kepo.benchmark.arms import RELIABLE, Arm
from kepo.recipes.files import read_recipes

DATA = "data"
MODELS = "models"
RUNS = "runs"
TUNING = "tuning"
LOGS = "logs"


@dataclass(frozen=True, slots=True)
class StudySettings:
    """Everything that decides a study's numbers, beside its arms.

    Attributes:
        bases: Names of the base students.
        seeds: Seeds of the training runs; each base is trained with each.
        steps: Updates of a run.
        validate_every: Updates between two validations.
        train: Training questions, all of the modality trained on.
        validation: Validation questions of the modality trained on.
        watched: Validation questions of each other modality; they decide nothing.
        test: Test questions of the modality trained on.
        test_others: Test questions of each other modality.
        data_seed: Seeds the questions.
    """

    bases: tuple[str, ...] = ("student-1",)
    seeds: tuple[int, ...] = (1,)
    steps: int = 100
    validate_every: int = 20
    train: int = 600
    validation: int = 140
    watched: int = 14
    test: int = 105
    test_others: int = 105
    data_seed: int = 2026


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run of a study.

    Attributes:
        study: The study's folder.
        arm: What is trained.
        base: Name of the base student.
        seed: Of training.
        settings: The study's.
        chosen: Recipe fields chosen for this arm on validation data.
        stage: `RUNS`, or `TUNING` for a run that is validated but never sees the test questions.
    """

    study: Path
    arm: Arm
    base: str
    seed: int
    settings: StudySettings
    chosen: tuple[tuple[str, str], ...] = ()
    stage: str = RUNS

    @property
    def name(self) -> str:
        """Unique in its stage."""
        tried = "".join(f"--{value}" for _, value in self.chosen) if self.stage == TUNING else ""
        return f"{self.arm.name}--{self.base}--seed-{self.seed}{tried}"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.study / self.stage / self.name

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.study / LOGS / f"{self.stage}-{self.name}.log"

    def overrides(self) -> list[str]:
        """The command-line arguments that turn the arm's recipe into this run."""
        fields = {
            "arm": self.arm.name,
            "replicate": f"{self.base}/seed-{self.seed}",
            "model_name_or_path": str(self.study / MODELS / self.base),
            "data_path": str(self.study / DATA / "train.jsonl"),
            "output_dir": str(self.folder),
            "max_steps": str(self.settings.steps),
            "seed": str(self.seed),
            "overwrite": "true",
            "disable_tqdm": "true",
            **self.arm.settings,
            **dict(self.chosen),
        }
        if self.arm.recipe != "sft":
            fields["teacher_model_name_or_path"] = str(self.study / MODELS / f"teacher-{self.arm.teacher}")
        return [part for name, value in fields.items() for part in (f"--{name}", value)]

    def identity(self) -> dict[str, Any]:
        """What must be the same for a finished run to count as this one, wherever the study lies; survives JSON."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in ("bases", "seeds")}
        overrides = replace(self, study=Path()).overrides()
        recipe = None if self.arm.recipe is None else read_recipes(f"phantom/{self.arm.recipe}")
        return {"recipe": recipe, "overrides": overrides, "settings": settings}


def plan_runs(
    study: Path, arms: Sequence[Arm], settings: StudySettings, chosen: dict[str, dict[str, str]] | None = None
) -> list[RunPlan]:
    """Every arm with every base and seed: one repetition after the other, so that a study that is stopped early has
    compared what it has; arms with other teachers last."""
    plans = [
        RunPlan(study, arm, base, seed, settings, tuple(sorted((chosen or {}).get(arm.name, {}).items())))
        for seed in settings.seeds
        for base in settings.bases
        for arm in arms
    ]
    return sorted(plans, key=lambda plan: plan.arm.teacher != RELIABLE)
