"""`kepo eval` as a user meets it: models, runs and servers, defaults of a run, comparison, and being stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from kepo.cli.eval import evaluate
from kepo.errors import ConfigError, DataError
from kepo.evaluation.generate import TransformersBackend
from kepo.runs import find_runs, open_run, read_evaluation
from tests.tiny_models import build_text_model

# The command as it is registered, in a process of its own. Outputs come slowly, so that it can be stopped in between.
SLOW_COMMAND = """
import sys, time, typer
from kepo.cli.eval import evaluate
from kepo.evaluation import generate, parts
parts._SECONDS_PER_PART = float(sys.argv.pop(1))
fast = generate.TransformersBackend.generate
def slow(self, prompts, *rest):
    time.sleep(0.2)
    print("batch", flush=True)
    return fast(self, prompts, *rest)
generate.TransformersBackend.generate = slow
typer.run(evaluate)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user has it: a model, and questions of two modalities."""
    build_text_model(tmp_path / "model", "llama")
    rows = [
        {"id": f"q{i}", "question": f"What is {i}?", "options": ["x", "y", "z"], "answer": "ABC"[i % 3],
         "modality": ("MRI", "CT")[i % 2], "task": "Shape"}
        for i in range(12)
    ]  # fmt: skip
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path


@pytest.fixture
def run(project: Path) -> Path:
    """A run folder with the model in it, trained on eight of the questions."""
    folder = build_text_model(project / "runs" / "kepo", "llama", seed=3)
    manifest = {
        "status": "finished",
        "seed": 5,
        "config": {
            "run": {"arm": "kepo", "reward_funcs": ["choice_accuracy", "think_format"]},
            "training": {"max_completion_length": 5, "chat_template_kwargs": None},
            "data": {"data_path": "questions.jsonl", "prompt_style": "answer", "modality": None, "num_train": 8,
                     "num_eval": 4, "split_seed": 42, "option_shuffles": 2},
        },
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def _eval(*arguments: Any) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_model_is_asked_and_its_numbers_are_shown(project: Path) -> None:
    done = _eval(
        "model", "--data", "questions.jsonl", "--out", "zero-shot", "--max-new-tokens", 4, "--in-domain", "mri"
    )
    assert done.exit_code == 0
    for shown in ("in-domain", "out-of-domain", "modality: CT", "chance", "33.3", "in the form asked for, %"):
        assert shown in done.stdout
    evaluation = read_evaluation(project / "zero-shot")
    assert len(evaluation.table) == 12
    assert evaluation.description["in_domain"] == ["MRI"]
    assert evaluation.description["data"] == "questions.jsonl"
    assert evaluation.description["split"] is None
    [found] = find_runs([project / "zero-shot"])  # reports see it as an arm
    assert found.arm == "zero-shot"
    assert list(found.evaluations) == ["test"]


def test_a_run_is_asked_as_it_was_trained(run: Path) -> None:
    before = (run / "run.json").read_text()
    done = _eval(run, "--split", "held-out")
    assert done.exit_code == 0
    evaluation = read_evaluation(run)
    generation = evaluation.description["generation"]
    assert (generation["prompt_style"], generation["max_new_tokens"]) == ("answer", 5)
    assert evaluation.description["split"] == "held-out"
    held_out = set(evaluation.table["id"].to_pylist())
    assert _eval(run, "--split", "train", "--name", "seen").exit_code == 0
    seen = read_evaluation(run, "seen").table["id"].to_pylist()
    assert len(seen) == 8  # without the copies in another order
    assert held_out == {f"q{i}" for i in range(12)} - set(seen)
    assert (run / "run.json").read_text() == before


def test_a_checkpoint_is_asked_as_its_run_and_keeps_its_records(run: Path) -> None:
    build_text_model(run / "checkpoint-2", "llama", seed=4)
    assert _eval(run / "checkpoint-2", "--split", "held-out").exit_code == 0
    assert read_evaluation(run / "checkpoint-2").description["generation"]["max_new_tokens"] == 5


def test_questions_of_the_training_are_pointed_out(run: Path) -> None:
    done = _eval(run, "--data", run.parent.parent / "questions.jsonl")
    assert "Of 12 questions 8 were trained on" in " ".join(done.stdout.split())
    assert "trained on" not in _eval(run, "--split", "held-out", "--name", "other").stdout


def test_what_is_given_goes_over_what_the_run_says(run: Path) -> None:
    arguments = ("--max-new-tokens", 3, "--prompt-style", "plain", "--samples", 2, "--temperature", 1, "--limit", 4)
    done = _eval(run, "--modality", "CT", "--out", "elsewhere", *arguments)
    assert "pass@2" in done.stdout
    evaluation = read_evaluation("elsewhere")
    assert len(evaluation.table) == 8
    assert set(evaluation.table["modality"].to_pylist()) == {"CT"}
    assert evaluation.description["generation"]["prompt_style"] == "plain"
    assert open_run("elsewhere").arm == "kepo"


def test_two_models_are_compared_on_the_same_questions(project: Path, run: Path) -> None:
    shared = ("--data", "questions.jsonl", "--max-new-tokens", 4, "--prompt-style", "think", "--out", "both")
    assert _eval("model", run, *shared).exit_code == 0
    assert sorted(path.name for path in Path("both").iterdir()) == ["kepo", "model"]
    done = _eval(run, *shared[:-1], "again", "--compare", "both/model")
    assert "kepo minus model" in done.stdout
    assert "correct alone" in done.stdout
    with pytest.raises(DataError, match="Only evaluations of the same questions"):
        _eval(run, *shared[:-1], "fewer", "--limit", 5, "--compare", "both/model")


def test_permutations_and_a_teacher(project: Path) -> None:
    arguments = ("--max-new-tokens", 4, "--limit", 3, "--permutations", 2, "--teacher", "model")
    _eval("model", "--data", "questions.jsonl", "--out", "out", *arguments)
    table = read_evaluation("out").table
    assert table["permutation"].to_pylist() == [0, 1, 2] * 3
    assert read_evaluation("out").description["settings"]["teacher"] == "model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model",), "--data is missing"),
        (("model", "--data", "questions.jsonl"), "name a folder with --out"),
        (
            ("model", "--data", "questions.jsonl", "--out", "o", "--in-domain", "PET"),
            "no question has the modality 'PET'",
        ),
        (("model", "--data", "questions.jsonl", "--out", "o", "--split", "train"), "leave out --data"),
        (("model", "--data", "questions.jsonl", "--out", "o", "--split", "tain"), "split 'tain' is unknown"),
        (("model", "--data", "questions.jsonl", "--out", "o", "--limit", 0), "limit is 0"),
        (("model", "--data", "questions.jsonl", "--out", "o", "--samples", 3), "set a temperature"),
        (("model", "model", "--data", "questions.jsonl", "--out", "o", "--compare", "none"), "no such evaluation"),
        (("a/model", "b/model", "--data", "questions.jsonl", "--out", "o"), "would go to"),
        (("empty", "--data", "questions.jsonl", "--out", "o"), "holds no model"),
        (
            ("model", "--data", "answerless.jsonl", "--out", "o"),
            "there is no column answer; its columns are question, options",
        ),
        (("model", "--data", "missing.jsonl", "--out", "o"), "there is no such file"),
        (("m", "--data", "questions.jsonl", "--out", "o", "--server", "localhost"), "is no URL"),
        (("m", "--data", "questions.jsonl", "--out", "o", "--api-key-env", "NO_SUCH"), "holds no key"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_message(project: Path, arguments: tuple[Any, ...], message: str) -> None:
    (project / "empty").mkdir()
    (project / "answerless.jsonl").write_text('{"question": "What?", "options": ["x", "y"]}\n')
    with pytest.raises((ConfigError, DataError), match=message):
        _eval(*arguments)
    assert not (project / "o" / "evaluation").exists()


def test_a_run_that_held_nothing_out_says_so(run: Path) -> None:
    manifest = json.loads((run / "run.json").read_text())
    manifest["config"]["data"] |= {"num_eval": 0}
    (run / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="num_eval is 0"):
        _eval(run, "--split", "held-out")


@pytest.mark.slow
@pytest.mark.parametrize(("how", "seconds"), [(signal.SIGKILL, "-1"), (signal.SIGINT, "1000")])
def test_the_same_command_goes_on_after_a_stop(
    project: Path, how: signal.Signals, seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, the written parts count; by Ctrl-C, all that was answered."""
    arguments = ["model", "--data", "questions.jsonl", "--out", "o", "--max-new-tokens", "4", "--batch-size", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_COMMAND, seconds, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    batches = 0
    for line in process.stdout:
        batches += line.startswith("batch")
        if batches == 4:  # the fourth has begun, so three are answered
            break
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not Path("o/evaluation/test.parquet").exists()
    asked: list[int] = []
    answer = TransformersBackend.generate

    def counted(self: TransformersBackend, prompts: Any, *rest: Any) -> Any:
        asked.append(len(prompts))
        return answer(self, prompts, *rest)

    monkeypatch.setattr(TransformersBackend, "generate", counted)
    assert _eval(*arguments).exit_code == 0
    assert 0 < sum(asked) <= 6
    assert read_evaluation("o").table["id"].to_pylist() == [f"q{i}" for i in range(12)]


def test_the_modules_of_the_records_do_not_import_torch() -> None:
    modules = "run, reasoning, accuracy, job, settings, openai_server, tasks"
    loaded = "[m for m in ('torch', 'transformers', 'datasets') if m in sys.modules]"
    code = f"import sys, kepo.reports.evaluation; from kepo.evaluation import {modules}; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
