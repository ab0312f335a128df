"""A small study of untrained models in processes that stay warm: two arms tuned and trained, validated and tested."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from kepo.models.llava import LlavaSize, build_llava
from kepo.phantom.study import Questions
from kepo.phantom.tokenizer import phantom_tokenizer
from kepo.reports.report import report_study
from kepo.runs import open_run, read_metrics
from kepo.studies.plan import TUNING, RunPlan, check_data
from kepo.studies.reading import read_study
from kepo.studies.runner import Failure, is_done
from kepo.studies.schema import StudySpec
from kepo.studies.study import plan_tuning, plans_for_now, run_study

pytestmark = pytest.mark.slow

PHANTOM = "phantom/_base"
CONTENT: dict[str, Any] = {
    "title": "Small",
    "data": {split: f"$out/data/{split}.jsonl" for split in ("train", "validation", "test")},
    "seeds": [1],
    "modalities": ["MRI"],
    "models": {"student-1": "$out/models/student-1"},
    "arms": {
        "zero-shot": {"recipe": [PHANTOM, "arms/grpo"], "label": "Base model", "train": False},
        "grpo": {"recipe": [PHANTOM, "arms/grpo"], "label": "GRPO"},
        "opd-0": {"recipe": [PHANTOM, "arms/opd"], "fields": {"lmbda": 0}, "tuned_as": "grpo"},
    },
    "main_arm": "grpo",
    "contrasts": [{"title": "Does GRPO help?", "pairs": [["grpo", "zero-shot"]]}],
    "fields": {
        "teacher_model_name_or_path": "$out/models/teacher-reliable",
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 4,
    },
    "workers": "in-process",
    "validation": {"every": 2},
    "evaluation": {"dtype": "float32", "max_new_tokens": 4},
    "tuning": {"grid": {"learning_rate": ["1e-4", "3e-4"]}, "seed": 9},
}


def _study(folder: Path, **changed: Any) -> StudySpec:
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, **changed}))
    return read_study(str(file), out=str(folder))


def _run(study: StudySpec) -> list[Failure]:
    return run_study(study, workers=1, say=lambda _: None, quiet=True)


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Path:
    """The folder of a study that was run once."""
    folder = tmp_path_factory.mktemp("study")
    Questions(train=8, validation=4, watched=1, test=1, test_others=1).write(folder)
    phantom_tokenizer().save_pretrained(folder / "tokenizer")
    size = LlavaSize(vision_width=32, vision_layers=1, text_width=32, text_layers=1)
    for seed, name in enumerate(("student-1", "teacher-reliable")):
        build_llava(folder / "models" / name, [], size=size, tokenizer_from=folder / "tokenizer", seed=seed)
    study = _study(folder)
    check_data(study)
    assert _run(study) == []
    return folder


def _plans(folder: Path) -> list[RunPlan]:
    return plans_for_now(_study(folder))


def test_every_run_is_trained_validated_and_tested(folder: Path) -> None:
    plans = _plans(folder)
    assert [plan.name for plan in plans] == [
        "zero-shot--student-1",
        "grpo--student-1--seed-1",
        "opd-0--student-1--seed-1",
    ]
    for plan in plans:
        run = open_run(plan.folder)
        assert is_done(plan)
        assert run.manifest["status"] == "finished"
        assert (run.arm, run.replicate) == (plan.arm.name, plan.replicate)
        assert list(run.evaluations) == ["test"]
    for plan in plans[1:]:
        metrics = read_metrics(plan.folder)
        validated = [record["step"] for record in metrics if "validation/in_domain" in record]
        assert validated == [0, 2, 3]
        assert [record["step"] for record in metrics if "validation/best_step" in record] == [3]
        chosen = float(dict(plan.chosen)["learning_rate"])
        assert open_run(plan.folder).setting("training", "learning_rate") == chosen


def test_the_tuning_is_validated_and_never_tested(folder: Path) -> None:
    tuning = plan_tuning(_study(folder))
    assert [(plan.stage, plan.arm.name) for plan in tuning] == [(TUNING, "grpo")] * 2
    for plan in tuning:
        assert open_run(plan.folder).evaluations == {}
        assert any("validation/in_domain" in record for record in read_metrics(plan.folder))


def test_the_results_are_read_from_the_records(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # nothing may depend on where the study was run from
    console, results = Console(file=io.StringIO()), tmp_path / "docs" / "results.md"
    report_study(folder / "MRI", tmp_path / "report.html", console, results)
    text = results.read_text(encoding="utf-8")
    answers = pq.read_table(_plans(folder)[1].folder / "evaluation" / "test.parquet").to_pylist()
    inside = [row["correct"] for row in answers if row["modality"] == "MRI"]
    accuracy = f"{100 * sum(inside) / len(inside):.1f}"
    # The mark says that the best step was 0, the model before training.
    assert re.search(rf"^\| \*\*GRPO(?: †)?\*\* \| 1 \|.*\| {re.escape(accuracy)} \(", text, re.MULTILINE)
    assert "3 arms, 3 runs" in text
    assert "## Does GRPO help?" in text
    assert "| arm | 1e-4 | 3e-4 | chosen |" in text
    assert "injected" not in text  # no arm explored


def test_every_run_writes_a_log_of_its_own(folder: Path) -> None:
    for plan in _plans(folder):
        log = plan.log.read_text()
        assert f"$ kepo {'train' if plan.arm.train else 'eval'} " in log
        assert plan.name in log
        assert "Logging error" not in log, "a handler still writes to the log of the run before"


def test_finished_runs_are_left_alone_an_interrupted_one_is_run_again_and_one_that_fails_is_told(folder: Path) -> None:
    plans = _plans(folder)
    before = {plan.name: (plan.folder / "plan.json").stat().st_mtime_ns for plan in plans}
    assert _run(_study(folder)) == []
    assert {plan.name: (plan.folder / "plan.json").stat().st_mtime_ns for plan in plans} == before

    (plans[1].folder / "plan.json").unlink()
    broken = {"recipe": [PHANTOM, "arms/grpo"], "fields": {"num_generations": 3}, "tuned_as": "grpo"}
    [failure] = _run(_study(folder, arms={**CONTENT["arms"], "broken": broken}))
    assert (failure.plan.name, failure.stage) == ("broken--student-1--seed-1", "train")
    assert "num_generations (3)" in failure.problem
    assert "num_generations (3)" in failure.plan.log.read_text()
    assert not is_done(failure.plan)
    after = {plan.name: (plan.folder / "plan.json").stat().st_mtime_ns for plan in plans}
    assert [name for name in before if after[name] != before[name]] == [plans[1].name]
