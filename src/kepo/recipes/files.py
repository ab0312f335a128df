"""Recipes as files: found by their names, joined, merged with their bases, and compared with what a run was made of.

Nothing here imports torch or TRL.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from kepo.errors import ConfigError
from kepo.runs import checkpoints_in, is_run, open_run

# Folders: what a method sets, without data, models and schedule; studies, which are no recipes.
ARMS, STUDIES, _ACCELERATE = "arms", "studies", "accelerate_configs"
_BASE = "_base"
_SPELLED_OUT = "paper"  # the suite whose arms set more than the shared arms do; each has a file of its own
CONTROLS = ("resume_from_checkpoint", "overwrite")  # fields that say what becomes of an older run, not what a run is
# Fields of recipes of earlier versions, and what they are called now; and values, by field.
_RENAMED = {
    "on_policy_share": "lmbda",
    "hint_attempts": "exploration_attempts",
    "hint_samples_per_attempt": "exploration_samples_per_attempt",
}
_RENAMED_VALUES = {"exploration_trigger": {"dead": "all_failed"}}


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package: files, and what `parts_of` joins."""
    written = {name for name in shipped_files() if not Path(name).name.startswith("_") and _folder(name) != STUDIES}
    arms = [Path(name).name for name in written if _folder(name) == ARMS]
    joined = {f"{suite}/{arm}" for suite in suites() for arm in arms}
    varied = {f"{name}-{variant}" for name in joined for variant in variants(_folder(name))}
    return sorted(written | joined | varied)


def shipped_files() -> list[str]:
    """Names of the files that come with the package: recipes, their `_base` and `_VARIANT` files, and studies."""
    names = sorted(str(path.relative_to(_root()).with_suffix("")) for path in _root().rglob("*.yaml"))
    return [name for name in names if _folder(name) != _ACCELERATE]


def first_comment(name: str) -> str:
    """The first line of a shipped file, which says what it is."""
    return _shipped(name).read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


def suites() -> list[str]:
    """Names of the shipped suites: a `_base` with data, models and schedule that any arm can be joined with."""
    return [_folder(name) for name in shipped_files() if name.endswith(f"/{_BASE}") and _joins(name)]


def variants(suite: str) -> list[str]:
    """What a suite's arms can be varied by: `lora` where the suite has a `_lora`."""
    names = sorted(path.stem for path in (_root() / suite).glob("_*.yaml"))
    return [name.removeprefix("_") for name in names if name != _BASE]


def parts_of(name: str) -> list[str]:
    """The recipes that a name without a file stands for; empty where `name` has a file, or nothing is known of it.

    `SUITE/ARM` is `SUITE/_base arms/ARM`, and `SUITE/ARM-VARIANT` is what `SUITE/ARM` is, then `SUITE/_VARIANT`.
    """
    suite, _, arm = name.removesuffix(".yaml").partition("/")
    if find_file(name) is not None or not _joins(name):
        return []
    if _shipped(f"{ARMS}/{arm}").is_file():
        return [f"{suite}/{_BASE}", f"{ARMS}/{arm}"]
    varied, _, variant = arm.rpartition("-")
    if variant not in variants(suite):
        return []
    plain = f"{suite}/{varied}"
    parts = [plain] if find_file(plain) is not None else parts_of(plain)
    return [*parts, f"{suite}/_{variant}"] if parts else []


def _joins(name: str) -> bool:
    suite = _folder(name)
    return suite != _SPELLED_OUT and _shipped(f"{suite}/{_BASE}").is_file()


def find_file(name: str) -> Path | None:
    """The file at a path, or the one of this name that comes with the package; None where there is neither."""
    return next((path for path in (Path(name), _shipped(name)) if path.is_file()), None)


def find_recipe(name: str) -> list[Path]:
    """The files of a recipe, a path or a shipped name: one, or those that are joined; a ConfigError where none is."""
    paths = [path for part in parts_of(name) or [name] if (path := find_file(part)) is not None]
    if paths:
        return paths
    path = Path(name)
    beside = [str(one) for kind in ("*.yaml", "*.yml") for one in path.parent.glob(kind)]
    stem = path.name.removesuffix(".yaml").removesuffix(".yml")
    mine = [one for one in beside if Path(one).stem == stem] or difflib.get_close_matches(str(path), beside)
    meant = mine[:2] or difflib.get_close_matches(name, shipped_recipes())
    if not meant and "/" not in name:  # an arm alone
        arms = [one.split("/")[1] for one in shipped_recipes() if one.startswith(f"{ARMS}/")]
        meant = [f"{ARMS}/{one}" for one in difflib.get_close_matches(name, arms)]
    advice = f"Did you mean {' or '.join(meant)}? " if meant else ""
    raise ConfigError(
        f"There is no recipe {name!r}: neither a file nor a shipped name. {advice}`kepo recipes` lists those there are."
    )


def label(name: str) -> str:
    """What a recipe is called in tables and folders: the last part of its name; a suite's `_base` as the suite."""
    path = Path(name.removesuffix(".yaml"))
    return path.absolute().parent.name if path.name == _BASE else path.name.removeprefix("_")


def read_recipes(names: str | Sequence[str], places: dict[str, str] | None = None) -> dict[str, Any]:
    """The fields of recipes, merged: later ones go over earlier ones, each over its own `base:` recipes.

    Several recipes that name no `output_dir` get one from their names: `kepo/_base arms/kepo` goes to `runs/kepo-kepo`.
    Recipes are paths, or names of shipped ones. Where each field stands, "FILE, line N", is written into `places`.
    """
    places = {} if places is None else places
    given = [names] if isinstance(names, str) else names
    if not given:
        raise ConfigError("No recipe is named: give at least one file or shipped name (`kepo recipes`).")
    merged: dict[str, Any] = {}
    for name in given:
        merged |= _read_named(name, places)
    if len(given) > 1:
        merged.setdefault("output_dir", f"runs/{'-'.join(map(label, given))}")
    return merged


def read_recipe(path: Path, places: dict[str, str] | None = None, above: Sequence[Path] = ()) -> dict[str, Any]:
    """The fields of one recipe file, those of its `base:` recipes underneath, later ones over earlier ones.

    A base is named as a file beside the recipe or as a shipped recipe, without `.yaml`; `above` are the files whose
    bases led here. Where each field stands is written into `places`.

    Raises:
        ConfigError: Not YAML, not a mapping, a field stands there twice or is named as in an earlier version, or a
            recipe is its own base.
    """
    places = {} if places is None else places
    if path.resolve() in above:
        raise ConfigError(f"{path} is its own base, by way of {', '.join(one.name for one in above)}.")
    content, lines = _parse(path)
    check_names(content, str(path))
    bases = content.pop("base", [])
    if not isinstance(bases, str | list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}, line {lines['base']}: base is {bases!r}; give the name of a recipe, or a list.")
    merged: dict[str, Any] = {}
    chain = (*above, path.resolve())
    for base in [bases] if isinstance(bases, str) else bases:
        beside = path.parent / f"{base.removesuffix('.yaml')}.yaml"
        merged |= read_recipe(beside, places, chain) if beside.is_file() else _read_named(base, places, chain)
    shown = f"kepo/recipes/{path.relative_to(_root())}" if path.is_relative_to(_root()) else str(path)
    places |= {name: f"{shown}, line {lines[name]}" for name in content}
    return merged | content


def _parse(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The fields of a file as they stand there, and their lines."""
    try:
        text = path.read_text(encoding="utf-8")
        content, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        what = "it is empty" if content is None else f"it begins with {text.strip()[:40]!r}"
        raise ConfigError(f"{path} must hold fields as `name: value`, one per line; {what}.")
    assert isinstance(node, yaml.MappingNode)
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.value in lines:
            raise ConfigError(f"{path}: {key.value!r} stands in line {lines[key.value]} and again in line {line}.")
        lines[key.value] = line
    return content, lines


def _read_named(name: str, places: dict[str, str], above: Sequence[Path] = ()) -> dict[str, Any]:
    if parts := parts_of(name):
        fields = read_recipes(parts, places)
        return {**fields, "output_dir": f"runs/{name.removesuffix('.yaml').replace('/', '-')}"}
    return read_recipe(find_recipe(name)[0], places, above)


def check_names(fields: Mapping[str, Any], where: str) -> None:
    """Refuse names of earlier versions with a ConfigError: `where` the field stands, the old name and the new one."""
    for name, value in fields.items():
        if name in _RENAMED:
            raise ConfigError(f"{where}: the field '{name}' is called '{_RENAMED[name]}' now; rename it.")
        values = _RENAMED_VALUES.get(name, {})
        if isinstance(value, str) and value in values:
            raise ConfigError(f"{where}: '{value}' of the field '{name}' is called '{values[value]}' now; rename it.")


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line, apart: the recipes in front, and the `--field value` overrides after them."""
    names = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    return list(words[:names]), list(words[names:])


def override_values(overrides: Sequence[str]) -> dict[str, str | None]:
    """The fields that `--field value` overrides name, each with the first word of its value, None without one."""
    return {name: value for name, value, _ in _by_field(overrides)}


def stated(names: str | Sequence[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What recipes and overrides say a run is: "fields" and "overrides", without `CONTROLS`; survives JSON."""
    fields = {name: value for name, value in read_recipes(names).items() if name not in CONTROLS}
    kept = [word for name, _, words in _by_field(overrides) if name not in CONTROLS for word in words]
    plain: dict[str, Any] = json.loads(json.dumps({"fields": fields, "overrides": kept}, default=str))
    return plain


def words_of(overrides: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Field and all words of each `--field value` override, in their order."""
    return ((name, words) for name, _, words in _by_field(overrides))


def _by_field(overrides: Sequence[str]) -> Iterator[tuple[str, str | None, Sequence[str]]]:
    """Field, first word of its value, and all words of each override; `--max-steps=3` is ("max_steps", "3", ...)."""
    starts = [place for place, word in enumerate(overrides) if word.startswith("--")]
    for start, end in pairwise((*starts, len(overrides))):
        name, equals, value = overrides[start][2:].partition("=")
        words = overrides[start:end]
        yield name.replace("-", "_"), value if equals else words[1] if len(words) > 1 else None, words


def how_to_continue(recipes: Sequence[str], overrides: Sequence[str]) -> list[str] | None:
    """The arguments that make the command with these recipes and overrides go on with its run, wherever it is.

    They name the checkpoint to resume from, or say that a run without one is begun again; None when it is finished.

    Raises:
        ConfigError: The run that lies there says other settings, or nobody knows which.
        DataError: Its `run.json` is damaged.
    """
    folder = run_folder_of(recipes, overrides)
    if not is_run(folder):
        return []
    manifest = open_run(folder).manifest
    _check_same(folder, manifest.get("stated"), stated(recipes, overrides))
    if manifest.get("status") == "finished":
        return None
    checkpoints = checkpoints_in(folder)
    return ["--resume_from_checkpoint", str(checkpoints[max(checkpoints)])] if checkpoints else ["--overwrite", "true"]


def run_folder_of(recipes: Sequence[str], overrides: Sequence[str]) -> Path:
    """Where the run of these recipes goes, or a ConfigError: neither a recipe nor the command line says so."""
    folder = override_values(overrides).get("output_dir") or read_recipes(recipes).get("output_dir")
    if not folder:
        raise ConfigError(
            f"{' '.join(recipes)}: output_dir is missing, so there is no run to continue; name the run's folder"
        )
    return Path(str(folder))


def _check_same(folder: Path, theirs: dict[str, Any] | None, ours: dict[str, Any]) -> None:
    """Refuse to go on with a run that states other settings (see `kepo.recipes.files.stated`)."""
    if theirs is None:
        raise ConfigError(f"{folder} does not say by which settings it was made; choose another output_dir")
    there, now = theirs.get("fields", {}), ours["fields"]
    differing = [name for name in {**there, **now} if name != "output_dir" and there.get(name) != now.get(name)]
    shown = [f"{name}: {there.get(name)!r} there, {now.get(name)!r} now" for name in differing[:4]]
    if theirs.get("overrides") != ours["overrides"]:
        shown.append(f"arguments: {theirs.get('overrides')} there, {ours['overrides']} now")
    if shown:
        raise ConfigError(
            f"{folder} holds a run with other settings ({'; '.join(shown)}). Choose another output_dir, or start it "
            "again with --overwrite instead of --continue."
        )


def accelerate_configs() -> dict[str, Path]:
    """The accelerate configs at hand by their names: those that TRL ships, then ours."""
    # From the packages above, because a folder without Python files is no path to importlib.resources.
    folders = [Path(str(files(package))) / _ACCELERATE for package in ("trl", "kepo.recipes")]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def find_accelerate_config(name: str) -> str:
    """The file of an accelerate config: the name of one of TRL's, of one of ours, or a path, in this order."""
    shipped = accelerate_configs()
    file = shipped.get(name, Path(name))
    if not file.is_file():
        raise ConfigError(f"accelerate_config {name!r} is neither a file nor one of these: {', '.join(shipped)}.")
    return str(file)


def _shipped(name: str) -> Path:
    return _root() / f"{name.removesuffix('.yaml')}.yaml"


def _folder(name: str) -> str:
    return name.split("/")[0]


def _root() -> Path:
    return Path(str(files("kepo.recipes")))
