"""A profiled run: what is written and when, and that nothing of the profile stays."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from kepo import KEPOTrainer
from kepo.errors import ConfigError
from kepo.trainer.profiling import profiled
from tests.tiny_runs import SHORT_RUN, even_start, questions

MakeTrainer = Callable[..., KEPOTrainer]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "profile"


def _ranges(folder: Path) -> set[str]:
    """Names of the phases in the trace."""
    trace = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))
    names = {str(event.get("name")) for event in trace["traceEvents"]}
    assert "aten::mm" in names
    return {name.removeprefix("kepo/") for name in names if name.startswith("kepo/")}


def _weights(trainer: Any) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in trainer.model.parameters()]


def test_tables_and_trace_are_written_and_the_run_goes_on(make_trainer: MakeTrainer, folder: Path) -> None:
    settings: dict[str, Any] = dict(exploration="none", gate="always", beta=0.1, max_steps=4)
    plain = make_trainer(**settings)
    plain.train()
    trainer = make_trainer(**settings)
    with profiled(trainer, steps=1) as profiler:
        trainer.train()
    assert trainer.state.global_step == 4
    assert all(map(torch.equal, _weights(trainer), _weights(plain)))

    expected = {"data", "rollouts", "rewards", "teacher", "logprobs", "training", "optimizer", "logging", "rest"}
    assert _ranges(folder) == expected
    found = json.loads((folder / "phases.json").read_text())
    phases = {phase["phase"]: phase for phase in found["phases"]}
    assert phases.keys() == expected
    assert sum(phase["seconds"] for phase in phases.values()) == pytest.approx(found["step_seconds"])
    assert found["steps"] == [2]
    log = trainer.state.log_history[1]
    assert log["time/step_s"] == pytest.approx(found["step_seconds"])
    assert found["completion_tokens"] == 8 * log["completions/mean_length"]
    # The log-probabilities of old policy or reference model are of the very tokens that are trained on.
    assert phases["training"]["tokens"] == phases["logprobs"]["tokens"] > found["completion_tokens"]
    assert phases["teacher"]["tokens"] > 0
    assert found["peak_memory"] > 2**20
    assert found["operators"][0]["seconds"] >= found["operators"][-1]["seconds"] > 0
    assert len(found["operators"]) == 15
    assert not any(operator["name"].startswith(("kepo/", "Optimizer.step#")) for operator in found["operators"])
    assert profiler.result is not None
    assert (folder / "phases.md").read_text().startswith("# Profile: steps 2 to 2")
    _nothing_stays(trainer)


def _nothing_stays(trainer: Any) -> None:
    assert trainer.phases.synchronize is None
    assert not trainer.model.get_input_embeddings()._forward_pre_hooks
    with profile(activities=[ProfilerActivity.CPU]):  # fails while another one is running
        pass


class _Interrupts(TrainerCallback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupted_profile_leaves_nothing(make_trainer: MakeTrainer, folder: Path, step: int) -> None:
    """While it measures, and while it traces."""
    trainer = make_trainer(exploration="none", max_steps=3)
    trainer.add_callback(_Interrupts(step))
    with pytest.raises(KeyboardInterrupt), profiled(trainer, steps=1):
        trainer.train()
    assert not folder.exists()
    _nothing_stays(trainer)


def test_a_run_too_short_for_its_profile_is_refused(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(exploration="none", max_steps=4, num_iterations=2)
    with (
        pytest.raises(ConfigError, match=r"Profiling 2 steps needs 5.*makes 4.*max_steps to at least 5"),
        profiled(trainer, steps=1),
    ):
        trainer.train()


def test_a_trainer_of_trl_has_the_phases_of_the_training_loop(student: str, tmp_path: Path, folder: Path) -> None:
    sizes = {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 4, "max_steps": 3}
    config = GRPOConfig(str(tmp_path / "run"), bf16=False, **{**SHORT_RUN, **sizes})
    trainer = GRPOTrainer(student, [even_start], config, questions())
    with profiled(trainer, steps=1):
        trainer.train()
    assert _ranges(folder) == {"training", "optimizer", "logging"}
