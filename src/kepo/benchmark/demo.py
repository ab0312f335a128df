"""`kepo demo`: a small study of the built-in benchmark, or the whole one, from questions to report."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kepo.benchmark.arms import OTHER_TEACHERS, RELIABLE, Arm, all_arms, demo_arms
from kepo.benchmark.plan import MODELS, StudySettings, plan_runs
from kepo.benchmark.questions import write_study_questions
from kepo.benchmark.study import describe_study, run_plans
from kepo.benchmark.tuning import tune
from kepo.phantom.build import build_models
from kepo.phantom.models import copy_models

DEMO = StudySettings(bases=("student-1", "student-2"), seeds=(1,), steps=60, test=210)
FULL = StudySettings(bases=("student-1", "student-2", "student-3"), seeds=(1, 2), steps=40, test=315)


def run_demo(study: Path, workers: int, console: Console) -> None:
    """Train four arms on MRI from two base students each, and evaluate them on all modalities.

    Raises:
        KepoError: A run failed, or the folder holds another study.
    """
    arms = demo_arms()
    _prepare(study, arms, DEMO, "KEPO on PhantomVQA, a first look", console)
    run_plans(plan_runs(study, arms, DEMO), workers, console)


def run_full_study(study: Path, workers: int, console: Console) -> None:
    """All arms, three base students, two seeds, three teachers; settings chosen on validation questions first.

    Raises:
        KepoError: A run failed, or the folder holds another study.
    """
    arms = all_arms()
    _prepare(study, arms, FULL, "KEPO on PhantomVQA", console)
    console.print("Choosing the learning rate of every arm on validation questions")
    chosen = tune(study, arms, FULL, workers, console)
    console.print("The study")
    run_plans(plan_runs(study, arms, FULL, chosen), workers, console)


def _prepare(study: Path, arms: list[Arm], settings: StudySettings, title: str, console: Console) -> None:
    with console.status("Drawing the questions") as status:
        write_study_questions(study, settings)
        status.update("Copying the base models")
        copy_models(study / MODELS, (*settings.bases, f"teacher-{RELIABLE}"))
        if any(arm.teacher in OTHER_TEACHERS for arm in arms):
            others = [f"teacher-{name}" for name in OTHER_TEACHERS]
            build_models(study / MODELS, others, tell=lambda text: status.update(f"Building teachers: {text}"))
    describe_study(study, arms, title)
