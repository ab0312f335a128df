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
        ("grpo", ("arms/grpo",), "grpo"),
        ("kepo", ("arms/kepo",), "KEPO"),
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
        ("grpo", ("arms/grpo",)),
        ("own", (str((tmp_path / "own.yaml").resolve()),)),
    ]


def test_the_command_line_goes_over_the_file(tmp_path: Path) -> None:
    study = read_study(str(_write(tmp_path, data=None, out=None)), data="elsewhere", out="there")
    assert (study.data.test, study.out) == (Path("elsewhere/test"), Path("there"))


def test_data_and_models_may_lie_in_the_studys_folder(tmp_path: Path) -> None:
    models = {"small": "$out/models/small"}
    arms = {"kepo": {"recipe": "arms/kepo", "fields": {"teacher_model_name_or_path": "$out/models/teacher"}}}
    study = read_study(str(_write(tmp_path, data="$out/data", models=models, arms=arms)), out="there")
    assert study.data.train == Path("there/data/train")
    assert study.models[0].fields == {"model_name_or_path": "there/models/small"}
    assert study.arms[0].fields == {"teacher_model_name_or_path": "there/models/teacher"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sedes": [1]}, r"mine.yaml, key 'sedes': it is unknown; did you mean 'seeds'\?"),
        ({"colour": "red"}, "key 'colour': it is unknown; see docs/study.md"),
        ({"seeds": None}, "key 'seeds': it is missing or empty"),
        ({"seeds": [1, 2, 1]}, "key 'seeds': 1 is there twice; name each once"),
        ({"seeds": [1, "two"]}, "key 'seeds.1': 'two' was given; expected `int`, got `str`"),
        ({"seeds": [1, True]}, "key 'seeds.1': True was given; expected `int`, got `bool`"),
        ({"seeds": [-1]}, "key 'seeds.0': -1 was given; expected `int` >= 0"),
        ({"seeds": 3}, "key 'seeds': 3 was given; expected a list, got `int`"),
        ({"modalities": ["MRI", "PET"]}, "key 'modalities': 'PET' is unknown; use MRI, CT"),
        ({"modalities": ["MRI", "MR (Mag-netic Resonance Imaging)"]}, "key 'modalities': 'MRI' is there twice"),
        ({"arms": {"x": "arms/grop"}}, "key 'arms.x.recipe': 'arms/grop' is no recipe"),
        ({"arms": {"x": ["arms/grpo"]}}, r"key 'arms.x': \['arms/grpo'\] was given where keys with values belong"),
        ({"arms": {"x": {"recipe": ["arms/grpo", "arms/kepp"]}}}, "key 'arms.x.recipe': 'arms/kepp' is no recipe"),
        ({"arms": {"x": {"label": "X"}}}, "key 'arms.x.recipe': .* was given; expected a list of length >= 1"),
        ({"arms": {"x": {"recipe": "arms/grpo", "lable": "X"}}}, r"key 'arms.x.lable': .* 'label'\?"),
        ({"arms": {"x": {"recipe": "arms/grpo", "train": "no"}}}, "'arms.x.train': 'no' was given; expected `bool`"),
        ({"arms": {"x": {"recipe": "arms/grpo", "fields": {"seed": 3}}}}, "arms.x.fields.seed': the study sets it"),
        ({"arms": {"x": {"recipe": "arms/grpo", "tuned_as": "y"}}}, "key 'arms.x.tuned_as': 'y' is no arm"),
        ({"arms": {"../x": "arms/grpo"}}, "'../x' was given; expected `str` matching regex"),
        ({"arms": {"a--b": "arms/grpo"}}, "'a--b' was given; expected `str` matching regex"),
        ({"arms": {"a\n": "arms/grpo"}}, r"'a\\n' was given; expected `str` matching regex"),
        ({"arms": ["arms/grpo", "medical/grpo"]}, "key 'arms': 'grpo' is there twice"),
        ({"main_arm": "grop"}, "key 'main_arm': 'grop' is no arm; there are grpo, kepo"),
        ({"models": {"a b": "x"}}, "'a b' was given; expected `str` matching regex"),
        ({"models": {"x": {"output_dir": "o"}}}, "key 'models.x.output_dir': the study sets it"),
        ({"data": {"train": "a", "test": "b"}}, "key 'data.validation': it is missing"),
        ({"data": {"train": "a", "validation": "b", "test": "b"}}, "key 'data': 'b' is there twice"),
        ({"evaluation": {"temperature": 1}}, "key 'evaluation.temperature': it is unknown"),
        ({"evaluation": {"test_limit": 0}}, "key 'evaluation.test_limit': 0 was given; expected `int` >= 1"),
        ({"evaluation": {"batch_size": "many"}}, "key 'evaluation.batch_size': 'many' was given; expected `int"),
        ({"validation": {"every": 0}}, "key 'validation.every': 0 was given; expected `int` >= 1"),
        ({"fields": {"validation_path": "v"}}, "key 'fields.validation_path': the study sets it"),
        ({"tuning": {"grid": {}, "seed": 5}}, "key 'tuning.grid': {} was given; expected keys with values of length"),
        ({"tuning": {"grid": {"learning_rate": []}, "seed": 5}}, "key 'tuning.grid': .* was given; expected a list of"),
        ({"tuning": {"grid": {"seed": [5]}, "seed": 5}}, "key 'tuning.grid.seed': the study sets it"),
        ({"tuning": {"grid": {"beta": [1, 1]}, "seed": 5}}, "key 'tuning.grid.beta': '1' is there twice"),
        ({"tuning": {"grid": {"beta": [1]}, "seed": 2}}, "key 'tuning.seed': 2 is a seed of the study"),
        ({"tuning": {"grid": {"beta": [1]}, "seed": 5, "arms": ["x"]}}, "key 'tuning.arms': 'x' is no arm"),
        ({"tuning": {"grid": {"beta": [1]}, "seed": 5, "model": "x"}}, "key 'tuning.model': 'x' is no model"),
        ({"contrasts": [{"title": "Which?", "pairs": [["kepo", "grop"]]}]}, "key 'contrasts': 'grop' is no arm"),
        ({"contrasts": [{"title": "Which?", "pairs": [["kepo"]]}]}, "key 'contrasts.0.pairs.0': .* of length 2"),
        ({"workers": "four"}, "key 'workers': 'four' was given; invalid enum value"),
        ({"slurm": {"options": {"time\nrm": 1}}}, "key 'slurm.options': .* matching regex"),
        ({"slurm": {"options": {"time": "1\n2"}}}, "key 'slurm.options': .* matching regex"),
        ({"slurm": {"at_once": 0}}, "key 'slurm.at_once': 0 was given; expected `int` >= 1"),
        ({"accelerate_config": 8}, "key 'accelerate_config': 8 was given; expected `str"),
        (
            {"accelerate_config": "zero2", "workers": "in-process"},
            "'accelerate_config': 'zero2' starts processes of its",
        ),
        (
            {"accelerate_config": "zero2", "validation": {"every": 9}},
            "'accelerate_config': 'zero2' starts processes of",
        ),
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
    with pytest.raises(ConfigError, match=r"no study 'studies/papr': .* did you mean 'studies/paper'"):
        read_study("studies/papr")
    with pytest.raises(ConfigError, match="no study 'arms/grpo'"):
        read_study("arms/grpo")


def test_shipped_studies_can_be_read_and_are_no_recipes() -> None:
    names = ["medical-small", "paper", "phantom", "phantom-demo"]
    assert shipped_studies() == [f"studies/{name}" for name in names]
    for name in shipped_studies():
        for arm in read_study(name).arms:
            assert all(map(find_recipe, arm.recipe))
    assert not [name for name in shipped_recipes() if name.startswith("studies")]


def test_the_study_in_the_docs_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "study.md").read_text(encoding="utf-8")
    (tmp_path / "docs.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    study = read_study(str(tmp_path / "docs.yaml"))
    assert [arm.name for arm in study.arms] == ["zero-shot", "grpo", "kepo", "kepo-small-teacher"]
    assert study.tuning is not None
    assert study.evaluation.options == {"batch_size": "64", "devices": "cuda:0,cuda:1"}


def test_the_papers_study_has_every_arm_of_the_paper() -> None:
    arms = {recipe for arm in read_study("studies/paper").arms if arm.train for recipe in arm.recipe}
    assert arms == {name for name in shipped_recipes() if name.startswith("paper/")}
