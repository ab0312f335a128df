"""The command line as a user meets it: its own process, real folders, errors without traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kepo.cli.main import app
from kepo.runs import read_rollouts
from tests.tiny_models import build_text_model, build_tokenizer


def _kepo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "kepo", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: a student, a teacher, questions and a recipe."""
    root = tmp_path_factory.mktemp("project")
    build_text_model(root / "student", "llama", seed=0)
    build_text_model(root / "teacher", "llama", seed=1)
    rows = [
        {"id": f"q{i}", "question": f"What is shown in {{{i}}}?", "options": ["MRI", "CT"], "answer": "A"}
        for i in range(12)
    ]
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "recipe.yaml").write_text(
        "model_name_or_path: student\n"
        "teacher_model_name_or_path: teacher\n"
        "hint_max_new_tokens: 4\n"
        "exploration_attempts: 1\n"
        "data_path: questions.jsonl\n"
        "num_train: 8\n"
        "num_eval: 4\n"
        "prompt_style: answer\n"
        "reward_funcs: [choice_accuracy, answer_format]\n"
        "gate: always\n"
        "num_generations: 4\n"
        "per_device_train_batch_size: 8\n"
        "per_device_eval_batch_size: 4\n"
        "max_completion_length: 6\n"
        "max_steps: 2\n"
        "logging_steps: 1\n"
        "save_steps: 1\n"
        "gradient_checkpointing: false\n"
        "report_to: none\n"
        "disable_tqdm: true\n"
        "output_dir: run\n"
    )
    return root


@pytest.mark.slow
def test_a_run_describes_itself_is_protected_resumed_and_restarted(project: Path) -> None:
    done = _kepo("train", "recipe.yaml", cwd=project)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all-failed groups" in done.stdout
    assert "distillation loss" in done.stdout
    assert "Training on " in done.stdout
    run = project / "run"
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["config"]["training"]["gate"] == "always"
    assert manifest["config"]["data"]["num_train"] == 8
    assert "recipe.yaml" in manifest["command"]
    assert (run / "model.safetensors").is_file()
    assert (run / "tokenizer.json").is_file()
    assert read_rollouts(run).num_rows == 16
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()][:2] == [1, 2]

    again = _kepo("train", "recipe.yaml", cwd=project)
    assert again.returncode == 2
    assert "run is not empty" in again.stderr
    assert "Traceback" not in again.stderr
    assert json.loads((run / "run.json").read_text()) == manifest

    resumed = _kepo("train", "recipe.yaml", "--resume_from_checkpoint", "latest", "--max_steps", "3", cwd=project)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert read_rollouts(run).num_rows == 24

    restarted = _kepo("train", "recipe.yaml", "--overwrite", "--max_steps", "1", cwd=project)
    assert restarted.returncode == 0, restarted.stderr[-3000:]
    assert read_rollouts(run).num_rows == 8


@pytest.mark.slow
def test_it_starts_itself_under_accelerate(project: Path, tmp_path: Path) -> None:
    """With its options. One process: accelerate starts several on the CPU through MPI only."""
    config = tmp_path / "cpu.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 1\nnum_machines: 1\n"
        "machine_rank: 0\nmixed_precision: 'no'\nuse_cpu: true\nmain_training_function: main\n"
    )
    done = _kepo(
        "train", "recipe.yaml", "--accelerate-config", str(config), "--output_dir", "run2", "--max_steps", "3",
        "--profile-steps", "1", cwd=project,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_rollouts(project / "run2").num_rows == 24
    assert (project / "run2" / "profile" / "trace.json.gz").is_file()
    assert done.stdout.count("# Profile: steps 2 to 2") == 1


@pytest.mark.slow
def test_two_processes_share_one_run_folder(project: Path) -> None:
    write_older_run = project / "run4" / "run.json"
    write_older_run.parent.mkdir()
    write_older_run.write_text('{"status": "finished"}')
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "kepo", "train",
        "recipe.yaml", "--output_dir", "run4", "--per_device_train_batch_size", "4", "--overwrite",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_rollouts(project / "run4").to_pylist()
    assert {row["process"] for row in rows} == {0, 1}
    assert len(rows) == 16
    assert json.loads(write_older_run.read_text())["status"] == "finished"
    assert done.stdout.count("model, rollouts/ and run.json") == 1


@pytest.mark.slow
def test_supervised_fine_tuning_behind_the_same_command(project: Path) -> None:
    done = _kepo(
        "train", "recipe.yaml", "--method", "sft", "--output_dir", "sft", "--max_steps", "5", "--profile", cwd=project
    )
    assert done.returncode == 0, done.stderr[-3000:]
    phases = json.loads((project / "sft" / "profile" / "phases.json").read_text())["phases"]
    assert {"data", "training", "optimizer"} <= {phase["phase"] for phase in phases}
    assert (project / "sft" / "model.safetensors").is_file()
    assert json.loads((project / "sft" / "run.json").read_text())["status"] == "finished"


def test_evaluation_during_training(project: Path) -> None:
    done = _kepo(
        "train", "recipe.yaml", "--output_dir", "run3", "--eval_strategy", "steps", "--eval_steps", "1",
        "--max_steps", "1", cwd=project,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    logs = [json.loads(line) for line in (project / "run3" / "metrics.jsonl").read_text().splitlines()]
    assert any("eval_rewards/choice_accuracy/mean" in log for log in logs)


BAD = {
    "an answer that is no option": (
        {"question": "Which?", "options": ["MRI", "CT"], "answer": "PET"},
        [],
        ["bad.jsonl", "row 1", "answer", "PET"],
    ),
    "one option": ({"question": "Which?", "options": ["MRI"], "answer": "A"}, [], ["bad.jsonl", "row 1", "option"]),
    "a missing image": (
        {"question": "Which?", "options": ["MRI", "CT"], "answer": "A", "image": "gone.png"},
        [],
        ["gone.png"],
    ),
    "an image that is none": (
        {"question": "Which?", "options": ["MRI", "CT"], "answer": "A", "image": "recipe.yaml"},
        [],
        ["recipe.yaml"],
    ),
    "a path out of the root": (
        {"question": "Which?", "options": ["MRI", "CT"], "answer": "A", "image": "../../etc/passwd"},
        [],
        ["passwd"],
    ),
    "no rows": (None, [], ["bad.jsonl"]),
    "an unknown field": ({}, ["--gate_treshold", "1"], ["gate_treshold", "gate_threshold"]),
    "K above G": ({}, ["--num_injected", "5"], ["num_injected", "5", "4"]),
    "a reward that is not there": ({}, ["--reward_funcs", "truth"], ["truth", "choice_accuracy"]),
    "a gate on a reward that is not there": ({}, ["--gate_reward", "truth"], ["gate_reward", "choice_accuracy"]),
    "a teacher that is no model": ({}, ["--teacher_model_name_or_path", "."], ["config.json"]),
    "a teacher folder that is not there": ({}, ["--teacher_model_name_or_path", "./nowhere"], ["nowhere"]),
    "a student that is no model": ({}, ["--model_name_or_path", "."], ["config.json"]),
    "a tokenizer without chat template": ({}, ["--model_name_or_path", "bare"], ["chat template"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error_and_nothing_is_lost(project: Path, name: str) -> None:
    row, arguments, words = BAD[name]
    if row != {}:
        good = {"question": "Which is {it}?", "options": ["MRI", "CT"], "answer": "A"}
        rows = [] if row is None else [row, good]
        (project / "bad.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        arguments = ["--data_path", "bad.jsonl", "--num_train", "2", "--num_eval", "0"]
    if "bare" in arguments and not (project / "bare").exists():
        build_text_model(project / "bare", "llama", tokenizer=build_tokenizer(chat_template=None))
    precious = project / "precious" / "run.json"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text('{"status": "finished"}')
    done = _kepo("train", "recipe.yaml", "--output_dir", "precious", "--overwrite", *arguments, cwd=project)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    message = done.stderr[done.stderr.index("error:") :]
    for word in words:
        assert word in message
    assert precious.is_file(), "a run that cannot start must not delete an older one"


def test_the_lists_of_recipes_and_fields(project: Path) -> None:
    listed = _kepo("recipes", cwd=project).stdout
    for words in ("SUITE/_base arms/ARM", "smollm2 ", "arms/kepo ", "paper/kepo-tau1 ", "studies/paper ", "zero3-8gpu"):
        assert words in listed
    found = _kepo("fields", "gate_threshold", cwd=project)
    assert "tau" in found.stdout


def test_recipes_are_printed_merged_as_files_and_with_every_field(project: Path) -> None:
    names = ("smollm2/_base", "arms/grpo")
    merged = yaml.safe_load(_kepo("recipes", *names, cwd=project).stdout)
    assert merged == yaml.safe_load(_kepo("recipes", "smollm2/grpo", cwd=project).stdout)
    assert (merged["seed"], merged["distillation_weight"], merged["output_dir"]) == (42, 0.0, "runs/smollm2-grpo")
    assert "learning_rate: 0.5" in _kepo("recipes", *names, "--learning_rate", "0.5", cwd=project).stdout
    resolved = yaml.safe_load(_kepo("recipes", *names, "--resolved", cwd=project).stdout)
    assert {name for name in merged if merged[name] != resolved[name]} == {"report_to"}  # TRL reads "none" as a list
    assert (resolved["arm"], resolved["weight_decay"], resolved["teacher_batch_size"]) == ("grpo", 0.0, 8)
    written = _kepo("recipes", "paper/_base", "arms/grpo", "--files", cwd=project).stdout
    assert "# [P] single-source" in written
    assert "# GRPO: reward only." in written


@pytest.mark.slow
def test_recipes_over_each_other_leave_one_recipe_that_runs_again(project: Path) -> None:
    (project / "other.yaml").write_text("max_steps: 1\nseed: 7\n")
    words = ["recipe.yaml", "arms/grpo", "other.yaml", "--learning_rate", "1e-3", "--output_dir", "composed"]
    done = _kepo("train", *words, cwd=project)
    assert done.returncode == 0, done.stderr[-3000:]
    described = json.loads((project / "composed" / "run.json").read_text())
    assert described["config"]["run"]["arm"] == "other"
    assert described["stated"]["overrides"] == words[3:]
    said = yaml.safe_load((project / "composed" / "recipe.yaml").read_text())
    assert (said["distillation_weight"], said["seed"], said["learning_rate"]) == (0.0, 7, 0.001)
    finished = _kepo("train", *words, "--continue", cwd=project)
    assert "is finished with these settings" in finished.stdout

    again = _kepo("train", "composed/recipe.yaml", "--output_dir", "composed-again", cwd=project)
    assert again.returncode == 0, again.stderr[-3000:]
    config, second = described["config"], json.loads((project / "composed-again" / "run.json").read_text())["config"]
    ignored = {"output_dir", "logging_dir", "run_name"}
    assert {n: v for n, v in second["training"].items() if n not in ignored} == {
        n: v for n, v in config["training"].items() if n not in ignored
    }
    assert all(second[part] == config[part] for part in ("run", "model", "data", "teacher"))
    rows = [read_rollouts(project / run).to_pylist() for run in ("composed", "composed-again")]
    assert [row["completion"] for row in rows[0]] == [row["completion"] for row in rows[1]]


COMMANDS = (
    "train", "plan", "demo", "eval", "report", "study", "inspect", "recipes", "fields", "hints", "models", "prepare",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_listed_and_explains_itself(command: str) -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["--help"]).output
    assert f"\n  {command} " in listed
    helped = runner.invoke(app, [command, "--help"])
    assert helped.exit_code == 0
    assert f"{command} [OPTIONS]" in helped.output
    # A sentence of its own, before its options.
    assert len(helped.output.split("Options:")[0].split("\n\n")[1].strip()) > 20


def test_a_misspelt_command_is_suggested_right() -> None:
    result = CliRunner().invoke(app, ["trian"])
    assert result.exit_code == 2
    assert "Did you mean 'train'" in result.output


def test_help_imports_neither_the_commands_nor_what_draws_tables() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from kepo.cli.main import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print([name for name in sys.modules if name.startswith(('rich', 'yaml', 'numpy', 'kepo.cli.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['kepo.cli.main']"
