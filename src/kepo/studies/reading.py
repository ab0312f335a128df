"""From a YAML file to a `StudySpec`, or a readable error that names file, key and value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import yaml

from kepo.data.omnimedvqa import MODALITIES, canonical_modality
from kepo.errors import ConfigError, did_you_mean, nearest
from kepo.recipes.files import STUDIES, find_file, find_recipe
from kepo.studies.schema import Record, StudySpec
from kepo.types import SPLITS

_OUT = "$out"
# The study sets these itself: what it varies, and where things lie.
_OWN_FIELDS = (
    *("arm", "replicate", "seed", "modality", "output_dir", "data_path", "base", "overwrite"),
    *("validation_path", "validate_every", "validation_max_new_tokens"),
)


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
    """The file of a study given as a path or as the name of a shipped one; raises ConfigError for neither."""
    path = find_file(name)
    if path is not None and (Path(name).is_file() or path.parent.name == STUDIES):
        return path
    raise ConfigError(
        f"There is no study {name!r}: neither a file nor a shipped one; {did_you_mean(name, shipped_studies())}"
    )


def read_study(name: str, *, data: str | None = None, out: str | None = None) -> StudySpec:
    """Read and check a study.

    Args:
        name: Path, or name of a shipped study.
        data: Replaces the file's `data`.
        out: Replaces the file's `out`.

    Raises:
        ConfigError: names file, key and value, and what to do.
    """
    file = find_study(name)
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold keys such as arms, seeds and modalities; see docs/study.md.")
    content |= {key: value for key, value in (("data", data), ("out", out)) if value is not None}
    content = _written_out(_with_out(content, str(content.get("out"))), file)
    try:
        spec = msgspec.convert(content, StudySpec, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        _explain(error, content, file)
    for key, problem in _problems(spec):
        _refuse(file, key, problem)
    return spec


def _refuse(file: Path, key: str, problem: str) -> NoReturn:
    raise ConfigError(f"{file}, key {key!r}: {problem}")


def _with_out(value: Any, out: str) -> Any:
    """`value` with the study's folder in place of `_OUT`."""
    if isinstance(value, dict):
        return {key: _with_out(one, out) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_out(one, out) for one in value]
    return value.replace(_OUT, out) if isinstance(value, str) else value


def _written_out(content: Mapping[Any, Any], file: Path) -> dict[Any, Any]:
    """The content of a study file with nothing abbreviated."""
    for key in ("data", "out", "arms", "seeds", "modalities"):
        if content.get(key) in (None, [], {}, ""):
            _refuse(file, key, "it is missing or empty; every study names it")
    full = {key: value for key, value in content.items() if value is not None}
    arms = full["arms"]
    if isinstance(arms, list):
        names = [str(recipe).rsplit("/", 1)[-1].removesuffix(".yaml") for recipe in arms]
        if twice := _twice(names):
            _refuse(file, "arms", twice)
        arms = dict(zip(names, arms, strict=True))
    full["arms"] = [_arm(name, spec, file) for name, spec in _mapping(arms, "arms", file).items()]
    if "models" in full:
        full["models"] = [
            {"name": name, "fields": {"model_name_or_path": spec} if isinstance(spec, str) else spec}
            for name, spec in _mapping(full["models"], "models", file).items()
        ]
    if isinstance(full["data"], str):
        full["data"] = {split: f"{full['data']}/{split}" for split in SPLITS}
    if isinstance(full["modalities"], list):
        full["modalities"] = [_modality(str(name)) for name in full["modalities"]]
    return {"title": file.stem, "main_arm": full["arms"][-1]["name"], **full, "source": str(file)}


def _mapping(value: Any, key: str, file: Path) -> dict[Any, Any]:
    if not isinstance(value, dict):
        _refuse(file, key, f"{value!r} was given where keys with values belong")
    return value


def _arm(name: Any, spec: Any, file: Path) -> dict[str, Any]:
    spec = {"recipe": spec} if isinstance(spec, str) else _mapping(spec, f"arms.{name}", file)
    recipes = spec.get("recipe") or []
    found = [_recipe(str(one), file) for one in (recipes if isinstance(recipes, list) else [recipes])]
    return {"label": str(name), **spec, "name": name, "recipe": found}


def _recipe(name: str, file: Path) -> str:
    """The absolute path of a recipe beside the study or below the current folder; else the name of a shipped one."""
    beside = file.parent / name
    places = (beside, beside.with_name(f"{beside.name}.yaml"), Path(name))
    return next((str(path.resolve()) for path in places if path.is_file()), name)


def _modality(name: str) -> str:
    known = {one.casefold(): one for one in MODALITIES}
    return known.get(name.casefold()) or canonical_modality(name) or name


def _explain(error: msgspec.ValidationError, content: Any, file: Path) -> NoReturn:
    """What is wrong in the user's words: the arm's name instead of its number, and the value that was given."""
    problem, where = re.fullmatch(r"(.*?)(?: - at (?:`key` in )?`\$(.*)`)?", str(error)).groups("")  # type: ignore[union-attr]
    keys, value = [], content
    for key in re.findall(r"[^.\[\]`]+", where):
        if isinstance(value, list):
            value = value[int(key)]
            keys.append(str(value.get("name", key)) if isinstance(value, dict) else key)
        elif key in value:
            value = value[key]
            keys.append(key)
    named = re.search(r"(missing required|unknown) field `(.+)`", problem)
    if named is None:
        words = problem.replace("`array`", "a list").replace("`object`", "keys with values")
        _refuse(file, ".".join(keys), f"{value!r} was given; {words[0].lower()}{words[1:]}")
    key = ".".join([*keys, named[2]])
    if named[1] == "missing required":
        _refuse(file, key, "it is missing")
    known = {name for kind in Record.__subclasses__() for name in kind.__struct_fields__}
    close = nearest(named[2], known)
    _refuse(file, key, f"it is unknown; did you mean {close!r}?" if close else "it is unknown; see docs/study.md")


def _problems(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with its value) of what a type cannot say."""
    names = [arm.name for arm in spec.arms]
    lists = {"seeds": spec.seeds, "modalities": spec.modalities}
    lists["data"] = tuple(str(getattr(spec.data, split)) for split in SPLITS)
    yield from ((key, twice) for key, values in lists.items() if (twice := _twice(values)))
    for modality in spec.modalities:
        if modality not in MODALITIES:
            yield "modalities", f"{modality!r} is unknown; use {', '.join(MODALITIES)}"
    for arm in spec.arms:
        for recipe in arm.recipe:
            try:
                find_recipe(recipe)
            except ConfigError as error:
                yield f"arms.{arm.name}.recipe", f"{recipe!r} is no recipe: {error}"
    yield from _own_fields(spec)
    named = [("main_arm", spec.main_arm)]
    named += [(f"arms.{arm.name}.tuned_as", arm.tuned_as) for arm in spec.arms if arm.tuned_as is not None]
    named += [("tuning.arms", name) for name in (spec.tuning.arms if spec.tuning else ())]
    named += [("contrasts", name) for one in spec.contrasts for pair in one.pairs for name in pair]
    for key, name in named:
        if name not in names:
            yield key, f"{name!r} is no arm; there are {', '.join(names)}"
    yield from _tuning_problems(spec)
    if spec.accelerate_config is not None and (spec.workers == "in-process" or spec.validation is not None):
        problem = "starts processes of its own; leave it out, or 'workers: in-process' and 'validation'"
        yield "accelerate_config", f"{spec.accelerate_config!r} {problem}"


def _own_fields(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """Whether other recipe fields are known is checked with the recipes, see `kepo.studies.plan.check_recipes`."""
    given = {"fields": spec.fields, "tuning.grid": spec.tuning.grid if spec.tuning else {}}
    given |= {f"arms.{arm.name}.fields": arm.fields for arm in spec.arms}
    given |= {f"models.{model.name}": model.fields for model in spec.models}
    for place, fields in given.items():
        own = [name for name in fields if name in _OWN_FIELDS]
        yield from ((f"{place}.{name}", "the study sets it itself; leave it out") for name in own)


def _tuning_problems(spec: StudySpec) -> Iterator[tuple[str, str]]:
    tuning = spec.tuning
    if tuning is None:
        return
    for name, values in tuning.grid.items():
        if twice := _twice([str(value) for value in values]):
            yield f"tuning.grid.{name}", twice
    if tuning.seed in spec.seeds:
        yield "tuning.seed", f"{tuning.seed} is a seed of the study; choose with one that it does not use"
    if tuning.model is not None and tuning.model not in [model.name for model in spec.models]:
        yield "tuning.model", f"{tuning.model!r} is no model of the study"
    for name in tuning.arms:
        if not spec.arm(name).train:
            yield "tuning.arms", f"{name!r} trains nothing, so there is nothing to choose"


def _twice(values: Sequence[Any]) -> str | None:
    twice = next((value for value in values if values.count(value) > 1), None)
    return None if twice is None else f"{twice!r} is there twice; name each once"
