"""PhantomVQA's pictures show what their scenes say, and nothing else tells it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kepo.data.omnimedvqa import MODALITIES
from kepo.phantom.contact_sheet import contact_sheet, sheet_scenes
from kepo.phantom.drawing.canvas import make_canvas
from kepo.phantom.drawing.styles import STYLES
from kepo.phantom.render import anatomy, body, lesion_mask, lesions, render
from kepo.phantom.scene import ATTRIBUTES, Scene

SCENE = Scene(7, "MRI", "round", "left", "two", "small", "smooth", "bright")
COUNTS = {"one": 1, "two": 2, "three": 3}
ALL_VALUES = list(product(*ATTRIBUTES.values()))


def _scenes(step: int = 1, **fixed: str) -> list[Scene]:
    """Scenes over all combinations of attributes, the modality in turn; every `step`-th is kept."""
    found = []
    for seed, values in enumerate(ALL_VALUES * 2):
        chosen = {"modality": MODALITIES[seed * 5 % 8], **dict(zip(ATTRIBUTES, values, strict=True)), **fixed}
        found.append(Scene(seed=seed, **chosen))
    return found[::step]


def _pixels(scene: Scene, size: int = 48) -> NDArray[np.float64]:
    return np.asarray(render(scene, size), dtype=np.float64)


def _components(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The 8-connected parts of a mask: labels spread until nothing changes."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        spread = np.where(mask, _neighbourhood(labels).max(0), 0)
        if (spread == labels).all():
            return [labels == label for label in np.unique(labels) if label]
        labels = spread


def _neighbourhood(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each pixel's 3 x 3 neighbourhood: [9, H, W], zero outside."""
    padded = np.pad(values, 1)
    height, width = values.shape
    return np.stack([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)])


def _grown(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    for _ in range(times):
        mask = _neighbourhood(mask.astype(np.int64)).max(0) > 0
    return mask


def _roughness(part: NDArray[np.bool_]) -> float:
    """Perimeter^2 / area; the perimeter counts pixel edges."""
    padded = np.pad(part.astype(int), 1)
    perimeter = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    return float(perimeter**2 / part.sum())


def test_components_are_told_apart() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[4, 2:5] = True
    assert sorted(int(part.sum()) for part in _components(mask)) == [2, 3]


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_scene_is_always_the_same_picture(modality: str) -> None:
    scene = replace(SCENE, modality=modality)
    picture = render(scene)
    assert (picture.mode, picture.size) == ("RGB", (48, 48))
    assert picture.tobytes() == render(replace(scene)).tobytes()


@pytest.mark.parametrize("modality", MODALITIES)
def test_equal_attributes_never_make_equal_pictures(modality: str) -> None:
    pictures = {render(replace(SCENE, modality=modality, seed=seed)).tobytes() for seed in range(30)}
    assert len(pictures) == 30


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_larger_picture_is_the_same_picture(modality: str) -> None:
    scene = replace(SCENE, modality=modality, border="ragged", size="large")
    small, large = _pixels(scene, 48), _pixels(scene, 192).reshape(48, 4, 48, 4, 3).mean(axis=(1, 3))
    other = _pixels(replace(scene, seed=8), 192).reshape(48, 4, 48, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - large).mean() < 8
    assert np.abs(small - large).mean() < 0.5 * np.abs(small - other).mean()


def test_lesions_lie_in_the_named_half_off_the_midline_and_off_the_edge() -> None:
    for scene in _scenes():
        mask = lesion_mask(scene)
        allowed = mask[:, 25:] if scene.side == "right" else mask[:, :23]
        assert mask.any()
        assert mask.sum() == allowed.sum(), scene
        assert not mask[[0, -1]].any(), scene
        assert not mask[:, [0, -1]].any(), scene


def test_lesions_lie_inside_the_organ() -> None:
    canvas = make_canvas(96)
    for scene in _scenes(step=3):
        organ = body(scene)
        u, v = organ.normalised(canvas)
        outside = np.abs(u) ** organ.power + np.abs(v) ** organ.power > 1
        assert not (lesion_mask(scene, 96) & outside).any(), scene


def test_there_are_as_many_lesions_as_named_and_they_keep_apart() -> None:
    for scene in _scenes(step=2):
        parts = _components(lesion_mask(scene, 96))
        assert len(parts) == COUNTS[scene.count], scene
        for one, other in combinations(parts, 2):
            offsets = np.argwhere(one)[:, None] - np.argwhere(other)[None]
            assert np.sqrt((offsets**2).sum(-1).min()) > 0.03 * 96, scene


@pytest.mark.parametrize("border", ["smooth", "ragged"])
def test_three_large_lesions_keep_their_distances_even_where_they_are_packed(border: str) -> None:
    values = ("three", "large", border, "dark")
    for seed in range(120):
        scene = Scene(seed, MODALITIES[seed % 8], ATTRIBUTES["outline"][seed // 8 % 2], "left", *values)
        found = lesions(scene)
        reach = [each.radius * (1.3 if border == "ragged" else max(each.stretch, 1 / each.stretch)) for each in found]
        for i, j in combinations(range(3), 2):
            apart = np.hypot(found[i].x - found[j].x, found[i].y - found[j].y)
            assert apart - reach[i] - reach[j] >= 0.06, scene  # canvas units: 3 % of the side
        for each, length in zip(found, reach, strict=True):
            assert each.x + length <= -0.04, scene
            assert max(abs(each.x), abs(each.y)) + length <= 23 / 24, scene  # the outermost pixel of 48 stays free


def test_areas_of_small_and_large_lesions_do_not_overlap() -> None:
    areas: dict[str, list[float]] = {"small": [], "large": []}
    for scene in _scenes(step=2):
        areas[scene.size] += [float(part.mean()) for part in _components(lesion_mask(scene, 96))]
    assert max(areas["small"]) < min(areas["large"])
    # A disc of 6.75 % of the side covers 1.4 % of the picture, one of 13 % covers 5.3 %.
    assert np.mean(areas["small"]) == pytest.approx(0.0143, rel=0.1)
    assert max(areas["large"]) == pytest.approx(0.053, rel=0.25)


@pytest.mark.parametrize("size", ["small", "large"])
def test_ragged_borders_are_rougher_than_smooth_ones_at_48_pixels(size: str) -> None:
    roughness = {
        border: [
            np.mean([_roughness(part) for part in _components(lesion_mask(scene))])
            for scene in _scenes(step=4, size=size, border=border)
        ]
        for border in ("smooth", "ragged")
    }
    assert max(roughness["smooth"]) < min(roughness["ragged"])
    assert np.mean(roughness["ragged"]) > 1.5 * np.mean(roughness["smooth"])


@pytest.mark.parametrize("tone", ["bright", "dark"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_lesions_stand_out_from_the_tissue_around_them(modality: str, tone: str) -> None:
    for scene in _scenes(step=12, modality=modality, tone=tone):
        grey, mask = _pixels(scene).mean(-1), lesion_mask(scene)
        around = _grown(mask, 3) & ~_grown(mask, 1)
        difference = grey[mask].mean() - grey[around].mean()
        assert (difference if tone == "bright" else -difference) > 35, scene


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("outline", ["round", "long"])
def test_the_anatomy_does_not_depend_on_the_lesions(modality: str, outline: str) -> None:
    canvas = make_canvas(96)
    scene = replace(SCENE, modality=modality, outline=outline)
    expected = anatomy(scene, canvas)
    for values in ALL_VALUES[::7]:
        other = replace(scene, **dict(zip(ATTRIBUTES, values, strict=True)) | {"outline": outline})
        assert np.array_equal(anatomy(other, canvas), expected)


@pytest.mark.parametrize("modality", MODALITIES)
def test_away_from_lesions_pixels_do_not_depend_on_them(modality: str) -> None:
    scene = replace(SCENE, modality=modality)
    other = replace(scene, side="right", count="three", border="ragged", tone="dark", size="large")
    free = ~_grown(lesion_mask(scene) | lesion_mask(other), 2)
    assert free.sum() > 800
    assert np.array_equal(_pixels(scene)[free], _pixels(other)[free])


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_outline_is_round_or_clearly_long(modality: str) -> None:
    ratios = {
        outline: [
            shape.a / shape.b
            for seed in range(5)
            for shape in [body(replace(SCENE, modality=modality, outline=outline, seed=seed))]
        ]
        for outline in ("round", "long")
    }
    assert set(ratios["round"]) == {1.0}
    assert min(ratios["long"]) > 1.45


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_picture_shows_lesions_exactly_where_the_mask_is(modality: str) -> None:
    scene = replace(SCENE, modality=modality, size="large")
    with_lesions, mask = _pixels(scene), lesion_mask(scene)
    moved = _pixels(replace(scene, side="right"))
    changed = np.abs(with_lesions - moved).max(-1) > 30
    assert changed[mask].mean() > 0.95
    assert not changed[~_grown(mask | lesion_mask(replace(scene, side="right")), 1)].any()


def test_large_lesions_shrink_only_where_three_must_share_the_half() -> None:
    for scene in _scenes(step=3, size="large", border="smooth"):
        radii = [lesion.radius / 2 for lesion in lesions(scene)]  # as a part of the side
        assert max(radii) < 0.13 * 1.081
        if scene.count == "one":
            assert min(radii) > 0.13 * 0.9
        assert min(radii) > 0.0675 * 1.081


@pytest.mark.parametrize("size", [-1, 0, 7])
def test_a_picture_too_small_to_show_anything_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size} is too small"):
        render(SCENE, size)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        render(replace(SCENE, seed=-1))


def test_every_modality_has_a_style_and_tones_of_their_own() -> None:
    assert tuple(STYLES) == MODALITIES
    assert all(min(style.bright[:2]) > 0.9 and max(style.dark[:2]) < 0.25 for style in STYLES.values())


def test_the_contact_sheet_shows_every_modality_and_every_value() -> None:
    scenes = sheet_scenes()
    assert [row[0].modality for row in scenes] == list(MODALITIES)
    for name, values in ATTRIBUTES.items():
        assert {getattr(scene, name) for scene in scenes[0]} == set(values)


def test_the_contact_sheet_holds_the_pictures_and_captions() -> None:
    sheet, size = contact_sheet(100), 100
    picture = render(sheet_scenes()[7][4], size)
    pitch = size + 5
    place = (sheet.width - pitch, sheet.height - pitch)
    assert sheet.crop((*place, place[0] + size, place[1] + size)).tobytes() == picture.tobytes()
    blank = Image.new("RGB", sheet.size, "white")
    heading = (0, 0, sheet.width, sheet.height - 8 * pitch)
    assert sheet.crop(heading).tobytes() != blank.crop(heading).tobytes()
    rim = (0, 0, sheet.width, 3)  # no caption is cut off at the top
    assert sheet.crop(rim).tobytes() == blank.crop(rim).tobytes()
    with pytest.raises(ValueError, match="size 63"):
        contact_sheet(63)
