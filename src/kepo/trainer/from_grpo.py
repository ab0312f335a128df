"""TRL's `GRPOConfig` as the settings of `KEPOTrainer`."""

from __future__ import annotations

import dataclasses
from typing import Any

from trl import GRPOConfig

from kepo.errors import ConfigError
from kepo.trainer.config import KEPOConfig


def as_kepo_config(args: Any, **fields: Any) -> KEPOConfig:
    """The settings of a run from what a script of TRL's passes as `args`.

    Args:
        args: A `KEPOConfig`, which is returned as it is; a `GRPOConfig`: its fields as they are now, and everything of
            KEPO's at its defaults; None: the defaults, in the folder `kepo-run`.
        **fields: Fields of KEPO's beside those of a `GRPOConfig` or of None.

    Raises:
        ConfigError: `args` is something else, or the fields cannot work together.
    """
    if args is None:
        return KEPOConfig("kepo-run", **fields)
    if isinstance(args, KEPOConfig):
        return args
    if not isinstance(args, GRPOConfig):
        raise ConfigError(
            f"args is a {type(args).__name__}; KEPOTrainer takes a KEPOConfig, which has all fields of TRL's "
            "GRPOConfig. Write KEPOConfig(output_dir=..., ...)."
        )
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(GRPOConfig) if field.init}
    # Of these two TRL works out one from the other, and refuses to be given both.
    given["generation_batch_size"] = None
    return KEPOConfig(**{**given, **fields})
