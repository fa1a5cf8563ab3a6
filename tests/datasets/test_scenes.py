"""Scenes: boxes match the ink, digits stay apart, and log-chromaticity can show every one of them."""

import numpy as np
import pytest

from mlflow_yolo.datasets.digits import compose_scene
from mlflow_yolo.datasets.log_chromaticity import log_chromaticity, log_ratios
from mlflow_yolo.datasets.scenes import (
    MIN_CHROMATICITY_DISTANCE,
    MIN_GREY_CONTRAST,
    SIDE_FRACTIONS,
    Glyph,
    Scene,
    chromaticity_distance,
    compose_layout,
)

IMGSZ = 128
N = 24


def scenes(name: str) -> list[Scene]:
    return [compose_scene(name, "val", index, imgsz=IMGSZ)[0] for index in range(N)]


def medians(image: np.ndarray, glyph: Glyph) -> tuple[np.ndarray, np.ndarray]:
    """Median pixel of the ink's core and of the paper around it, in the glyph's window."""
    window = image[glyph.window]
    core, paper = glyph.coverage >= 0.99, glyph.coverage <= 0.01
    return np.median(window[core], axis=0), np.median(window[paper], axis=0)


def test_boxes_are_the_tight_extent_of_the_ink_inside_the_scene() -> None:
    for scene in scenes("digits"):
        for glyph in scene.glyphs:
            x1, y1, x2, y2 = glyph.box
            assert 0 < x1 < x2 < IMGSZ
            assert 0 < y1 < y2 < IMGSZ
            rows, columns = np.nonzero(glyph.coverage >= 0.5)
            assert (columns.min(), rows.min()) == (1, 1)
            assert (columns.max(), rows.max()) == (x2 - x1, y2 - y1)


def test_drawn_ink_fills_its_box_and_ends_there() -> None:
    """Read from the pixels: rows and columns of the box hold ink, those outside the window next to it none."""
    for scene in scenes("digits"):
        image = scene.image[..., 0].astype(float)
        for glyph in scene.glyphs:
            ink, paper = (float(np.ravel(value)[0]) for value in medians(image[..., None], glyph))
            dark = np.abs(image[glyph.window] - ink) < abs(ink - paper) / 2
            agreement = (dark == (glyph.coverage >= 0.5)).mean()
            assert agreement > 0.8  # pen strokes under the digit and grain disagree here and there


def test_digits_keep_apart() -> None:
    for scene in scenes("digits"):
        taken = np.zeros((IMGSZ, IMGSZ), int)
        for glyph in scene.glyphs:
            taken[glyph.window] += 1
        assert taken.max() <= 1


def test_sizes_span_small_and_medium_objects() -> None:
    boxes = np.array([glyph.box for scene in scenes("digits") for glyph in scene.glyphs])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    low, high = SIDE_FRACTIONS
    assert sides.min() >= low * IMGSZ - 2
    assert sides.max() <= high * IMGSZ + 2
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    assert (areas < 32**2).mean() > 0.3
    assert (areas > 32**2).mean() > 0.1


def test_scenes_hold_one_to_six_digits() -> None:
    counts = {len(scene.glyphs) for scene in scenes("digits")}
    assert counts <= set(range(1, 7))
    assert len(counts) > 2


def test_grey_ink_keeps_its_contrast() -> None:
    for scene in scenes("digits"):
        for glyph in scene.glyphs:
            ink, paper = medians(scene.image / 255, glyph)
            assert abs(ink[0] - paper[0]) > 0.6 * MIN_GREY_CONTRAST


def test_every_ink_keeps_the_least_chromaticity_distance() -> None:
    """Once as designed, and once measured in the finished 8-bit sRGB image, in light and in shadow."""
    measured = []
    for scene in scenes("digits-shadow"):
        assert min(scene.chromaticity_distances) >= MIN_CHROMATICITY_DISTANCE
        linear = log_ratios(np.maximum(((scene.image / 255 + 0.055) / 1.055) ** 2.4, 1e-3), epsilon=0.0)
        for glyph in scene.glyphs:
            ink, paper = medians(linear, glyph)
            measured.append(float(np.linalg.norm(ink - paper)))
    assert min(measured) > 0.5 * MIN_CHROMATICITY_DISTANCE
    assert np.median(measured) > MIN_CHROMATICITY_DISTANCE


def test_every_digit_is_visible_in_the_log_chromaticity_image() -> None:
    """The ink differs from the paper by at least 20 of 255 levels over the three channels."""
    for scene in scenes("digits-shadow"):
        image = log_chromaticity(scene.image).astype(float)
        for glyph in scene.glyphs:
            ink, paper = medians(image, glyph)
            assert np.abs(ink - paper).max() > 20


def test_shadow_is_weaker_in_log_chromaticity_than_in_srgb() -> None:
    """Over paper pixels of scenes with shadow: spread of brightness against spread of log-ratios, in 8-bit levels."""
    srgb, chroma = [], []
    for scene in scenes("digits-shadow"):
        paper = np.ones((IMGSZ, IMGSZ), bool)
        for glyph in scene.glyphs:
            paper[glyph.window] = False
        srgb.append(np.std(scene.image[paper].astype(float).mean(axis=1)))
        chroma.append(np.std(log_chromaticity(scene.image)[paper].astype(float).mean(axis=1)))
    assert np.mean(srgb) > 4 * np.mean(chroma)


def test_shadow_fraction_is_zero_for_grey_and_spreads_for_shadow() -> None:
    assert {value for scene in scenes("digits") for value in scene.shadow_fractions} == {0.0}
    fractions = np.array([value for scene in scenes("digits-shadow") for value in scene.shadow_fractions])
    assert fractions.min() >= 0
    assert fractions.max() <= 1
    assert (fractions > 0.9).mean() > 0.1
    assert (fractions < 0.1).mean() > 0.1


def test_shadowed_digits_are_darker() -> None:
    light, dark = [], []
    for scene in scenes("digits-shadow"):
        for glyph, fraction in zip(scene.glyphs, scene.shadow_fractions, strict=True):
            value = scene.image[glyph.window].mean()
            (dark if fraction > 0.95 else light if fraction < 0.05 else []).append(value)
    assert np.mean(dark) < 0.75 * np.mean(light)


def test_chromaticity_distance_ignores_brightness() -> None:
    ink, paper = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.4, 0.6])
    expected = np.hypot(np.log(0.5) - np.log(1.25), np.log(1.5) - np.log(1.5))
    assert chromaticity_distance(ink, paper) == pytest.approx(expected)
    assert chromaticity_distance(0.2 * ink, paper) == pytest.approx(expected)
    assert chromaticity_distance(ink, 3 * ink) == pytest.approx(0.0, abs=1e-12)


def test_masks_are_one_region_without_corner_contacts() -> None:
    from scipy import ndimage

    for scene in scenes("digits-seg"):
        for glyph in scene.glyphs:
            assert ndimage.label(glyph.mask)[1] == 1


def test_layout_repeats_with_its_seed() -> None:
    scan = np.zeros((8, 8))
    scan[1:7, 3:5] = 16
    first, second = (
        compose_layout(np.random.default_rng(5), lambda rng: (1, scan), imgsz=64, n_digits=(3, 3)) for _ in range(2)
    )
    assert [glyph.box for glyph in first.glyphs] == [glyph.box for glyph in second.glyphs]
    np.testing.assert_array_equal(first.texture, second.texture)


def test_first_digit_always_finds_a_place() -> None:
    scan = np.full((8, 8), 16.0)
    for seed in range(20):
        layout = compose_layout(
            np.random.default_rng(seed), lambda rng: (0, scan), imgsz=32, n_digits=(4, 4), side_fractions=(0.7, 0.75)
        )
        assert len(layout.glyphs) >= 1
