"""A small study from plans to records, with untrained models: two arms, three updates, one worker."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from kepo.benchmark.arms import Arm
from kepo.benchmark.plan import RunPlan, StudySettings, plan_runs
from kepo.benchmark.questions import write_study_questions
from kepo.benchmark.study import run_plans
from kepo.benchmark.worker import is_done
from kepo.errors import KepoError
from kepo.models.llava import LlavaSize, build_llava
from kepo.phantom.tokenizer import phantom_tokenizer
from kepo.reports.report import report_study
from kepo.runs import open_run, read_metrics

pytestmark = pytest.mark.slow

SMALL = {"per_device_train_batch_size": "8", "num_generations": "4", "max_completion_length": "4"}
ARMS = [
    Arm("zero-shot", "Base model", None),
    Arm("grpo", "GRPO", "grpo", SMALL),
    Arm("opd-0", "OPD, λ = 0", "opd", {**SMALL, "lmbda": "0"}),
]
SETTINGS = StudySettings(steps=3, validate_every=2, train=8, validation=4, watched=1, test=1, test_others=1)


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Path:
    """A study that was run once."""
    folder = tmp_path_factory.mktemp("study")
    write_study_questions(folder, SETTINGS)
    phantom_tokenizer().save_pretrained(folder / "tokenizer")
    size = LlavaSize(vision_width=32, vision_layers=1, text_width=32, text_layers=1)
    for seed, name in enumerate(("student-1", "teacher-reliable")):
        build_llava(folder / "models" / name, [], size=size, tokenizer_from=folder / "tokenizer", seed=seed)
    _run(_plans(folder))
    return folder


def _plans(study: Path) -> list[RunPlan]:
    return plan_runs(study, ARMS, SETTINGS)


def _run(plans: list[RunPlan]) -> None:
    run_plans(plans, 1, Console(file=io.StringIO()))


def test_every_run_is_trained_validated_and_tested(study: Path) -> None:
    for plan in _plans(study):
        run = open_run(plan.folder)
        assert is_done(plan)
        assert run.manifest["status"] == "finished"
        assert (run.arm, run.replicate) == (plan.arm.name, "student-1/seed-1")
        assert list(run.evaluations) == ["test"]
    for plan in _plans(study)[1:]:
        metrics = read_metrics(plan.folder)
        validated = [record["step"] for record in metrics if "validation/in_domain" in record]
        assert validated == [0, 2, 3]
        assert [record["step"] for record in metrics if "validation/best_step" in record] == [3]


def test_the_results_are_read_from_the_records(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # nothing may depend on where the study was run from
    report_study(study, tmp_path / "r.html", Console(file=io.StringIO()), tmp_path / "docs" / "results.md")
    text = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    answers = pq.read_table(study / "runs" / "grpo--student-1--seed-1" / "evaluation" / "test.parquet").to_pylist()
    inside = [row["correct"] for row in answers if row["modality"] == "MRI"]
    accuracy = f"{100 * sum(inside) / len(inside):.1f}"
    assert f"| **grpo** | 1 | {accuracy} (" in text or f"| grpo | 1 | {accuracy} (" in text
    assert "3 arms, 3 runs" in text
    assert "injected" not in text  # no arm explored


def test_every_run_writes_a_log_of_its_own(study: Path) -> None:
    for plan in _plans(study):
        assert "Logging error" not in plan.log.read_text(), "a handler still writes to the log of the run before"


def test_finished_runs_are_left_alone_and_an_interrupted_one_is_run_again(study: Path) -> None:
    plans = _plans(study)
    before = {plan.name: (plan.folder / "plan.json").stat().st_mtime_ns for plan in plans}
    _run(plans)
    assert {plan.name: (plan.folder / "plan.json").stat().st_mtime_ns for plan in plans} == before

    interrupted = plans[1]
    (interrupted.folder / "plan.json").unlink()
    _run(plans)
    after = {plan.name: (plan.folder / "plan.json").stat().st_mtime_ns for plan in plans}
    assert [name for name in before if after[name] != before[name]] == [interrupted.name]


def test_a_run_that_fails_is_named_with_its_log(study: Path) -> None:
    plan = replace(_plans(study)[1], arm=replace(ARMS[1], name="broken", settings={"num_generations": "3"}))
    with pytest.raises(
        KepoError, match=r"broken--student-1--seed-1 failed: .*logs/runs-broken--student-1--seed-1\.log"
    ):
        _run([plan])
    assert "Traceback" in plan.log.read_text()
    assert not is_done(plan)
