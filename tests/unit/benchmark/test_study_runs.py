"""The part of a study that needs no model: its description, and how failures are told."""

from __future__ import annotations

import io
import json
from concurrent.futures import Future
from pathlib import Path

import pytest
from rich.console import Console

from kepo.benchmark import study
from kepo.benchmark.arms import Arm, all_arms
from kepo.benchmark.plan import RunPlan, StudySettings
from kepo.benchmark.study import default_workers, describe_study, run_plans
from kepo.errors import ConfigError, KepoError

PLAN = RunPlan(Path("study"), Arm("grpo", "GRPO", "grpo"), "student-1", 3, StudySettings())


def test_a_study_names_its_arms_in_their_order(tmp_path: Path) -> None:
    describe_study(tmp_path, all_arms(), "A title")
    (file,) = tmp_path.rglob("study.json")
    described = json.loads(file.read_text(encoding="utf-8"))
    assert described["title"] == "A title"
    assert described["main_arm"] == "kepo"
    assert sorted(described["arms"], key=lambda name: described["arms"][name]["order"]) == [a.name for a in all_arms()]
    assert described["arms"]["opd-0"]["label"] == "OPD, λ = 0"


def test_there_is_at_least_one_worker() -> None:
    assert default_workers() >= 1


def test_a_study_that_is_done_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "is_done", lambda plan: True)
    monkeypatch.setattr(study, "ProcessPoolExecutor", None)
    run_plans([PLAN], 1, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("error", "told"),
    [(ConfigError("there is no teacher."), r"there is no teacher\."), (RuntimeError("no room"), r"RuntimeError\('no")],
)
def test_a_failed_run_is_named_with_its_reason_and_its_log(error: Exception, told: str) -> None:
    future: Future[None] = Future()
    future.set_exception(error)
    with pytest.raises(
        KepoError, match=f"grpo--student-1--seed-3 failed: {told}.*logs/runs-grpo--student-1--seed-3.log"
    ):
        study._check(future, PLAN)


def test_a_run_that_ended_well_is_not_complained_about() -> None:
    future: Future[None] = Future()
    future.set_result(None)
    study._check(future, PLAN)
