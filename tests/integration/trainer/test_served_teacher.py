"""A teacher elsewhere: begun before exploration, gone without where it fails, and a run that stops loses no step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kepo import KEPOTrainer, LocalTeacher
from kepo.errors import ConfigError, TeacherError, TeacherUnavailableError
from kepo.teachers.base import ScoreRequest, Scores
from kepo.teachers.remote import RemoteTeacher
from kepo.types import Sample
from tests.tiny_runs import even_start, has_magic

from .test_processes import REPOSITORY
from .test_teaching_step import _one_batch


class _Pending:
    def __init__(self, answer: Callable[[], Sequence[Scores | None]]) -> None:
        self._answer = answer

    def result(self) -> Sequence[Scores | None]:
        return self._answer()


class ServedTeacher(LocalTeacher):
    """A local teacher behind the protocol of one elsewhere; notes what happens in `events`."""

    def __init__(self, folder: str, events: list[str] | None = None) -> None:
        super().__init__(folder, hint_max_new_tokens=4)
        self.events = [] if events is None else events
        self.asked: list[tuple[int, ...]] = []
        self.metrics: dict[str, float] = {}

    def start_scoring(self, requests: Sequence[ScoreRequest]) -> _Pending:
        self.events.append("begin")
        return _Pending(lambda: self.score(requests))

    def score(self, requests: Sequence[ScoreRequest]) -> Any:
        self.events.append("answer")
        self.asked += [request.completion_ids for request in requests]
        return super().score(requests)

    def take_metrics(self) -> dict[str, float]:
        return self.metrics


def _weights(trainer: KEPOTrainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def _assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_rows_that_are_surely_open_are_asked_before_exploration(
    make_trainer: Callable[..., KEPOTrainer], teacher_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def explore(trainer: Any, prompts: Any, filler: Any) -> list[Sample]:
        events.append("explore")
        return [Sample((66, 67, trainer.eos_token_ids[0]), "rescued") for _ in prompts]

    monkeypatch.setattr(KEPOTrainer, "sample_completions", explore)
    fields = {"exploration": "resample", "exploration_trigger": "always", "exploration_attempts": 1}
    teacher = ServedTeacher(teacher_folder, events)
    served = make_trainer(teacher=teacher, max_steps=2, **fields)
    served.train()
    # The second time for the rows that exploration made correct.
    assert events[:4] == ["begin", "explore", "begin", "answer"]
    assert len(teacher.asked) == len([row for row in teacher.asked if row[0] % 2 == 0]) > 0
    here = make_trainer(max_steps=2, **fields)
    here.train()
    # The teacher's rows are batched otherwise, which rounds otherwise.
    for name in ("distillation/loss", "reward", "gate/open_share"):
        ours, theirs = ([log[name] for log in one.state.log_history if name in log] for one in (served, here))
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert len(ours) == 2


def test_hints_are_asked_for_first_and_written_beside_what_does_not_need_them(
    make_trainer: Callable[..., KEPOTrainer], teacher_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Writer(ServedTeacher):
        def start_hints(self, conversations: Sequence[Any]) -> Any:
            events.append("ask")
            return _Pending(lambda: self.write_hints(conversations))

        def write_hints(self, conversations: Sequence[Any]) -> list[str]:
            events.append("hints")
            return ["<hint>Think of colours.</hint>"] * len(conversations)

    def explore(trainer: Any, prompts: Any, filler: Any) -> list[Sample]:
        events.append("explore")
        return [Sample((66, 67 + i, trainer.eos_token_ids[0]), "rescued") for i in range(len(prompts))]

    monkeypatch.setattr(KEPOTrainer, "sample_completions", explore)
    fields = {"exploration_trigger": "always", "exploration_attempts": 2, "hint_level": 0, "hint_max_level": 1}
    trainer = make_trainer(teacher=Writer(teacher_folder, events), **fields)
    trainer.train()
    asked = ["ask", "begin", "hints", "ask", "explore", "hints", "explore", "begin", "answer"]
    assert events[: len(asked)] == asked
    # Every group was rescued in the first attempt, while the hints of the second level were on their way.
    log = next(log for log in trainer.state.log_history if "exploration/unneeded_hints" in log)
    assert log["exploration/unneeded_hints"] == 2.0
    assert log["exploration/attempts"] == 1.0


@pytest.mark.parametrize(
    "fields", [{"gate": "inverted"}, {"gate_reward": "total", "gate_threshold": 0.5}], ids=["inverted", "total"]
)
def test_a_gate_that_correctness_does_not_open_waits_for_all_rewards(
    make_trainer: Callable[..., KEPOTrainer], teacher_folder: str, fields: dict[str, Any]
) -> None:
    teacher = ServedTeacher(teacher_folder)
    trainer = make_trainer(teacher=teacher, exploration="resample", exploration_attempts=1, **fields)
    _one_batch(trainer)
    assert teacher.events == ["answer"]


def test_a_row_without_scores_weighs_nothing(make_trainer: Callable[..., KEPOTrainer], teacher_folder: str) -> None:
    class Forgetful(ServedTeacher):
        def score(self, requests: Sequence[ScoreRequest]) -> Any:
            return [None if place == 0 else one for place, one in enumerate(super().score(requests))]

    trainer = make_trainer(teacher=Forgetful(teacher_folder), exploration="none", gate="always")
    batch = _one_batch(trainer)
    assert batch["teacher_scores"][0] is None
    assert batch["gate_weights"][0].sum() == 0
    assert torch.equal(batch["gate_weights"][1:], batch["completion_mask"][1:].float())
    assert batch["gate_total"] == batch["completion_mask"][1:].sum()
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.isfinite()


def test_a_step_of_which_no_row_has_scores_is_a_step_without_teacher(
    make_trainer: Callable[..., KEPOTrainer], teacher_folder: str
) -> None:
    class Silent(ServedTeacher):
        def score(self, requests: Sequence[ScoreRequest]) -> Any:
            return [None] * len(requests)

    silent = make_trainer(teacher=Silent(teacher_folder), exploration="none", gate="always", max_steps=2)
    silent.train()
    passes = {"share_prompt": True, "skip_idle_rows": True}  # as they are with a teacher
    alone = make_trainer(teacher=None, exploration="none", distillation_weight=0.0, max_steps=2, **passes)
    alone.train()
    _assert_same(_weights(silent), _weights(alone))


def test_what_a_teacher_counts_is_logged(make_trainer: Callable[..., KEPOTrainer], teacher_folder: str) -> None:
    teacher = ServedTeacher(teacher_folder)
    teacher.metrics = {"teacher/rows_lost": 3.0}
    trainer = make_trainer(teacher=teacher, exploration="none", max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["teacher/rows_lost"] == 3.0


def test_a_teacher_that_fails_costs_no_step(
    make_trainer: Callable[..., KEPOTrainer], teacher_folder: str, tmp_path: Path
) -> None:
    fields = {"max_steps": 4, "save_strategy": "steps", "save_steps": 100, "exploration_attempts": 2}
    whole = make_trainer(output_dir=str(tmp_path / "whole"), **fields)
    whole.train()

    class Failing(ServedTeacher):
        def score(self, requests: Sequence[ScoreRequest]) -> Any:
            if trainer.state.global_step == 2:
                raise TeacherUnavailableError("The teacher gave no scores.")
            return super().score(requests)

    trainer = make_trainer(teacher=Failing(teacher_folder), output_dir=str(tmp_path / "failed"), **fields)
    with pytest.raises(TeacherUnavailableError, match=r"All 2 finished steps are kept in .*checkpoint-2"):
        trainer.train()
    resumed = make_trainer(output_dir=str(tmp_path / "failed"), **fields)
    resumed.train(resume_from_checkpoint=True)
    _assert_same(_weights(whole), _weights(resumed))


def test_a_teacher_that_fails_at_once_leaves_no_checkpoint(
    make_trainer: Callable[..., KEPOTrainer], teacher_folder: str, tmp_path: Path
) -> None:
    class Failing(ServedTeacher):
        def write_hints(self, conversations: Sequence[Any]) -> list[str]:
            raise TeacherUnavailableError("The teacher gave no hints.")

    trainer = make_trainer((has_magic,), teacher=Failing(teacher_folder), output_dir=str(tmp_path / "run"))
    with pytest.raises(TeacherUnavailableError, match=r"^The teacher gave no hints\.$"):
        trainer.train()
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("error", "status"),
    [(TeacherUnavailableError("away"), "interrupted"), (TeacherError("refused"), "interrupted"), (OSError(), "failed")],
    ids=["away", "refused", "a defect"],
)
def test_a_run_that_stopped_for_its_teacher_can_be_gone_on_with(
    error: Exception,
    status: str,
    make_trainer: Callable[..., KEPOTrainer],
    teacher_folder: str,
    tmp_path: Path,
) -> None:
    class Failing(ServedTeacher):
        def score(self, requests: Sequence[ScoreRequest]) -> Any:
            raise error

    trainer = make_trainer(teacher=Failing(teacher_folder), output_dir=str(tmp_path), gate="always", exploration="none")
    with pytest.raises(type(error)):
        trainer.train()
    assert json.loads((tmp_path / "run.json").read_text())["status"] == status


def test_temperature_needs_whole_distributions(make_trainer: Callable[..., KEPOTrainer]) -> None:
    teacher = RemoteTeacher("http://127.0.0.1:9/v1", "m")
    with pytest.raises(ConfigError, match="divergence_temperature is 2"):
        make_trainer((even_start,), teacher=teacher, exploration="none", divergence_temperature=2.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said_there"),
    [("teacher", "away for process 1"), ("bank", "hints.jsonl cannot be written: [Errno 28] No space left on device")],
)
def test_two_processes_stop_together(
    what: str, said_there: str, student: str, teacher_folder: str, tmp_path: Path
) -> None:
    script = Path(__file__).parent / "failure_run.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    done = subprocess.run(
        [*command, student, teacher_folder, str(tmp_path), what],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = sorted(path.read_text() for path in tmp_path.glob("said-*.txt"))
    assert "Another process failed" in said[0]
    assert said_there in said[1]
    assert all("checkpoint-1" in text for text in said)
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").is_file()
