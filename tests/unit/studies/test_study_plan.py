"""The runs of a study, their recipes and their commands."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kepo.errors import ConfigError, DataError
from kepo.studies.commands import command_line, report_stages, shell_script, slurm_script, stages
from kepo.studies.plan import RunPlan, check_data, check_recipes, describe_study, plan_runs, write_recipes
from kepo.studies.reading import read_study
from kepo.studies.runner import identity, is_done, mark_begun, mark_done
from kepo.studies.schema import StudySpec

CONTENT: dict[str, Any] = {
    "title": "Mine",
    "data": "data/a folder",
    "seeds": [1, 2],
    "modalities": ["MRI", "CT"],
    "models": {"small": "models/small", "big": "models/big"},
    "fields": {"learning_rate": 1e-5, "max_steps": 3},
    "arms": {
        "zero-shot": {"recipe": "paper/grpo-nothink", "train": False},
        "kepo": {"recipe": "arms/kepo", "fields": {"learning_rate": 2e-6}},
    },
    "evaluation": {"batch_size": 8, "validation_limit": 50},
    "slurm": {"options": {"time": "01:00:00"}, "setup": ["source env/bin/activate"], "at_once": 3},
}


def _study(folder: Path, **changed: Any) -> StudySpec:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, "out": str(folder / "out"), **changed}, sort_keys=False))
    return read_study(str(file))


def _plans(folder: Path, **changed: Any) -> list[RunPlan]:
    study = _study(folder, **changed)
    plans = plan_runs(study)
    write_recipes(plans)
    return plans


def test_every_arm_model_modality_and_seed_is_a_run(tmp_path: Path) -> None:
    plans = _plans(tmp_path)
    assert len(plans) == 4 + 8
    assert [plan.title for plan in plans[:3]] == ["MRI/zero-shot--small", "MRI/zero-shot--big", "CT/zero-shot--small"]
    # One repetition after the other.
    assert [plan.seed for plan in plans[4:]] == [1] * 4 + [2] * 4
    assert len({plan.folder for plan in plans}) == len(plans)
    assert plans[4].replicate == "small/seed-1"


def test_the_recipe_of_a_run_has_the_fields_of_study_model_and_arm(tmp_path: Path) -> None:
    plan = next(plan for plan in _plans(tmp_path) if plan.name == "kepo--big--seed-2" and plan.modality == "CT")
    resolved = plan.resolved()
    assert resolved["learning_rate"] == 2e-6  # the arm goes over the study
    assert (resolved["max_steps"], resolved["model_name_or_path"]) == (3, "models/big")
    assert (resolved["gate"], resolved["exploration"]) == ("trajectory", "hint")  # of the base
    assert (resolved["seed"], resolved["modality"], resolved["data_path"]) == (2, "CT", "data/a folder/train")
    assert (resolved["arm"], resolved["replicate"]) == ("kepo", "big/seed-2")
    assert resolved["output_dir"] == str(plan.folder)


def test_reports_find_names_order_and_contrasts_of_the_arms(tmp_path: Path) -> None:
    contrasts = [{"title": "Does it help?", "pairs": [["kepo", "zero-shot"]]}]
    describe_study(_study(tmp_path, contrasts=contrasts))
    described = json.loads((tmp_path / "out" / "CT" / "study.json").read_text())
    assert described["title"] == "Mine, trained on CT"
    assert described["main_arm"] == "kepo"
    assert described["arms"]["zero-shot"] == {"label": "zero-shot", "order": 0, "baseline": False}
    assert described["contrasts"] == contrasts
    assert described["in_domain"] == ["CT"]
    assert json.loads((tmp_path / "out" / "study.json").read_text())["title"] == "Mine"


def test_a_recipe_may_be_made_of_several(tmp_path: Path) -> None:
    plan = _plans(tmp_path, arms={"token": {"recipe": ["phantom/_base", "arms/kepo-token"]}})[0]
    assert (plan.resolved()["num_generations"], plan.resolved()["gate"]) == (8, "token")


def test_runs_of_some_arms_come_last(tmp_path: Path) -> None:
    arms = {"odd": {"recipe": "arms/kepo", "last": True}, "kepo": "arms/kepo"}
    order = [(plan.arm.name, plan.seed) for plan in _plans(tmp_path, arms=arms, modalities=["MRI"], models=None)]
    assert order == [("kepo", 1), ("kepo", 2), ("odd", 1), ("odd", 2)]


def test_a_run_is_trained_validated_and_tested_by_commands_of_its_own(tmp_path: Path) -> None:
    plan = next(plan for plan in _plans(tmp_path) if plan.arm.train)
    lines = [stage.arguments for stage in stages(plan)]
    shared = ("--batch-size", "8")
    assert lines == [
        ("train", str(plan.recipe_file), "--continue"),
        (
            *("eval", str(plan.folder), "--checkpoints", "--data", "data/a folder/validation"),
            *("--name", "validation", *shared, "--limit", "50"),
        ),
        (
            *("eval", str(plan.folder), "--best-by", "validation", "--data", "data/a folder/test"),
            *("--name", "test", *shared),
        ),
    ]
    watched = next(plan for plan in _plans(tmp_path, validation={"every": 5}) if plan.arm.train)
    assert [stage.arguments for stage in stages(watched)] == [
        ("train", str(watched.recipe_file), "--continue"),
        ("eval", str(watched.folder), "--data", "data/a folder/test", "--name", "test", *shared),
    ]
    validated = {name: watched.resolved()[name] for name in ("validation_path", "validate_every")}
    assert validated == {"validation_path": "data/a folder/validation", "validate_every": 5}
    accelerated = _plans(tmp_path, accelerate_config="zero2-4gpu")[-1]
    assert stages(accelerated)[0].arguments[-2:] == ("--accelerate-config", "zero2-4gpu")


def test_a_model_as_it_is_is_asked_as_its_recipe_says(tmp_path: Path) -> None:
    plan = _plans(tmp_path)[1]
    [stage] = stages(plan)
    words = list(stage.arguments)
    assert words[:4] == ["eval", "models/big", "--out", str(plan.folder)]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options == {
        "--data": "data/a folder/test",
        "--name": "test",
        "--in-domain": "MRI",
        "--arm": "zero-shot",
        "--replicate": "big",
        "--prompt-style": "answer",
        "--image-size": "384",
        "--max-new-tokens": "1024",
        "--reward": "choice_accuracy",
        "--batch-size": "8",
    }


def test_what_is_printed_is_what_a_shell_runs(tmp_path: Path) -> None:
    """Both scripts, run by bash with a `kepo` that notes its arguments, one per line."""
    plans = _plans(tmp_path)
    noted = tmp_path / "noted"
    kepo = tmp_path / "bin" / "kepo"
    kepo.parent.mkdir()
    kepo.write_text(f'#!/bin/sh\nfor word in "$@"; do echo "$word" >> {noted}; done\necho ";" >> {noted}\n')
    kepo.chmod(0o755)
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "activate").write_text(f"echo activated > {tmp_path / 'activated'}\n")
    environment = {**os.environ, "PATH": f"{kepo.parent}:{os.environ['PATH']}"}

    def words(script: str, **more: str) -> list[tuple[str, ...]]:
        noted.unlink(missing_ok=True)
        done = subprocess.run(["bash", "-c", script], env={**environment, **more}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [tuple(one.strip().splitlines()) for one in noted.read_text().split(";\n") if one]

    wanted = [stage.arguments for plan in plans for stage in stages(plan)]
    reports = [stage.arguments for stage in report_stages(plans[0].study)]
    assert words(shell_script(plans)) == [*wanted, *reports]
    script = slurm_script(plans, tmp_path)
    assert "#SBATCH --array=0-11%3\n" in script
    assert "#SBATCH --time=01:00:00\n" in script
    assert words(script, SLURM_ARRAY_TASK_ID="5") == [stage.arguments for stage in stages(plans[5])]
    assert (tmp_path / "activated").exists()
    unknown = subprocess.run(
        ["bash", "-c", script], env={**environment, "SLURM_ARRAY_TASK_ID": "12"}, capture_output=True
    )
    assert unknown.returncode == 2


def test_a_command_that_fails_ends_its_run(tmp_path: Path) -> None:
    assert command_line(_plans(tmp_path)[-1]).count(" && kepo eval ") == 2


def test_only_some_arms(tmp_path: Path) -> None:
    study = _study(tmp_path)
    assert {plan.arm.name for plan in plan_runs(study, ["kepo"])} == {"kepo"}
    with pytest.raises(ConfigError, match=r"--only 'kpeo' is no arm of .*mine.yaml; did you mean 'kepo'\? Use one of"):
        plan_runs(study, ["kpeo"])


def test_a_field_that_no_recipe_knows_is_found_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown field .lerning_rate. in .*zero-shot--small\.yaml"):
        check_recipes(_plans(tmp_path, fields={"lerning_rate": 1}))
    check_recipes(_plans(tmp_path, fields={"num_train": None}))
    arms = {"zero-shot": {"recipe": "arms/grpo", "train": False}}
    with pytest.raises(ConfigError, match=r"arms.zero-shot': no model_name_or_path"):
        check_recipes(_plans(tmp_path, arms=arms, models=None))


def test_data_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data/a folder/train: there is no such file or folder; `kepo prepare`"):
        check_data(_study(tmp_path))


@pytest.mark.parametrize(("test", "repeated"), [("t", False), ("v", True)])
def test_weights_are_never_chosen_on_questions_of_the_test(tmp_path: Path, test: str, repeated: bool) -> None:
    def write(name: str, id_: str, text: str) -> str:
        row = {"id": id_, "question": text, "options": ["x", "y"], "answer": "A", "modality": "MRI"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        return str(tmp_path / f"{name}.jsonl")

    data = {"train": write("train", "a", "What?"), "validation": write("validation", "v", "Which  one?")}
    study = _study(tmp_path, data={**data, "test": write("test", test, "Where?")}, validation={"every": 1})
    same = _study(tmp_path, data={**data, "test": write("again", "t", "which one?")}, validation={"every": 1})
    for one, refused in ((study, repeated), (same, True)):
        if refused:
            with pytest.raises(ConfigError, match=r"1 questions are in .*validation.jsonl too, by which .* are chosen"):
                check_data(one)
        else:
            check_data(one)


def test_a_run_is_done_when_its_note_says_these_settings_and_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "validation", "test"):
        (data / split).mkdir(parents=True)
        (data / split / "state.json").write_text('{"_fingerprint": "1"}')
    model = tmp_path / "model" / "model.safetensors"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    settings: dict[str, Any] = {"data": str(data), "models": {"small": str(model.parent)}}
    plan = _plans(tmp_path, **settings)[-1]
    assert not is_done(plan)
    mark_done(plan)
    assert is_done(plan)
    (data / "test" / "state.json").write_text('{"_fingerprint": "2"}')
    assert not is_done(plan)
    (data / "test" / "state.json").write_text('{"_fingerprint": "1"}')
    assert is_done(plan)
    model.write_bytes(b"Weights")
    assert not is_done(plan)
    model.write_bytes(b"weights")
    assert not is_done(_plans(tmp_path, **settings, fields={"max_steps": 4})[-1])
    assert not is_done(_plans(tmp_path, **settings, validation={"every": 5})[-1])
    assert is_done(_plans(tmp_path, **settings, title="Another", seeds=[1, 2, 3], workers="in-process")[-3])
    mark_begun(plan)
    assert not is_done(plan)


def test_a_run_stays_the_same_when_the_study_is_moved(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": "$out/data", "models": {"small": "$out/models/small"}}
    here, there = (_plans(tmp_path, **settings, out=str(tmp_path / name))[-1] for name in ("here", "there"))
    write_recipes([here])
    assert here.folder != there.folder
    assert identity(here) == identity(there)
