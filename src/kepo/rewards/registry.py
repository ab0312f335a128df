"""Reward functions by name, for config files and the command line."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from kepo.errors import ConfigError
from kepo.rewards.functions import answer_format, choice_accuracy, exact_match, think_format
from kepo.rewards.verifiers import math_accuracy, reasoning_gym_score

RewardFunction: TypeAlias = Callable[..., Sequence[float | None]]

REWARDS: Mapping[str, RewardFunction] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            choice_accuracy,
            exact_match,
            think_format,
            answer_format,
            math_accuracy,
            reasoning_gym_score,
        )
    }
)
"""The functions of this package, by the name under which TRL logs them."""


def get_rewards(names: Sequence[str]) -> list[RewardFunction]:
    """The reward functions called `names`, in order.

    A name is one of `REWARDS`, or `package.module:function` for any other function of TRL's form, for example
    `trl.rewards:accuracy_reward`.

    Raises:
        ConfigError: a name is unknown, or cannot be imported.
    """
    return [_imported(name) if ":" in name else _built_in(name) for name in names]


def _built_in(name: str) -> RewardFunction:
    if name in REWARDS:
        return REWARDS[name]
    close = difflib.get_close_matches(name, REWARDS, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    raise ConfigError(
        f"reward {name!r} is unknown{meant}; use one of {', '.join(REWARDS)}, or 'package.module:function' for a "
        "function of your own"
    )


def _imported(name: str) -> RewardFunction:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ModuleNotFoundError, ValueError) as error:
        raise ConfigError(f"reward {name!r}: the module {module_name!r} cannot be imported: {error}") from error
    function: Any = getattr(module, attribute, None)
    if not callable(function):
        what = "is not a function" if function is not None else "does not exist"
        raise ConfigError(f"reward {name!r}: {attribute!r} {what} in the module {module_name!r}")
    return function
