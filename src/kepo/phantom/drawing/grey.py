"""Painters of the grey-scale modalities: MRI, CT, X-ray, ultrasound and OCT.

Each takes the canvas, the body and a generator and returns the normal anatomy, [S, S] with values from 0 to 1. Where
lesions may lie most values stay between 0.25 and 0.75, so that dark and bright lesions stand out everywhere.
"""

from __future__ import annotations

import numpy as np

from kepo.phantom.drawing.canvas import Body, Canvas, Field, level, mix, noise, ridge, step


def paint_mri(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """A T2-weighted axial brain: scalp, dark skull, folded cortex, bright ventricles and fissure."""
    u, v = body.normalised(canvas)
    f = level(u, v, body.power)
    folds = noise(rng, canvas, 22)
    brain = 0.37 + 0.03 * noise(rng, canvas, 8)
    cortex = step(f - 0.58, 0.25)
    brain = mix(brain, 0.52, cortex * step(np.abs(folds) - 0.6, 0.5))
    brain = mix(brain, 0.66, 0.8 * step(f - 0.66, 0.1) * ridge(folds, 0.3))
    horns = ridge(np.abs(u) - 0.05 - 0.9 * v * v, 0.07) * step(0.36 - np.abs(v), 0.1)
    fissure = ridge(u, 0.03) * step(np.abs(v) - 0.42, 0.1)
    brain = mix(brain, 0.72, np.maximum(np.minimum(1, 1.6 * horns), 0.8 * fissure))
    image = mix(np.full_like(f, 0.02), 0.62, step(1.0 - f, 0.03))
    image = mix(image, 0.07, step(0.975 - f, 0.015))
    return mix(image, brain, step(0.94 - f, 0.015))


def paint_ct(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """An axial slice of the trunk: skin, fat, ribs in a ring, spine, soft tissue, and the table below."""
    u, v = body.normalised(canvas)
    f = level(u, v, body.power)
    tissue = 0.46 + 0.035 * noise(rng, canvas, 7) + 0.02 * noise(rng, canvas, 48)
    turn = np.arctan2(v, u)
    ribs = ridge(f - 0.925, 0.035) * step(np.cos(turn * 14 + np.float32(rng.uniform(0, 6))) + 0.25, 0.5)
    image = mix(tissue, 0.27, step(f - 0.955, 0.015))
    image = mix(image, 0.5, step(f - 0.985, 0.01))
    image = mix(image, 0.88, np.minimum(1, 1.8 * ribs))
    across, down = u * np.float32(body.a), (v - 0.8) * np.float32(body.b)
    arch = ridge(np.abs(across) * 0.55 - down - 0.02, 0.05) * step(0.2 - np.abs(across), 0.03)
    image = mix(image, 0.7, np.maximum(step(1 - level(across / 0.085, (down + 0.07) / 0.075, 2), 0.3), arch))
    image = mix(image, 0.3, step(1 - level(across / 0.035, (down - 0.035) / 0.03, 2), 0.5))
    table_y = np.float32(min(body.y + body.b + 0.07, 0.94))
    table = ridge(canvas.y - table_y + 0.1 * canvas.x * canvas.x, 0.025) * step(0.85 - np.abs(canvas.x), 0.02)
    return mix(0.6 * table + 0.02, image, step(1 - f, 0.02))


def paint_xray(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """A frontal chest film: dark lungs crossed by ribs, bright mediastinum, heart shadow and diaphragm."""
    u, v = body.normalised(canvas)
    f = level(u, v, body.power)
    across = np.abs(u)
    image = 0.58 + 0.02 * noise(rng, canvas, 6)
    lungs = step(1 - level((across - 0.5) / 0.42, (v + 0.04) / 0.84, 3), 0.12)
    image = mix(image, 0.33 + 0.025 * noise(rng, canvas, 20), lungs)
    phase = np.float32(rng.uniform(-0.04, 0.04))
    bow = v + 0.5 * (across - 0.35) ** 2 - 0.12 * across + phase
    ribs = ridge(bow / 0.24 - np.round(bow / 0.24), 0.17)
    image = mix(image, 0.6, 0.6 * ribs * step(0.95 - f, 0.05) * step(across - 0.12, 0.06))
    heart = step(1 - level((u - 0.06) / 0.36, (v - 0.42) / 0.34, 2), 0.25)
    image = mix(image, 0.6, 0.75 * heart)
    middle = step(0.12 + 0.05 * np.abs(v) - across, 0.06)
    image = mix(image, 0.66 + 0.05 * np.sin(v * 38), middle)
    image = mix(image, 0.64, step(v - 0.74 + 0.25 * (across - 0.45) ** 2, 0.06))
    collar = ridge(v + 0.76 - 0.22 * across, 0.06) * step(across - 0.1, 0.05)
    image = mix(image, 0.72, 0.8 * collar)
    return mix(np.full_like(f, 0.03), image, step(1 - f, 0.04))


def paint_ultrasound(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """The sector of a curved probe: speckle that fades with depth, and an organ with a bright capsule."""
    u, v = body.normalised(canvas)
    f = level(u, v, body.power)
    depth = np.sqrt(canvas.x**2 + (canvas.y + 2.1) ** 2)
    inside = step(np.float32(np.tan(np.radians(30))) - np.abs(canvas.x) / (canvas.y + 2.1), 0.02)
    inside *= step(depth - 1.14, 0.02) * step(3.06 - depth, 0.02)
    speckle = np.sqrt(noise(rng, canvas, 72, 44) ** 2 + noise(rng, canvas, 72, 44) ** 2) * 0.8
    echo = 0.17 + 0.03 * noise(rng, canvas, 10, 4)
    echo = mix(echo, 0.36, step(1 - f, 0.03))
    echo = mix(echo, 0.55, ridge(f - 1, 0.04))
    echo = mix(echo, 0.6, ridge(depth - 1.17, 0.04))
    return inside * echo * (0.62 + 0.38 * speckle) * (1.28 - 0.2 * (depth - 1.1))


def paint_oct(canvas: Canvas, body: Body, rng: np.random.Generator) -> Field:
    """A retinal section: horizontal layers with a pit in the middle, dark vitreous above."""
    u, v = body.normalised(canvas)
    f = level(u, v, body.power)
    dip = np.exp(-u * u / 0.06) * np.clip(0.6 - v, 0, 1) * step(v + 1, 0.8)
    t = (v + 1) / 2 + 0.04 * u * u - 0.09 * dip + 0.006 * noise(rng, canvas, 3, 12)
    depths = [0.0, 0.06, 0.1, 0.2, 0.24, 0.36, 0.4, 0.5, 0.54, 0.66, 0.69, 0.72, 0.76, 0.79, 0.86, 0.9, 1.1]
    values = [0.66, 0.66, 0.55, 0.55, 0.4, 0.4, 0.56, 0.56, 0.34, 0.34, 0.62, 0.36, 0.36, 0.72, 0.72, 0.42, 0.3]
    layers = np.interp(t, depths, values).astype(np.float32)
    grain = 1 + 0.09 * noise(rng, canvas, 96, 40)
    vitreous = 0.05 + 0.015 * noise(rng, canvas, 80, 40)
    membrane = ridge(f - 0.96, 0.04) * step(-v - 0.2, 0.3)
    return mix(vitreous, mix(layers, 0.72, membrane) * grain, step(1 - f, 0.03))
