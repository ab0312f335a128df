"""One style per modality: the painter of its anatomy, the shapes of its organ and the colours of its lesions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from kepo.phantom.drawing import colour, grey
from kepo.phantom.drawing.canvas import Body, Canvas, Field

Painter: TypeAlias = Callable[[Canvas, Body, np.random.Generator], Field]
Colour: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Style:
    """How one modality looks."""

    paint: Painter  # draws the normal anatomy
    round: tuple[float, float]  # half-axes of the round organ, in half sides of the image
    long: tuple[float, float]
    bright: Colour  # of bright lesions; greys have three equal channels
    dark: Colour
    wall: float = 1.0  # part of the half-axes that lesions keep inside of (skull and ribs lie beyond)
    grain: float = 0.03  # strength of the texture inside lesions
    noise: float = 0.02  # standard deviation of the pixel noise, on the scale 0 to 1


_WHITE: Colour = (0.97, 0.97, 0.97)
_BLACK: Colour = (0.04, 0.04, 0.04)
_WIDE = (0.98, 0.64)

STYLES: dict[str, Style] = {
    "MRI": Style(grey.paint_mri, (0.92, 0.92), _WIDE, _WHITE, _BLACK, wall=0.96),
    "CT": Style(grey.paint_ct, (0.88, 0.88), _WIDE, _WHITE, _BLACK, wall=0.96),
    "X-Ray": Style(grey.paint_xray, (0.9, 0.9), _WIDE, _WHITE, (0.03, 0.03, 0.03)),
    "Ultrasound": Style(grey.paint_ultrasound, (0.84, 0.84), (0.97, 0.63), _WHITE, (0.02, 0.02, 0.02), grain=0.08),
    "Dermoscopy": Style(colour.paint_dermoscopy, (0.88, 0.88), _WIDE, (0.99, 0.94, 0.90), (0.20, 0.10, 0.06)),
    "Fundus": Style(colour.paint_fundus, (0.94, 0.94), _WIDE, (1.0, 0.94, 0.52), (0.22, 0.02, 0.02)),
    "OCT": Style(grey.paint_oct, (0.88, 0.88), _WIDE, _WHITE, _BLACK, grain=0.06),
    "Microscopy": Style(colour.paint_microscopy, (0.90, 0.90), _WIDE, (0.99, 0.95, 0.97), (0.24, 0.10, 0.42)),
}
