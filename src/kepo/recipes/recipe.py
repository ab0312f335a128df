"""Recipes: one YAML file per arm, stating only what differs from the defaults, plus `--field value` overrides.

TRL's parser does the work; this adds recipes shipped with the package, a `base:` recipe to start from, and errors that
name the file and the field.
"""

from __future__ import annotations

import difflib
import tempfile
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from trl import GRPOConfig, ModelConfig, SFTConfig, TrlParser, get_peft_config

from kepo.data.arguments import DataArguments
from kepo.errors import ConfigError, KepoError
from kepo.recipes.arguments import METHODS, RunArguments, TeacherArguments
from kepo.recipes.files import find_recipe, read_recipe, stated
from kepo.trainer.config import KEPOConfig


@dataclass(frozen=True)
class Recipe:
    """A recipe, resolved: every field has its value.

    Attributes:
        source: The file it was read from.
        run: Arm and rewards.
        training: `KEPOConfig`, or TRL's `SFTConfig` for `method: sft`.
        model: TRL's model settings (path, dtype, LoRA, quantization).
        data: The data set and its splits.
        teacher: The teacher.
        stated: What the recipe says, bases merged, and the overrides: see `kepo.recipes.files.stated`.
    """

    source: Path
    run: RunArguments
    training: KEPOConfig | SFTConfig
    model: ModelConfig
    data: DataArguments
    teacher: TeacherArguments
    stated: Mapping[str, Any] = field(default_factory=dict)

    def peft_config(self) -> Any:
        """The adapter's settings as PEFT takes them; None when all weights are trained."""
        return get_peft_config(self.model)


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `--field value` overrides.

    Args:
        name: Path, or name of a shipped recipe.
        overrides: Command-line arguments, e.g. `["--learning_rate", "1e-5"]`.

    Raises:
        ConfigError: An unknown field, a value of the wrong type, or settings that cannot work together.
    """
    path = find_recipe(name)
    content = read_recipe(path)
    method = _method(content, overrides, path)
    training_class = SFTConfig if method == "sft" else KEPOConfig
    classes = (RunArguments, training_class, ModelConfig, DataArguments, TeacherArguments)
    _check_fields(content, overrides, (*classes, KEPOConfig), path)
    if method == "sft":
        content = _for_sft(content)
    with tempfile.TemporaryDirectory() as folder:
        resolved = Path(folder) / "recipe.yaml"
        resolved.write_text(yaml.safe_dump(content), encoding="utf-8")
        parser = TrlParser(dataclass_types=classes, prog="kepo train", exit_on_error=False)
        try:
            parsed = parser.parse_args_and_config(["--config", str(resolved), *overrides])
        except KepoError:
            raise
        except (ArgumentError, ValueError, TypeError, SystemExit) as error:
            raise ConfigError(f"{path}: {error}") from error
    run, training, model, data, teacher = parsed
    return Recipe(path, run, training, model, data, teacher, stated(path, overrides))


def check_recipe(path: Path) -> None:
    """Check that a recipe names a known method and known fields only; their values are not looked at.

    Raises:
        ConfigError: it does not; names the file and the field.
    """
    content = read_recipe(path)
    training_class = SFTConfig if _method(content, (), path) == "sft" else KEPOConfig
    _check_fields(
        content, (), (RunArguments, training_class, ModelConfig, DataArguments, TeacherArguments, KEPOConfig), path
    )


def _method(content: Mapping[str, Any], overrides: Sequence[str], path: Path) -> str:
    method = content.get("method", "kepo")
    if "--method" in overrides[:-1]:
        method = overrides[list(overrides).index("--method") + 1]
    if method not in METHODS:
        raise ConfigError(f"{path}: method is {method!r}; use one of {', '.join(METHODS)}.")
    return str(method)


def _for_sft(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that supervised training knows: a base recipe shared with the other arms names rollouts and gates too.

    As `KEPOConfig` does by itself, a machine without accelerator gets float32 on the CPU.
    """
    foreign = {f.name for f in fields(KEPOConfig)} - {f.name for f in fields(SFTConfig)}
    kept = {name: value for name, value in content.items() if name not in foreign}
    return kept if torch.accelerator.is_available() else {"use_cpu": True, "bf16": False, **kept}


def _check_fields(content: Mapping[str, Any], overrides: Sequence[str], classes: Sequence[Any], path: Path) -> None:
    known = {f.name for cls in classes for f in fields(cls)}
    given = {name: str(path) for name in content}
    given |= {
        word[2:].split("=")[0].removeprefix("no_"): "the command line" for word in overrides if word.startswith("--")
    }
    for name, where in given.items():
        if name.replace("-", "_") not in known and f"no_{name}" not in known:
            close = difflib.get_close_matches(name, known, n=1)
            advice = (
                f" Did you mean '{close[0]}'?" if close else " `kepo fields` lists them; TRL's own fields work too."
            )
            raise ConfigError(f"Unknown field '{name}' in {where}.{advice}")


def own_fields() -> dict[str, list[tuple[str, str, str]]]:
    """Name, default and meaning of every field that is not TRL's, by the class that holds it."""
    inherited = {f.name for f in fields(GRPOConfig)}
    classes = (RunArguments, KEPOConfig, DataArguments, TeacherArguments)
    return {
        cls.__name__: [
            (f.name, _default(f), str(f.metadata.get("help", "")))
            for f in fields(cls)
            if cls is not KEPOConfig or f.name not in inherited
        ]
        for cls in classes
    }


def field_tables() -> str:
    """`own_fields` as Markdown, one table per class (docs/fields.md)."""
    parts = ["# Fields of a recipe\n\nMade by `kepo fields --markdown`. TRL's own fields are in TRL's documentation.\n"]
    for name, rows in own_fields().items():
        lines = [f"| `{field}` | `{default}` | {text.replace('|', chr(92) + '|')} |" for field, default, text in rows]
        parts.append("\n".join([f"## {name}\n", "| field | default | meaning |", "| --- | --- | --- |", *lines]) + "\n")
    return "\n".join(parts)


def _default(field_: Field[Any]) -> str:
    if field_.default is not MISSING:
        return repr(field_.default)
    return repr(field_.default_factory()) if field_.default_factory is not MISSING else ""
