"""One run of a study: its note comes last, its log says why it failed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kepo.benchmark import worker
from kepo.benchmark.arms import Arm
from kepo.benchmark.plan import RunPlan, StudySettings
from kepo.errors import DataError
from kepo.runs import open_run


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    return RunPlan(tmp_path, Arm("grpo", "GRPO", "grpo"), "student-1", 3, StudySettings())


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order; training and evaluation do nothing but print."""
    done: list[str] = []

    def train(plan: RunPlan) -> None:
        plan.folder.mkdir(parents=True, exist_ok=True)
        done.append("train")
        print("training", file=sys.stderr)  # noqa: T201

    def evaluate(plan: RunPlan, model: Path) -> None:
        assert not worker.is_done(plan)
        done.append(f"evaluate {model.relative_to(plan.study)}")
        print("evaluating")  # noqa: T201

    monkeypatch.setattr(worker, "_train", train)
    monkeypatch.setattr(worker, "_evaluate", evaluate)
    return done


def test_a_run_trains_evaluates_what_it_trained_and_then_is_done(plan: RunPlan, steps: list[str]) -> None:
    worker.run(plan)
    assert steps == ["train", "evaluate runs/grpo--student-1--seed-3"]
    assert worker.is_done(plan)
    assert plan.log.read_text() == "training\nevaluating\n"


def test_the_base_model_is_evaluated_as_it_is_in_a_run_folder_of_its_own(plan: RunPlan, steps: list[str]) -> None:
    plan = replace(plan, arm=Arm("zero-shot", "Base model", None))
    worker.run(plan)
    assert steps == ["evaluate models/student-1"]
    run = open_run(plan.folder)
    assert (run.arm, run.replicate) == ("zero-shot", "student-1/seed-3")


def test_a_failed_run_is_not_done_and_its_log_holds_the_traceback(
    plan: RunPlan, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(plan: RunPlan, model: Path) -> None:
        raise DataError("row 3 has no image")

    monkeypatch.setattr(worker, "_evaluate", fail)
    with pytest.raises(DataError, match="row 3"):
        worker.run(plan)
    assert not worker.is_done(plan)
    log = plan.log.read_text()
    assert log.startswith("training\nTraceback")
    assert "DataError: row 3 has no image" in log


def test_a_run_that_is_started_again_is_not_done_until_it_ends(
    plan: RunPlan, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.run(plan)

    def interrupt(plan: RunPlan) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        worker.run(plan)
    assert not worker.is_done(plan), "the note of the run before must not vouch for this one"


def test_a_note_of_another_plan_does_not_count(plan: RunPlan) -> None:
    plan.folder.mkdir(parents=True)
    (plan.folder / "plan.json").write_text(json.dumps(replace(plan, settings=StudySettings(steps=1)).identity()))
    assert not worker.is_done(plan)
