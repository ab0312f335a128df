"""Recipes: YAML files that state only what differs from the defaults, joined, plus `--field value` overrides.

TRL's parser does the work; this adds recipes shipped with the package, several recipes over each other, and errors that
name the file and the field.
"""

from __future__ import annotations

import json
import re
from argparse import ArgumentError, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from typing import Any

import torch
import yaml
from trl import GRPOConfig, ModelConfig, SFTConfig, TrlParser, get_peft_config

from kepo.data.arguments import DataArguments
from kepo.errors import ConfigError, KepoError, did_you_mean, nearest
from kepo.recipes.arguments import METHODS, RunArguments, TeacherArguments
from kepo.recipes.files import CONTROLS, check_names, label, override_values, read_recipes, stated
from kepo.recipes.origins import COMMAND_LINE, check_ranges, check_types, origins_named, with_lists
from kepo.recipes.requirements import check_packages
from kepo.trainer.config import KEPOConfig, OneGPU

_HEAD = "# All that the recipes and the command line of this run said; `kepo train` takes it as any other recipe.\n"
_UNSAID = object()


@dataclass
class SupervisedConfig(OneGPU, SFTConfig):
    """TRL's `SFTConfig`, for `method: sft`."""


@dataclass(frozen=True)
class Recipe:
    """A recipe, resolved: every field has its value."""

    source: str  # the names it was read from, as given to `kepo train`
    run: RunArguments
    training: KEPOConfig | SFTConfig  # TRL's for `method: sft`
    model: ModelConfig  # TRL's: path, dtype, LoRA, quantization
    data: DataArguments
    teacher: TeacherArguments
    said: Mapping[str, Any]  # the fields that the recipes and the overrides name, and their values
    stated: Mapping[str, Any]  # the same, recipes and overrides apart, see `kepo.recipes.files.stated`

    def peft_config(self) -> Any:
        """The adapter's settings as PEFT takes them; None when all weights are trained."""
        return get_peft_config(self.model)

    @property
    def parts(self) -> dict[str, Any]:
        """The records of fields, by name."""
        return {name: getattr(self, name) for name in ("run", "model", "data", "teacher", "training")}

    def values(self) -> dict[str, dict[str, Any]]:
        """Every field and its value, by the part that holds it, as plain data; secrets of TRL's fields are hidden."""
        plain = {name: asdict(part) for name, part in self.parts.items()} | {"training": self.training.to_dict()}
        values: dict[str, dict[str, Any]] = json.loads(json.dumps(plain, default=str))
        return values

    def as_yaml(self) -> str:
        """`said` as one recipe file that gives this recipe again, whatever it is called and wherever it lies."""
        kept = {name: value for name, value in self.said.items() if name not in CONTROLS}
        return _HEAD + yaml.safe_dump({"arm": self.run.arm, **kept}, sort_keys=False, allow_unicode=True)


def load_recipe(names: str | Sequence[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read recipes, later ones over earlier ones, and apply overrides such as `["--learning_rate", "1e-5"]`.

    Args:
        names: Paths, or names of shipped recipes.
        overrides: Fields and values as on the command line.

    Raises:
        ConfigError: An unknown field, a value of the wrong type, or settings that cannot work together.
    """
    given, places = [names] if isinstance(names, str) else list(names), dict[str, str]()
    content = read_recipes(given, places)
    source = " ".join(given)
    named = override_values(overrides)
    check_names(named, COMMAND_LINE)
    places |= dict.fromkeys(named, COMMAND_LINE)
    method = _method({**content, **named}, places.get("method", source))
    classes = _classes(method)
    _check_fields({name: places.get(name, source) for name in {**content, **named}}, classes)
    content = with_lists(content, classes)
    check_types({name: value for name, value in content.items() if name not in named}, places, classes)
    parser = TrlParser(dataclass_types=classes, prog="kepo train", exit_on_error=False)
    check_ranges({**content, **named}, places, method)
    said = {**content, **_typed(parser, overrides, classes)}
    if said.get("deepspeed"):  # without it transformers would leave half of a config behind, for all later runs here
        check_packages(said)
    try:
        parser.set_defaults_with_config(**(_for_sft(said) if method == "sft" else said))
        run, training, model, data, teacher = parser.parse_args_into_dataclasses(args=[], look_for_args_file=False)
    except KepoError as error:
        if origin := origins_named(str(error), said, places):
            error.add_note(f"({origin})")
        raise
    except ArgumentError as error:
        raise ConfigError(f"{_place(error, places, source)}: {error}") from error
    except (ValueError, TypeError, ImportError, OSError) as error:
        check_packages(said)
        also = f" and {COMMAND_LINE}" if named else ""
        problem, origin = str(error).strip(), origins_named(str(error), said, places)
        raise ConfigError(f"{problem} ({origin})" if origin else f"{source}{also}: {problem}") from error
    run.arm = str(run.arm or label(given[-1]))
    return Recipe(source, run, training, model, data, teacher, said, stated(given, overrides))


def _place(error: ArgumentError, places: Mapping[str, str], source: str) -> str:
    """Where the field stands that argparse complains of."""
    names = re.findall(r"\w+", (error.argument_name or "").replace("-", "_"))
    return next((places[name.strip("_")] for name in names if name.strip("_") in places), source)


def check_recipe(name: str) -> None:
    """Check that a recipe names a known method and known fields; else a ConfigError. Values are not checked."""
    places: dict[str, str] = {}
    content = read_recipes(name, places)
    _check_fields({field: places.get(field, name) for field in content}, _classes(_method(content, name)))


def _classes(method: str) -> tuple[Any, ...]:
    return (
        RunArguments,
        SupervisedConfig if method == "sft" else KEPOConfig,
        ModelConfig,
        DataArguments,
        TeacherArguments,
    )


def _typed(parser: TrlParser, overrides: Sequence[str], classes: Sequence[Any]) -> dict[str, Any]:
    """The overrides as fields with values of the fields' types, and no others."""
    names = [f.name for cls in classes for f in fields(cls)]
    try:
        found, rest = parser.parse_known_args(list(overrides), Namespace(**dict.fromkeys(names, _UNSAID)))
    except (ArgumentError, ValueError, TypeError) as error:
        raise ConfigError(f"{COMMAND_LINE}: {error}") from error
    if rest:
        raise ConfigError(
            f"{COMMAND_LINE}: {' '.join(rest)} is no `--field value`. Recipes stand in front, fields after "
            "them; supervised training knows no fields of rollouts, gates and hints."
        )
    return {name: value for name, value in vars(found).items() if value is not _UNSAID}


def _method(content: Mapping[str, Any], source: str) -> str:
    method = content.get("method", "kepo")
    if method not in METHODS:
        raise ConfigError(f"{source}: method is {method!r}; {did_you_mean(str(method), METHODS)}")
    return str(method)


def _for_sft(content: Mapping[str, Any]) -> dict[str, Any]:
    """Without fields of rollouts and gates; float32 on the CPU without accelerator, as `KEPOConfig` does by itself."""
    foreign = {f.name for f in fields(KEPOConfig)} - {f.name for f in fields(SFTConfig)}
    kept = {name: value for name, value in content.items() if name not in foreign}
    return kept if torch.accelerator.is_available() else {"use_cpu": True, "bf16": False, **kept}


def _check_fields(given: Mapping[str, str], classes: Sequence[Any]) -> None:
    """Refuse fields that nobody knows; `given` says where each stands. Supervised arms share the others' recipes."""
    known = {f.name for cls in (*classes, KEPOConfig) for f in fields(cls)}
    for name, where in given.items():
        if name.removeprefix("no_") not in known and f"no_{name}" not in known:
            meant = nearest(name, known)
            advice = f"Did you mean '{meant}'?" if meant else "`kepo fields` lists them; TRL's own fields work too."
            raise ConfigError(f"Unknown field '{name}' in {where}. {advice}")


def own_fields() -> dict[str, list[tuple[str, str, str]]]:
    """Name, default and meaning of every field that is not TRL's, by the class that holds it."""
    inherited = {f.name for f in fields(GRPOConfig)}
    return {
        cls.__name__: [
            (f.name, _default(f), f.metadata.get("help", "")) for f in fields(cls) if f.name not in inherited
        ]
        for cls in (RunArguments, KEPOConfig, DataArguments, TeacherArguments)
    }


def field_tables() -> str:
    """`own_fields` as Markdown, one table per class (docs/fields.md)."""
    parts = ["# Fields of a recipe\n\nMade by `kepo fields --markdown`. TRL's own fields are in TRL's documentation.\n"]
    for name, rows in own_fields().items():
        lines = [f"| `{field}` | `{default}` | {text.replace('|', chr(92) + '|')} |" for field, default, text in rows]
        parts.append("\n".join([f"## {name}\n", "| field | default | meaning |", "| --- | --- | --- |", *lines]) + "\n")
    return "\n".join(parts)


def _default(one: Field[Any]) -> str:
    return repr(one.default if one.default_factory is MISSING else one.default_factory())
