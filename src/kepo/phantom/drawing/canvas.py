"""The sheet that everything is drawn on: coordinates, the organ's outline, smooth noise and strokes.

Coordinates run from -1 (left, top) to 1 (right, bottom), so that a drawing does not depend on the number of pixels: one
unit is half the side of the image. S is the side of the canvas in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field: TypeAlias = NDArray[np.floating[Any]]
"""Values over the canvas: [S, S] for one quantity, [S, S, 3] for colours between 0 and 1; 32 bits for speed."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """The coordinates of the pixel centres."""

    side: int  # S, in pixels
    x: Field  # [S, S], grows to the right
    y: Field  # [S, S], grows downwards


@lru_cache(maxsize=8)
def make_canvas(side: int) -> Canvas:
    """The canvas of `side` pixels (cached: it is the same for every image; do not write into its arrays)."""
    centres = ((np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1).astype(np.float32)
    x, y = np.meshgrid(centres, centres)
    x.setflags(write=False)
    y.setflags(write=False)
    return Canvas(side, x, y)


@dataclass(frozen=True, slots=True)
class Body:
    """The outline of the organ, the field or the tissue: a superellipse |u/a|^p + |v/b|^p = 1 around (x, y)."""

    x: float
    y: float
    a: float  # horizontal half-axis
    b: float  # vertical half-axis
    power: int  # p; 2 is an ellipse, 3 a fuller one
    angle: float  # in radians

    def normalised(self, canvas: Canvas) -> tuple[Field, Field]:
        """Coordinates in the frame of the body, in half-axes: u and v, each [S, S], -1 to 1 inside."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        dx, dy = canvas.x - np.float32(self.x), canvas.y - np.float32(self.y)
        return (dx * cos + dy * sin) / np.float32(self.a), (dy * cos - dx * sin) / np.float32(self.b)

    def outline(self, points: int, scale: float = 1.0) -> NDArray[np.float64]:
        """Points on the outline, blown up by `scale`: [points, 2]."""
        t = np.linspace(0, 2 * np.pi, points, endpoint=False)
        u = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / self.power) * self.a * scale
        v = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / self.power) * self.b * scale
        return self.to_canvas(u, v)

    def to_canvas(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        """From the frame of the body (in canvas units, not half-axes) to canvas coordinates: [..., 2]."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.stack([self.x + u * cos - v * sin, self.y + u * sin + v * cos], axis=-1)


def level(u: Field, v: Field, power: int) -> Field:
    """Which concentric outline a point lies on: 0 at the centre, 1 on the outline. `power` is 2 or 3."""
    if power == 2:
        return np.sqrt(u * u + v * v)
    return np.cbrt(np.abs(u) ** 3 + np.abs(v) ** 3)


def step(distance: Field, width: float) -> Field:
    """A soft edge: 0 far below zero, 1 far above it, a ramp of `width` between."""
    return np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)


def ridge(distance: Field, width: float) -> Field:
    """A soft line of half-width `width` where `distance` is zero: 1 there, 0 away from it."""
    return np.clip(1 - np.abs(distance) * np.float32(1 / width), 0, 1)


def mix(ground: Field, value: float | Field, cover: Field) -> Field:
    """`value` laid over `ground` where `cover` (0 to 1) says so."""
    return ground + cover * (value - ground)


def mix_colour(ground: Field, colour: tuple[float, float, float], cover: Field) -> Field:
    """A colour laid over [S, S, 3] where `cover` [S, S] says so."""
    return ground + cover[..., None] * (np.asarray(colour, dtype=np.float32) - ground)


@lru_cache(maxsize=64)
def _interpolation(cells: int, side: int) -> Field:
    """Weights [S, cells] of linear interpolation from the centres of cells to the centres of pixels."""
    position = np.clip((np.arange(side) + 0.5) * cells / side - 0.5, 0, cells - 1)
    low = np.minimum(position.astype(int), max(cells - 2, 0))
    weights = np.zeros((side, cells), dtype=np.float32)
    weights[np.arange(side), low] = 1 - (position - low)
    weights[np.arange(side), np.minimum(low + 1, cells - 1)] += position - low
    return weights


def noise(rng: np.random.Generator, canvas: Canvas, rows: int, columns: int | None = None) -> Field:
    """Gaussian noise on a grid of `rows` x `columns` cells, whatever S is, stretched over the canvas: [S, S]."""
    columns = columns or rows
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    return _interpolation(rows, canvas.side) @ grid @ _interpolation(columns, canvas.side).T


def _pixels(points: NDArray[np.float64], side: int) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (points + 1) * side / 2 - 0.5]


def strokes(canvas: Canvas, lines: Iterable[tuple[NDArray[np.float64], float]]) -> Field:
    """Polylines, each ([n, 2] in canvas coordinates, width in canvas units), as coverage: [S, S], 0 or 1."""
    sheet = Image.new("L", (canvas.side, canvas.side))
    pen = ImageDraw.Draw(sheet)
    for points, width in lines:
        pen.line(_pixels(points, canvas.side), fill=255, width=max(1, round(width * canvas.side / 2)), joint="curve")
    return np.asarray(sheet, dtype=np.float32) / np.float32(255)


def dots(canvas: Canvas, centres: NDArray[np.float64], radii: NDArray[np.float64]) -> Field:
    """Filled discs (centres [n, 2], radii [n], canvas units) as coverage: [S, S], 0 or 1."""
    sheet = Image.new("L", (canvas.side, canvas.side))
    pen = ImageDraw.Draw(sheet)
    for (x, y), radius in zip(_pixels(centres, canvas.side), radii * canvas.side / 2, strict=True):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(sheet, dtype=np.float32) / np.float32(255)
