"""Painters of the colour modalities: dermoscopy, fundus photography and microscopy.

Each takes the canvas, the body and a generator and returns the normal anatomy, [S, S, 3] with values from 0 to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kepo.phantom.drawing.canvas import Body, Canvas, Field, dots, level, mix_colour, noise, step, strokes


def _flat(canvas: Canvas, colour: tuple[float, float, float]) -> Field:
    return np.tile(np.asarray(colour, dtype=np.float32), (canvas.side, canvas.side, 1))


def paint_dermoscopy(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """Skin with a light brown naevus, its pigment network, and a few thin hairs."""
    u, v = body.normalised(canvas)
    f = level(u, v, body.power) + 0.03 * noise(rng, canvas, 9)
    skin = _flat(canvas, (0.89, 0.70, 0.60)) * (1 + 0.025 * noise(rng, canvas, 12))[..., None]
    wave = np.float32(40.0)
    x, y = canvas.x + 0.03 * noise(rng, canvas, 8), canvas.y + 0.03 * noise(rng, canvas, 8)
    mesh = np.cos(wave * x) + np.cos(wave * (0.5 * x + 0.866 * y)) + np.cos(wave * (0.5 * x - 0.866 * y))
    inside = step(1 - f, 0.1)
    image = mix_colour(skin, (0.74, 0.50, 0.36), inside)
    image = mix_colour(image, (0.52, 0.31, 0.20), inside * 0.65 * step(-0.75 - mesh, 0.8))
    return mix_colour(image, (0.30, 0.20, 0.15), 0.55 * strokes(canvas, [_hair(rng) for _ in range(4)]))


def _hair(rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """A long, thin, slightly bent line across the whole image."""
    t = np.linspace(-1.5, 1.5, 16)
    turn, shift, bend = rng.uniform(0, np.pi), rng.uniform(-0.9, 0.9), rng.uniform(-0.15, 0.15)
    across = shift + bend * t * t
    return np.stack([t * np.cos(turn) - across * np.sin(turn), t * np.sin(turn) + across * np.cos(turn)], -1), 0.018


def paint_fundus(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """An orange field on black, the optic disc in its middle, and vessels that branch from it."""
    u, v = body.normalised(canvas)
    f = level(u, v, body.power)
    shade = 1.06 - 0.3 * f * f + 0.03 * noise(rng, canvas, 7) + 0.015 * noise(rng, canvas, 48)
    image = _flat(canvas, (0.80, 0.38, 0.15)) * shade[..., None]
    lines = [line for x in (-1, 1) for y in (-1, 1) for line in _vessels(body, x, y, rng)]
    image = mix_colour(image, (0.50, 0.12, 0.07), 0.75 * strokes(canvas, lines))
    disc = level(u * np.float32(body.a) / 0.1, v * np.float32(body.b) / 0.12, 2)
    image = mix_colour(image, (0.95, 0.72, 0.42), 0.9 * step(1 - disc, 0.3))
    return 0.015 + image * step(1 - f, 0.02)[..., None]


def _vessels(body: Body, x: int, y: int, rng: np.random.Generator) -> list[tuple[NDArray[np.float64], float]]:
    """An arcade from the disc into one quadrant (x, y: signs), with two branches that grow thinner."""
    t = np.linspace(0, 1, 14)
    rise, bow = rng.uniform(0.72, 0.82), rng.uniform(0.55, 0.7)
    u, v = body.a * x * bow * t**1.7, body.b * y * rise * t**0.7
    main = body.to_canvas(u, v)
    branches = []
    for start, side in ((5, 1.0), (8, -0.35)):
        reach = rng.uniform(0.3, 0.42)
        du, dv = body.a * x * reach * (0.4 + 0.6 * side), body.b * y * reach * (0.75 - 0.6 * side)
        branches.append(body.to_canvas(u[start] + du * t**0.8, v[start] + dv * t**1.4))
    return [(main[:8], 0.042), (main[7:], 0.03), *((branch, 0.022) for branch in branches)]


def paint_microscopy(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """A piece of tissue stained with haematoxylin and eosin: pink with small violet nuclei, on a white slide."""
    u, v = body.normalised(canvas)
    f = level(u, v, body.power) + 0.012 * noise(rng, canvas, 14)
    fibres = noise(rng, canvas, 40, 12)
    tissue = mix_colour(_flat(canvas, (0.90, 0.62, 0.74)), (0.80, 0.46, 0.64), np.clip(0.3 + 0.25 * fibres, 0, 1))
    cells = 15
    grid = (np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2) + 0.5) * 2 / cells - 1
    centres = grid + rng.uniform(-0.05, 0.05, grid.shape)
    nuclei = dots(canvas, centres, rng.uniform(0.024, 0.034, len(centres)))
    tissue = mix_colour(tissue, (0.46, 0.28, 0.60), 0.8 * nuclei)
    slide = _flat(canvas, (0.90, 0.89, 0.91))
    return slide + step(1 - f, 0.03)[..., None] * (tissue - slide)
