"""Draws the scenes of PhantomVQA: normal anatomy in the style of a modality, lesions on top, then noise.

The anatomy never looks at what the lesions are, save that the outline shapes the organ, so it cannot tell an answer.
Everything is drawn in relative coordinates on a canvas at least twice as fine as the image, then averaged down: the
same scene at two sizes is the same image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kepo.data.omnimedvqa import MODALITIES
from kepo.phantom.drawing.canvas import Body, Canvas, Field, make_canvas, noise
from kepo.phantom.drawing.lesions import Lesion, coverage, place_lesions
from kepo.phantom.drawing.styles import STYLES
from kepo.phantom.scene import Scene

if TYPE_CHECKING:
    from PIL import Image

_SHORTEST_CANVAS = 96
_ANATOMY, _LESIONS, _BODY, _PIXELS = range(4)
"""Streams of random numbers: each part of an image has its own, so that one cannot shift another."""


def render(scene: Scene, size: int = 48) -> Image.Image:
    """Draws a scene as an RGB image of `size` x `size` pixels; it depends on nothing else.

    Raises:
        ValueError: If `size` is below 8 or the seed of the scene is negative.
    """
    canvas, factor = _canvas(size)
    style = STYLES[scene.modality]
    image = anatomy(scene, canvas)
    rng = _generator(scene, _PIXELS)
    cover = coverage(canvas, lesions(scene))
    tint = style.bright if scene.tone == "bright" else style.dark
    texture = style.grain * noise(rng, canvas, 40)
    gain, grain = np.float32(rng.uniform(0.93, 1.05)), style.noise * noise(rng, canvas, 96)
    if image.ndim == 2:
        image = image + cover * (np.float32(tint[0]) + texture - image)
        return _image(image * gain + grain, factor)
    colour = np.asarray(tint, dtype=np.float32) + texture[..., None]
    image = image + cover[..., None] * (colour - image)
    return _image(image * gain + grain[..., None], factor)


def anatomy(scene: Scene, canvas: Canvas) -> Field:
    """The image without lesions and noise: [S, S] for grey modalities, [S, S, 3] for the others, about 0 to 1.

    It depends on the seed, the modality and the outline of the scene only.
    """
    return STYLES[scene.modality].paint(canvas, body(scene), _generator(scene, _ANATOMY))


def body(scene: Scene) -> Body:
    """The outline of the organ: its shape by style and outline, its place and rotation by the seed."""
    style, rng = STYLES[scene.modality], _generator(scene, _BODY)
    a, b = style.round if scene.outline == "round" else style.long
    x, y = rng.uniform(-0.04, 0.04), rng.uniform(-0.06, 0.06)
    x, y = np.clip(x, a - 1, 1 - a), np.clip(y, b - 1, 1 - b)
    angle = np.radians(rng.uniform(-6, 6))
    return Body(float(x), float(y), a, b, 2 if scene.outline == "round" else 3, float(angle))


def lesions(scene: Scene) -> tuple[Lesion, ...]:
    """The lesions of a scene: places, radii and borders."""
    shape, wall = body(scene), STYLES[scene.modality].wall
    zone = Body(shape.x, shape.y, shape.a * wall, shape.b * wall, shape.power, shape.angle)
    return place_lesions(scene, zone, _generator(scene, _LESIONS))


def lesion_mask(scene: Scene, size: int = 48) -> NDArray[np.bool_]:
    """Which pixels of `render(scene, size)` belong to lesions, for more than half of their area: [size, size]."""
    canvas, factor = _canvas(size)
    cover = coverage(canvas, lesions(scene)).reshape(size, factor, size, factor)
    mask: NDArray[np.bool_] = cover.mean(axis=(1, 3)) > 0.5
    return mask


def _canvas(size: int) -> tuple[Canvas, int]:
    """The canvas for an image of `size` pixels, and how many of its pixels make one of the image's side."""
    if size < 8:
        raise ValueError(f"size {size} is too small to show anything; use 8 or more pixels")
    factor = max(2, -(-_SHORTEST_CANVAS // size))
    return make_canvas(size * factor), factor


def _generator(scene: Scene, stream: int) -> np.random.Generator:
    """The random numbers of one part of the image."""
    return np.random.default_rng((scene.seed, MODALITIES.index(scene.modality), stream))


def _image(image: Field, factor: int) -> Image.Image:
    """Rounds to 8 bits and averages `factor` x `factor` pixels into one."""
    from PIL import Image

    return Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)).reduce(factor).convert("RGB")
