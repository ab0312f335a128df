"""The vision encoder runs once per image, not once per rollout.

The G rollouts of a group show the same image, and TRL hands it to the model G times. The features depend on the image
alone, so equal images are encoded once and their features are used G times; gradients add up the same way.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kepo.models.row_fields import first_equal


def share_image_features(model: Any) -> None:
    """Let a vision-language model encode each distinct image of a batch once.

    Works on `get_image_features` of the backbone, the one place where transformers' models encode images. A model
    without it (a language model) is left alone, and so is a batch in which no two images are equal.

    Args:
        model: A transformers model, or a PEFT model around one.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone = base.base_model
    encode = getattr(backbone, "get_image_features", None)
    if encode is None:
        return

    names = list(inspect.signature(encode).parameters)

    @functools.wraps(encode)
    def shared(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        pixel_values = given.pop("pixel_values")
        images = _split(pixel_values, given.get("image_grid_thw"))
        per_image = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        if any(len(value) != len(images) for value in per_image.values()):
            return encode(*args, **kwargs)  # a layout that is not one entry per image
        same = first_equal(
            [{"image": image, **{n: v[i] for n, v in per_image.items()}} for i, image in enumerate(images)]
        )
        firsts = list(dict.fromkeys(same))
        index = [firsts.index(first) for first in same]
        distinct = torch.cat([images[i] for i in firsts])
        selected = {name: value[firsts] for name, value in per_image.items()}
        output = encode(pixel_values=distinct, **{**given, **selected})
        output.pooler_output = _spread(output.pooler_output, index)
        deepstack = getattr(output, "deepstack_features", None)
        if deepstack is not None:
            output.deepstack_features = [_spread(features, index) for features in deepstack]
        return output

    backbone.get_image_features = shared


def _split(pixel_values: Tensor, grid: Tensor | None) -> Sequence[Tensor]:
    """One tensor per image (or per row of images): patches of Qwen-VL are laid end to end, others are stacked."""
    if grid is None:
        return pixel_values.split(1)
    return pixel_values.split(grid.prod(-1).tolist())


def _spread(features: Any, index: list[int]) -> Any:
    """The features of every image, from those of the distinct ones."""
    return features[index] if isinstance(features, Tensor) else [features[i] for i in index]
