"""From a YAML file to a `StudySpec`, or one sentence that names file, key and value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from kepo.data.omnimedvqa import MODALITIES, canonical_modality
from kepo.errors import ConfigError
from kepo.recipes.files import STUDIES, find_file, find_recipe
from kepo.studies.schema import (
    DEFAULT_MODEL,
    ArmSpec,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    SlurmSpec,
    StudySpec,
)
from kepo.types import SPLITS

T = TypeVar("T")

_KEYS = (
    *("title", "question", "out", "data", "arms", "models", "seeds", "modalities", "fields", "main_arm"),
    *("evaluation", "accelerate_config", "slurm"),
)
_LIMITS = ("validation_limit", "test_limit")
_OPTIONS = ("batch_size", "dtype", "device", "devices", "max_new_tokens", "prompt_style", "image_size", "reward")
# The study sets these itself: what it varies, and where things lie.
_OWN_FIELDS = ("arm", "replicate", "seed", "modality", "output_dir", "data_path", "base", "overwrite")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands in the file."""

    file: Path
    key: str = ""

    def below(self, key: object) -> _Place:
        return _Place(self.file, f"{self.key}.{key}" if self.key else str(key))

    def refuse(self, problem: str) -> NoReturn:
        raise ConfigError(f"{self.file}, key {self.key!r}: {problem}")


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"the key {twice!r} is there twice in the mapping that begins in line {line}")
        return super().construct_mapping(node, deep)


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    root = Path(str(files("kepo.recipes")))
    return sorted(str(path.relative_to(root).with_suffix("")) for path in (root / STUDIES).glob("*.yaml"))


def find_study(name: str) -> Path:
    """The file of a study given as a path or as the name of a shipped one.

    Raises:
        ConfigError: There is neither.
    """
    path = find_file(name)
    if path is not None and (Path(name).is_file() or path.parent.name == STUDIES):
        return path
    raise ConfigError(f"There is no study {name!r}: neither a file, nor one of {', '.join(shipped_studies())}.")


def read_study(name: str, *, data: str | None = None, out: str | None = None) -> StudySpec:
    """Read and check a study.

    Args:
        name: Path, or name of a shipped study.
        data: Goes over the file's `data`.
        out: Goes over the file's `out`.

    Raises:
        ConfigError: names file, key and value, and what to do.
    """
    file = find_study(name)
    place = _Place(file)
    content = _content(file)
    content |= {key: value for key, value in (("data", data), ("out", out)) if value is not None}
    _known(content, _KEYS, place)
    for key in ("data", "out", "arms", "seeds", "modalities"):
        if content.get(key) in (None, [], {}, ""):
            place.below(key).refuse("it is missing or empty; every study names it")
    arms = tuple(_arms(content["arms"], place.below("arms"), file))
    return StudySpec(
        source=file,
        title=str(content.get("title") or file.stem),
        question=str(content.get("question") or ""),
        out=Path(str(content["out"])),
        data=_data(content["data"], place.below("data")),
        arms=arms,
        models=_models(content.get("models"), place.below("models")),
        seeds=_seeds(content["seeds"], place.below("seeds")),
        modalities=_modalities(content["modalities"], place.below("modalities")),
        fields=_fields(content.get("fields"), place.below("fields")),
        main_arm=_main_arm(content.get("main_arm"), arms, place.below("main_arm")),
        evaluation=_evaluation(content.get("evaluation"), place.below("evaluation")),
        accelerate_config=_optional_text(content.get("accelerate_config"), place.below("accelerate_config")),
        slurm=_slurm(content.get("slurm"), place.below("slurm")),
    )


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold keys such as arms, seeds and modalities; see docs/study.md.")
    return content


def _known(content: Mapping[Any, Any], known: Collection[str], place: _Place) -> None:
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            place.below(key).refuse(f"it is unknown; {advice}")


def _arms(value: Any, place: _Place, file: Path) -> list[ArmSpec]:
    if isinstance(value, list):
        names = [str(recipe).rsplit("/", 1)[-1].removesuffix(".yaml") for recipe in value]
        value = _once(names, place) and dict(zip(names, value, strict=True))
    return [_arm(_named(name, place), spec, place.below(name), file) for name, spec in _mapping(value, place).items()]


def _arm(name: str, spec: Any, place: _Place, file: Path) -> ArmSpec:
    content = {"recipe": spec} if isinstance(spec, str) else _mapping(spec, place)
    _known(content, ("recipe", "label", "baseline", "train", "fields"), place)
    if not content.get("recipe"):
        place.below("recipe").refuse("it is missing; name a recipe (`kepo recipes` lists those that are shipped)")
    return ArmSpec(
        name=name,
        recipe=_recipe(str(content["recipe"]), place.below("recipe"), file),
        label=str(content.get("label") or name),
        baseline=_flag(content.get("baseline", False), place.below("baseline")),
        train=_flag(content.get("train", True), place.below("train")),
        fields=_fields(content.get("fields"), place.below("fields")),
    )


def _recipe(name: str, place: _Place, file: Path) -> str:
    """A shipped recipe's name, or the absolute path of one beside the study or below the current folder."""
    for path in (file.parent / name, file.parent / f"{name}.yaml", Path(name)):
        if path.is_file():
            return str(path.resolve())
    try:
        find_recipe(name)
    except ConfigError as error:
        place.refuse(f"{name!r} is no recipe: {error}")
    return name


def _models(value: Any, place: _Place) -> tuple[ModelSpec, ...]:
    if value is None:
        return (ModelSpec(DEFAULT_MODEL),)
    models = []
    for name, spec in _mapping(value, place).items():
        fields = {"model_name_or_path": spec} if isinstance(spec, str) else spec
        models.append(ModelSpec(_named(name, place), _fields(fields, place.below(name))))
    return tuple(models)


def _seeds(value: Any, place: _Place) -> tuple[int, ...]:
    seeds = _list(value, place)
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            place.refuse(f"{seed!r} is no seed; give whole numbers from 0 on")
    _once(seeds, place)
    return tuple(seeds)


def _modalities(value: Any, place: _Place) -> tuple[str, ...]:
    found = []
    for name in _list(value, place):
        known = {one.casefold(): one for one in MODALITIES}
        modality = known.get(str(name).casefold()) or canonical_modality(str(name))
        if modality is None:
            place.refuse(f"{name!r} is unknown; use {', '.join(MODALITIES)}")
        found.append(modality)
    _once(found, place)
    return tuple(found)


def _data(value: Any, place: _Place) -> DataSpec:
    if isinstance(value, str):
        return DataSpec(*(Path(value) / split for split in SPLITS))
    content = _mapping(value, place)
    _known(content, SPLITS, place)
    for split in SPLITS:
        if not content.get(split):
            place.below(split).refuse("it is missing; name the questions, or give the folder that holds all three")
    paths = [str(content[split]) for split in SPLITS]
    _once(paths, place)
    return DataSpec(*map(Path, paths))


def _fields(value: Any, place: _Place) -> dict[str, Any]:
    """Recipe fields; whether they are known is checked with the recipe, see `kepo.studies.plan.check_recipes`."""
    fields = {} if value is None else _mapping(value, place)
    for name in fields:
        if name in _OWN_FIELDS:
            place.below(name).refuse("the study sets it itself; leave it out")
    return fields


def _main_arm(value: Any, arms: Sequence[ArmSpec], place: _Place) -> str:
    names = [arm.name for arm in arms]
    if value is not None and value not in names:
        place.refuse(f"{value!r} is no arm; there are {', '.join(names)}")
    return str(value) if value is not None else names[-1]


def _evaluation(value: Any, place: _Place) -> EvaluationSpec:
    content = {} if value is None else _mapping(value, place)
    _known(content, (*_OPTIONS, *_LIMITS), place)
    limits = {}
    for key in _LIMITS:
        limit = content.get(key)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            place.below(key).refuse(f"{limit!r} is no number of questions; give a whole number from 1 on")
        limits[key] = limit
    options = {key: str(content[key]) for key in _OPTIONS if content.get(key) is not None}
    return EvaluationSpec(options, **limits)


def _slurm(value: Any, place: _Place) -> SlurmSpec:
    content = {} if value is None else _mapping(value, place)
    _known(content, ("options", "setup", "at_once"), place)
    options = _mapping(content.get("options") or {}, place.below("options"))
    for name, text in options.items():
        if not re.fullmatch(r"[a-z][a-z-]*", str(name)) or "\n" in str(text):
            place.below("options").refuse(f"{name!r}: {text!r} is no long option of sbatch, such as time: 12:00:00")
    at_once = content.get("at_once")
    if at_once is not None and (not isinstance(at_once, int) or at_once < 1):
        place.below("at_once").refuse(f"{at_once!r} is no number of tasks; give a whole number from 1 on")
    setup = content.get("setup") or []
    lines = [setup] if isinstance(setup, str) else _list(setup, place.below("setup"))
    return SlurmSpec({str(name): str(text) for name, text in options.items()}, tuple(map(str, lines)), at_once)


def _flag(value: Any, place: _Place) -> bool:
    if not isinstance(value, bool):
        place.refuse(f"{value!r} is neither true nor false")
    return value


def _optional_text(value: Any, place: _Place) -> str | None:
    if value is not None and not isinstance(value, str):
        place.refuse(f"{value!r} is no name")
    return value


def _named(name: Any, place: _Place) -> str:
    """A name that can be part of a folder's."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "--" in name:
        place.below(name).refuse("a name holds letters, digits, '.', '_' and single '-' only, and begins with no sign")
    return name


def _mapping(value: Any, place: _Place) -> dict[str, Any]:
    return _of_type(value, place, dict, "keys with values")


def _list(value: Any, place: _Place) -> list[Any]:
    return _of_type(value, place, list, "a list")


def _of_type(value: Any, place: _Place, wanted: Callable[..., T], words: str) -> T:
    if not isinstance(value, wanted):  # type: ignore[arg-type]
        place.refuse(f"{value!r} was given where {words} belongs")
    return value


def _once(values: Sequence[Any], place: _Place) -> bool:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        place.refuse(f"{twice!r} is there twice; name each once")
    return True
