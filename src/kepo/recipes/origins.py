"""Where the value of a field comes from, for messages, and whether a file's value is of the field's type."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from kepo.errors import ConfigError, did_you_mean

COMMAND_LINE = "the command line"
_POSITIVE = ("temperature", "save_steps", "logging_steps", "eval_steps")
_COUNTS = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("num_generations", "max_completion_length", "num_iterations", "steps_per_generation", "validate_every"),
)
# Choices that TRL looks at in its first step only, and the teacher's when it is loaded.
_CHOICES = {
    "loss_type": ("bnpo", "cispo", "dapo", "dr_grpo", "grpo", "luspo", "sapo", "vespo"),
    "scale_rewards": ("batch", "group", "none", "true", "false"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("server", "colocate"),
    "teacher_dtype": ("auto", "float32", "bfloat16", "float16"),
}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "nothing"}
_SHORTEST = 3  # characters of a value that is looked for in a message


def with_lists(content: Mapping[str, Any], classes: Sequence[Any]) -> dict[str, Any]:
    """The fields of a recipe, where `field: value` stands for `field: [value]` of a field that is a list."""
    lists = {name for name, hint in _hints(classes).items() if get_origin(hint) is list}
    return {name: [value] if name in lists and isinstance(value, str) else value for name, value in content.items()}


def check_types(content: Mapping[str, Any], places: Mapping[str, str], classes: Sequence[Any]) -> None:
    """Refuse values of files that are not of their field's type; texts are left to the parser of the command line.

    Args:
        content: Field -> value.
        places: Field -> file and line.
        classes: The records that hold the fields.

    Raises:
        ConfigError: Names file, line, field, value, and what is expected.
    """
    hints, known = _hints(classes), {one.name: one for cls in classes for one in fields(cls)}
    for name, value in content.items():
        if name not in hints or isinstance(value, str) or _fits(value, hints[name], known[name]):
            continue
        shown = "empty" if value is None else repr(value)
        raise ConfigError(f"{places.get(name, name)}: {name} is {shown}; give {_kind(hints[name])}.")


def check_ranges(said: Mapping[str, Any], places: Mapping[str, str], method: str) -> None:
    """Refuse numbers, and with the method "kepo" choices, that would fail only when they are used.

    Raises:
        ConfigError: Names where the value stands, field, value, and what is allowed.
    """
    for name, value in said.items():
        problem = _out_of_range(name, value)
        if problem:
            raise ConfigError(f"{places.get(name, name)}: {name} is {value}; {problem}.")
    for name, allowed in _CHOICES.items() if method == "kepo" else ():
        if name in said and str(said[name]).lower() not in allowed:
            where = places.get(name, name)
            raise ConfigError(f"{where}: {name} is {said[name]!r}; {did_you_mean(str(said[name]), allowed)}")


def _out_of_range(name: str, value: Any) -> str | None:
    """What is allowed, where a value is not."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None  # of another type, which is looked at elsewhere
    # Written so that NaN is refused too.
    if name in _POSITIVE and not number > 0:
        return "give a number above 0"
    if name in _COUNTS and not number >= 1:
        return "give at least 1"
    if name == "top_p" and not 0 < number <= 1:
        return "give a number above 0 and up to 1"
    if name in ("learning_rate", "beta", "weight_decay", "max_grad_norm") and not 0 <= number < math.inf:
        return "give 0 or more"
    return None


def _fits(value: Any, hint: Any, field: Field[Any]) -> bool:
    if value is None and (field.default is None or field.default is MISSING):
        return True
    try:
        msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError:
        # A number stands for a text, as in `replicate: 1`.
        return isinstance(value, int | float) and not isinstance(value, bool) and str in (hint, *get_args(hint))
    except TypeError:
        return True  # a type that msgspec does not know; the field's own class checks it
    return True


def _hints(classes: Sequence[Any]) -> dict[str, Any]:
    return {name: hint for cls in classes for name, hint in get_type_hints(cls).items()}


def _kind(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(one) for one in get_args(hint) if one is not type(None)))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is list or hint is list:
        return "a list, such as [a, b]"
    if get_origin(hint) is dict or hint is dict:
        return "a record, such as {name: value}"
    return _KINDS.get(hint, str(hint))


def origins_named(message: str, said: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """Where the fields come from that a message speaks of, by their names or else by their values; "" for none.

    Args:
        message: Of an error.
        said: Field -> value, of all that recipes and command line say.
        places: Field -> where it was said.
    """
    words = {word.strip("_") for word in re.findall(r"\w+", message.replace("-", "_"))}
    named = [name for name in said if name in words and name in places]
    if not named:
        named = [
            name for name, value in said.items()
            if isinstance(value, str) and len(value) >= _SHORTEST and value in message and name in places
        ]  # fmt: skip
    return "; ".join(f"{name} {said[name]!r} is from {places[name]}" for name in named)
