"""What a study file may say, and the sentence for what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kepo.errors import ConfigError
from kepo.recipes.files import find_recipe, shipped_recipes
from kepo.studies.reading import read_study, shipped_studies

GOOD: dict[str, Any] = {
    "out": "runs/mine",
    "data": "data/mine",
    "seeds": [1, 2],
    "modalities": ["mri", "X-ray"],
    "arms": {"grpo": "arms/grpo", "kepo": {"recipe": "arms/kepo", "label": "KEPO", "fields": {"learning_rate": 1e-6}}},
}


def _write(folder: Path, **changed: Any) -> Path:
    file = folder / "mine.yaml"
    content = {key: value for key, value in {**GOOD, **changed}.items() if value is not None}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def test_a_study_is_read(tmp_path: Path) -> None:
    study = read_study(str(_write(tmp_path, models={"small": "models/small", "big": {"model_name_or_path": "b"}})))
    assert study.modalities == ("MRI", "X-Ray")
    assert [(arm.name, arm.recipe, arm.label) for arm in study.arms] == [
        ("grpo", "arms/grpo", "grpo"),
        ("kepo", "arms/kepo", "KEPO"),
    ]
    assert study.main_arm == "kepo"  # the last one
    assert [(model.name, model.fields["model_name_or_path"]) for model in study.models] == [
        ("small", "models/small"),
        ("big", "b"),
    ]
    assert study.data.validation == Path("data/mine/validation")


def test_arms_may_be_a_list_of_recipes_and_recipes_lie_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: arms/kepo\n")
    study = read_study(str(_write(tmp_path, arms=["arms/grpo", "own.yaml"])))
    assert [(arm.name, arm.recipe) for arm in study.arms] == [
        ("grpo", "arms/grpo"),
        ("own", str((tmp_path / "own.yaml").resolve())),
    ]


def test_the_command_line_goes_over_the_file(tmp_path: Path) -> None:
    study = read_study(str(_write(tmp_path, data=None, out=None)), data="elsewhere", out="there")
    assert (study.data.test, study.out) == (Path("elsewhere/test"), Path("there"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sedes": [1]}, r"mine.yaml, key 'sedes': it is unknown; did you mean 'seeds'\?"),
        ({"seeds": None}, "key 'seeds': it is missing or empty"),
        ({"seeds": [1, 2, 1]}, "key 'seeds': 1 is there twice; name each once"),
        ({"seeds": [1, "two"]}, "key 'seeds': 'two' is no seed"),
        ({"seeds": 3}, "key 'seeds': 3 was given where a list belongs"),
        ({"modalities": ["MRI", "PET"]}, "key 'modalities': 'PET' is unknown; use MRI, CT"),
        ({"modalities": ["MRI", "MR (Mag-netic Resonance Imaging)"]}, "key 'modalities': 'MRI' is there twice"),
        ({"arms": {"x": "arms/grop"}}, "key 'arms.x.recipe': 'arms/grop' is no recipe"),
        ({"arms": {"x": {"label": "X"}}}, "key 'arms.x.recipe': it is missing"),
        ({"arms": {"x": {"recipe": "arms/grpo", "lable": "X"}}}, r"key 'arms.x.lable': .* 'label'\?"),
        ({"arms": {"x": {"recipe": "arms/grpo", "train": "no"}}}, "key 'arms.x.train': 'no' is neither true nor false"),
        ({"arms": {"x": {"recipe": "arms/grpo", "fields": {"seed": 3}}}}, "arms.x.fields.seed': the study sets it"),
        ({"arms": {"../x": "arms/grpo"}}, "key 'arms.../x': a name holds letters"),
        ({"arms": ["arms/grpo", "medical/grpo"]}, "key 'arms': 'grpo' is there twice"),
        ({"main_arm": "grop"}, "key 'main_arm': 'grop' is no arm; there are grpo, kepo"),
        ({"models": {"a b": "x"}}, "key 'models.a b': a name holds letters"),
        ({"data": {"train": "a", "test": "b"}}, "key 'data.validation': it is missing"),
        ({"data": {"train": "a", "validation": "b", "test": "b"}}, "key 'data': 'b' is there twice"),
        ({"evaluation": {"temperature": 1}}, "key 'evaluation.temperature': it is unknown"),
        ({"evaluation": {"test_limit": 0}}, "key 'evaluation.test_limit': 0 is no number of questions"),
        ({"slurm": {"options": {"time\nrm": 1}}}, "is no long option of sbatch"),
        ({"slurm": {"at_once": 0}}, "key 'slurm.at_once': 0 is no number of tasks"),
        ({"accelerate_config": 8}, "key 'accelerate_config': 8 is no name"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_file_key_and_value(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_study(str(_write(tmp_path, **changed)))
    assert str(tmp_path / "mine.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms: [", "is not valid YAML"),
        ("- arms", "must hold keys"),
        ("out: a\nout: b\n", "the key 'out' is there twice in the mapping that begins in line 1"),
        ("arms: !!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_study(str(tmp_path / "bad.yaml"))


def test_a_study_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"no study 'studies/papr': neither a file, nor one of .*studies/paper"):
        read_study("studies/papr")
    with pytest.raises(ConfigError, match="no study 'arms/grpo'"):
        read_study("arms/grpo")


def test_shipped_studies_can_be_read_and_are_no_recipes() -> None:
    assert shipped_studies() == ["studies/medical-small", "studies/paper"]
    for name in shipped_studies():
        for arm in read_study(name).arms:
            assert find_recipe(arm.recipe)
    assert not [name for name in shipped_recipes() if name.startswith("studies")]


def test_the_papers_study_has_every_arm_of_the_paper() -> None:
    arms = {arm.recipe for arm in read_study("studies/paper").arms if arm.train}
    assert arms == {name for name in shipped_recipes() if name.startswith("paper/")}
