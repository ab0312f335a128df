"""Configs of published models that come with the package, so that a run can be planned without a model hub."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

_OWNER = "Qwen/"
_FAMILY = "Qwen3-VL-"
_VARIANTS = ("-Instruct", "-Thinking")


def published_names() -> list[str]:
    """Names of the models whose sizes are known without a hub."""
    return [f"{_OWNER}{_FAMILY}{size}-Instruct" for size in _table()]


def published_config(name: str) -> tuple[Any, str] | None:
    """The config of a published model, and where its numbers are from; None for one that is not in the table.

    Args:
        name: As on the hub; the owner may be left out, and variants of one size share a config.
    """
    size = name.removeprefix(_OWNER)
    if not size.startswith(_FAMILY):
        return None
    size = size.removeprefix(_FAMILY)
    for variant in _VARIANTS:
        size = size.removesuffix(variant)
    entry = _table().get(size)
    if entry is None:
        return None
    from transformers import AutoConfig

    fields = dict(entry["config"])
    return AutoConfig.for_model(fields.pop("model_type"), **fields), f"shipped table, from {entry['source']}"


@cache
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads((files("kepo.planning") / "qwen3_vl.json").read_text("utf-8"))
    return table
