"""A contact sheet of PhantomVQA: one row per modality, one column per combination of attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kepo.data.omnimedvqa import MODALITIES
from kepo.phantom.render import render
from kepo.phantom.scene import ATTRIBUTES, Scene

if TYPE_CHECKING:
    from PIL import Image

_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("round", "left", "one", "large", "smooth", "bright"),
    ("long", "right", "three", "small", "ragged", "dark"),
    ("round", "right", "two", "large", "ragged", "bright"),
    ("long", "left", "two", "small", "smooth", "dark"),
    ("long", "left", "three", "large", "ragged", "bright"),
)
"""The attributes of each column, in the order of `ATTRIBUTES`; every value appears."""

_PAPER = "white"
_INK = (30, 30, 30)
_SMALL_INK = (90, 90, 90)


def sheet_scenes() -> list[list[Scene]]:
    """The scenes of the sheet: one list per modality, one scene per column, each with its own seed."""
    looks = [dict(zip(ATTRIBUTES, values, strict=True)) for values in _COLUMNS]
    return [
        [Scene(seed=100 * row + column, modality=modality, **look) for column, look in enumerate(looks)]
        for row, modality in enumerate(MODALITIES)
    ]


def contact_sheet(size: int = 160) -> Image.Image:
    """The sheet in RGB: the name of the modality left of each row, the attributes of the scenes above each column.

    `size` is the side of one image in pixels, at least 64 (ValueError); captions and gaps grow with it.
    """
    from PIL import Image, ImageDraw, ImageFont

    if size < 64:
        raise ValueError(f"size {size} leaves no room for captions; use 64 or more pixels")
    gap, left, top = max(2, size // 20), round(size * 0.74), round(size * 0.46)
    pitch = size + gap
    sheet = Image.new("RGB", (left + len(_COLUMNS) * pitch, top + len(MODALITIES) * pitch), _PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(size * 0.105), ImageFont.load_default(size * 0.085)
    for column, values in enumerate(_COLUMNS):
        where = (left + column * pitch + size / 2, top - gap)
        pen.text(where, _caption(values), _SMALL_INK, small, anchor="md", align="center", spacing=size * 0.03)
    for row, scenes in enumerate(sheet_scenes()):
        y = top + row * pitch
        pen.text((left - gap, y + size / 2), scenes[0].modality, _INK, large, anchor="rm")
        for column, scene in enumerate(scenes):
            sheet.paste(render(scene, size), (left + column * pitch, y))
    return sheet


def _caption(values: tuple[str, ...]) -> str:
    """Three short lines: where, how many, what they look like."""
    outline, side, count, size, border, tone = values
    return f"{outline} organ, {side}\n{count} {size}\n{border} {tone}"
