"""A script that trains leaves what `kepo train` leaves, and says how it ended; two visible GPUs do not stop it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kepo import KEPOConfig, KEPOTrainer
from kepo.evaluation.job import Request, plan
from kepo.recipes.recipe import load_recipe
from kepo.runs import open_run, read_metrics, read_rollouts, rollout_files
from tests.tiny_models import build_text_model
from tests.tiny_runs import SHORT_RUN, even_start, questions


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_text_model(tmp_path_factory.mktemp("model") / "student"))


def _config(folder: Path, **more: Any) -> KEPOConfig:
    fields = {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 4, "max_steps": 2}
    alone = {"exploration": "none", "distillation_weight": 0.0}
    return KEPOConfig(str(folder), **{**SHORT_RUN, **fields, **alone, **more})


def test_a_script_leaves_what_the_command_leaves(student: str, tmp_path: Path) -> None:
    KEPOTrainer(student, [even_start], _config(tmp_path), questions()).train()
    run = open_run(tmp_path)
    assert (run.status, run.manifest["steps"]) == ("finished", 2)
    assert run.setting("training", "max_completion_length") == 4
    assert run.setting("model", "model_name_or_path") == student
    assert run.setting("run", "reward_funcs") == ["tests.tiny_runs:even_start"]
    assert {"command", "versions", "git", "started", "ended", "device", "seed"} <= run.manifest.keys()
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 2]  # and the summary at the end
    assert read_rollouts(tmp_path).num_rows == 16

    rows = [{"question": "Which?", "options": ["MRI", "CT"], "answer": "A"}]
    (tmp_path / "questions.jsonl").write_text(json.dumps(rows[0]))
    job = plan(str(tmp_path), Request(data=str(tmp_path / "questions.jsonl")))
    assert (job.settings.reward, job.settings.max_new_tokens) == ("tests.tiny_runs:even_start", 4)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_how_a_script_ended_is_told_honestly(
    student: str, tmp_path: Path, error: type[BaseException], status: str
) -> None:
    """The second step fails; what an older, longer run left there is gone, what this one made is kept."""
    stale = tmp_path / "rollouts" / "step-000009.parquet"
    stale.parent.mkdir()
    stale.write_bytes(b"")
    (tmp_path / "metrics.jsonl").write_text('{"step": 9, "loss": 1.0}\n')
    trainer = KEPOTrainer(student, [even_start], _config(tmp_path), questions())

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error("the second step")

    def after_the_first(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer.score_rollouts = fail  # type: ignore[method-assign]

    trainer.run_record.on_step_end = after_the_first  # type: ignore[method-assign]
    with pytest.raises(error):
        trainer.train()
    run = open_run(tmp_path)
    assert (run.status, run.manifest["steps"]) == (status, 1)
    assert "the second step" in run.manifest["error"]
    assert list(rollout_files(tmp_path)) == [1]
    assert [record["step"] for record in read_metrics(tmp_path)] == [1]


def test_one_of_two_visible_gpus_is_trained_on(student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers counts both for `nn.DataParallel`, which TRL refuses; a teacher may live on the second."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    args = _config(tmp_path, bf16=False, max_steps=1)
    assert not args.use_cpu
    assert args.device.type == "cpu"  # in this test
    assert args._n_gpu == 2, "transformers counts in another way now; this test says nothing any more"
    assert (args.n_gpu, args.train_batch_size) == (1, 8)
    KEPOTrainer(student, [even_start], args, questions()).train()
    assert open_run(tmp_path).status == "finished"

    supervised = load_recipe("medical/sft", ["--output_dir", str(tmp_path / "sft"), "--bf16", "false"]).training
    assert supervised.n_gpu == 1
