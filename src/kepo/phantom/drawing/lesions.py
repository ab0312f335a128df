"""Lesions: where they lie, and which pixels they cover.

Lengths are in canvas units (half the side of the image); N is the number of lesions of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from kepo.phantom.drawing.canvas import Body, Canvas, Field, step
from kepo.phantom.scene import ATTRIBUTES, Scene

RADII = {("small", "smooth"): 0.135, ("small", "ragged"): 0.135, ("large", "smooth"): 0.26, ("large", "ragged"): 0.235}
"""Mean radius by size and border. A large ragged lesion is drawn a little smaller, for its spikes need room."""

RADIUS_JITTER = 0.08

LEAST_LARGE = 0.16
"""Large lesions that do not fit are laid out anew before they shrink below this; the largest small radius is 0.146."""

SPIKE_HEIGHT = 0.3
MIDLINE_MARGIN = 0.05
GAP = 0.062
"""Between two lesions."""

FRAME = 0.958
"""No lesion reaches beyond: the outermost pixels of a 48-pixel image stay free."""

WALL_GAP = 0.025
"""Between a lesion and the outline."""

_MORE_SEARCHES = 6
_CANDIDATES = 192
_REFINEMENTS = (0.06, 0.06, 0.05, 0.04, 0.03, 0.02, 0.012)
"""Spread of the search around the best places found, when no random ones fit."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion, its centre at (x, y)."""

    x: float
    y: float
    radius: float  # mean radius
    stretch: float  # ratio of an axis of the ellipse to the mean radius (the other axis has its inverse)
    angle: float  # direction of that axis in radians
    spikes: int  # 0 for a smooth border


def place_lesions(scene: Scene, zone: Body, rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Lays out the lesions of a scene inside `zone`, on the named side, apart from each other and from the midline.

    The radius shrinks only as far as needed where large lesions would not fit into half of the zone.
    """
    number = ATTRIBUTES["count"].index(scene.count) + 1
    radius = RADII[scene.size, scene.border] * rng.uniform(1 - RADIUS_JITTER, 1 + RADIUS_JITTER, number)
    stretch = np.exp(rng.uniform(-0.08, 0.08, number))
    if scene.border == "ragged":
        stretch = np.ones(number)
    reach = radius * (1 + SPIKE_HEIGHT if scene.border == "ragged" else 1.08)
    sign = 1.0 if scene.side == "right" else -1.0
    found = _places(rng, zone, sign, reach)
    for _ in range(_MORE_SEARCHES):
        if found[1] * radius.min() >= LEAST_LARGE or scene.size == "small":
            break
        found = max(found, _places(rng, zone, sign, reach), key=itemgetter(1))
    centres, scale = found
    angle = rng.uniform(0, 2 * np.pi, number)
    spikes = rng.integers(7, 8 if scene.size == "small" else 10, number) if scene.border == "ragged" else [0] * number
    return tuple(
        Lesion(float(x), float(y), float(r) * scale, float(ratio), float(turn), int(points))
        for (x, y), r, ratio, turn, points in zip(centres, radius, stretch, angle, spikes, strict=True)
    )


def _places(
    rng: np.random.Generator, zone: Body, sign: float, reach: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Centres [N, 2] for discs of radius `reach` [N], and the factor (at most 1) by which the discs must shrink."""
    wall = zone.outline(48)
    wall = wall[wall[:, 0] * sign > 0]
    low = np.minimum(MIDLINE_MARGIN + reach, 0.5)
    high = np.maximum(wall[:, 0].max() if sign > 0 else -wall[:, 0].min(), 0.5) - reach
    across = rng.uniform(low, np.maximum(high, low + 0.01), (_CANDIDATES, len(reach)))
    down = rng.uniform(wall[:, 1].min() + reach, wall[:, 1].max() - reach, (_CANDIDATES, len(reach)))
    tries = np.stack([across * sign, down], axis=-1)
    room = _room(tries, zone, wall, sign, reach)
    if room.max() >= 1:
        return tries[int(np.argmax(room >= 1))], 1.0
    best, scale = tries[int(np.argmax(room))], float(room.max())
    starts = np.stack([best, *(_packed(zone, sign, len(reach)))])
    for spread in _REFINEMENTS:
        tries = starts[np.arange(_CANDIDATES) % len(starts)] + rng.normal(0, spread, tries.shape)
        room = _room(tries, zone, wall, sign, reach)
        if room.max() > scale:
            best, scale = tries[int(np.argmax(room))], float(room.max())
            starts = best[None]
        if scale >= 1:
            break
    return best, min(scale, 1.0)


def _packed(zone: Body, sign: float, number: int) -> list[NDArray[np.float64]]:
    """Places [N, 2] that leave much room in half of the zone: a triangle that points outwards, and one inwards."""
    outwards = np.array([(0.3, -0.54), (0.3, 0.54), (0.7, 0.0)])
    inwards = np.array([(0.62, -0.5), (0.62, 0.5), (0.3, 0.0)])
    return [zone.to_canvas(sign * zone.a * p[:number, 0], zone.b * p[:number, 1]) for p in (outwards, inwards)]


def _room(
    centres: NDArray[np.float64], zone: Body, wall: NDArray[np.float64], sign: float, reach: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The factor by which the discs of each candidate [C, N, 2] could grow: [C], negative where one lies outside."""
    offset = centres - (zone.x, zone.y)
    cos, sin = np.cos(zone.angle), np.sin(zone.angle)
    u = np.abs(offset[..., 0] * cos + offset[..., 1] * sin) / zone.a
    v = np.abs(offset[..., 1] * cos - offset[..., 0] * sin) / zone.b
    inside = np.where(u**zone.power + v**zone.power < 1, 1.0, -1.0)
    nearest = np.sqrt(((centres[:, :, None] - wall) ** 2).sum(-1).min(-1))
    # Spikes may use a little of the gap to the outline, never of the margins of the half.
    half = np.minimum(centres[..., 0] * sign - MIDLINE_MARGIN, FRAME - np.abs(centres).max(-1))
    room = (np.minimum((inside * nearest - WALL_GAP) / 0.95, half) / reach).min(-1)
    for i in range(len(reach)):
        for j in range(i):
            apart = np.sqrt(((centres[:, i] - centres[:, j]) ** 2).sum(-1)) - GAP
            room = np.minimum(room, apart / (reach[i] + reach[j]))
    return room


def coverage(canvas: Canvas, lesions: tuple[Lesion, ...]) -> Field:
    """How much of each pixel the lesions cover: [S, S], 0 to 1, with a soft edge."""
    total = np.zeros((canvas.side, canvas.side), dtype=np.float32)
    for lesion in lesions:
        reach = lesion.radius * (1 + SPIKE_HEIGHT) + 0.05
        low_x, high_x = _span(lesion.x, reach, canvas.side)
        low_y, high_y = _span(lesion.y, reach, canvas.side)
        window = np.s_[low_y:high_y, low_x:high_x]
        dx, dy = canvas.x[window] - np.float32(lesion.x), canvas.y[window] - np.float32(lesion.y)
        total[window] = np.maximum(total[window], _one(dx, dy, lesion))
    return total


def _span(centre: float, reach: float, side: int) -> tuple[int, int]:
    """First pixel and last pixel plus one of an interval."""
    return max(0, int((centre - reach + 1) * side / 2)), min(side, int((centre + reach + 1) * side / 2) + 2)


def _one(dx: Field, dy: Field, lesion: Lesion) -> Field:
    """Coverage of one lesion over a window of offsets from its centre."""
    cos, sin = np.float32(np.cos(lesion.angle)), np.float32(np.sin(lesion.angle))
    if not lesion.spikes:
        u = (dx * cos + dy * sin) / np.float32(lesion.stretch)
        v = (dy * cos - dx * sin) * np.float32(lesion.stretch)
        return step(np.float32(lesion.radius) - np.sqrt(u * u + v * v), 0.03)
    turn = np.arctan2(dy, dx) * np.float32(lesion.spikes / (2 * np.pi)) + np.float32(lesion.angle)
    spike = 4 * np.abs(turn - np.floor(turn) - np.float32(0.5)) - 1
    border = np.float32(lesion.radius) * (1 + np.float32(SPIKE_HEIGHT) * spike)
    return step(border - np.sqrt(dx * dx + dy * dy), 0.02)
