"""Maps over pictures: what zero, the largest value and a sign look like, and what is no map."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import map_coordinates

from mlflow_yolo.exceptions import ArgumentError, ShapeError
from mlflow_yolo.figures.heat_map import (
    MOST_CELLS,
    blend,
    color_table,
    largest,
    layer,
    levels,
    overlay,
    shrunk,
    signed_overlay,
)

Pixels = npt.NDArray[np.uint8]
NAN = float("nan")


def picture(height: int = 24, width: int = 32, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def lightness(colors: Pixels) -> npt.NDArray[np.float64]:
    """Return CIE L* of (N, 3) sRGB, from the standard's two formulas."""
    share = colors / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def enlarged_by_scipy(values: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return values at the pixels' centres, by straight lines between the cells' centres, constant beyond the last."""
    rows, columns = ((np.arange(n) + 0.5) * cells / n - 0.5 for n, cells in zip(size, values.shape, strict=True))
    at = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(map_coordinates(values, at, order=1, mode="nearest"))


def test_a_map_of_zeros_leaves_the_picture_untouched() -> None:
    image, zeros = picture(), np.zeros((5, 7), dtype=np.float32)
    np.testing.assert_array_equal(overlay(image, zeros), image)
    np.testing.assert_array_equal(overlay(image, zeros, largest=0.0), image)
    np.testing.assert_array_equal(overlay(image, zeros - 1), image)
    np.testing.assert_array_equal(signed_overlay(image, zeros, limit=3.0), image)
    np.testing.assert_array_equal(overlay(image, zeros + 1, strength=0.0), image)


def test_only_the_place_of_the_map_is_coloured() -> None:
    image, values = picture(40, 40), np.zeros((10, 10))
    values[2, 7] = 5.0  # pixels 28 to 31 of rows 8 to 11, and up to half a cell around them
    changed = (overlay(image, values) != image).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min() >= 6, rows.max() <= 13, columns.min() >= 26, columns.max() <= 33) == (True,) * 4
    assert changed[8:12, 28:32].all()


def test_levels_by_hand() -> None:
    np.testing.assert_array_equal(levels(np.array([[0.0, 1.0, 2.0, 9.0, -1.0]]), limit=2.0), [[0, 127, 254, 254, 0]])
    signed = levels(np.array([[-2.0, -1.0, 0.0, 1.0, 2.0, 9.0]]), limit=2.0, signed=True)
    np.testing.assert_array_equal(signed, [[0, 64, 127, 190, 254, 254]])  # 63.5 and 190.5 to the even neighbour


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("factor", [1e-300, 1e-8, 3.0, 1e12])
def test_without_a_limit_the_scale_of_a_map_does_not_matter(factor: float, signed: bool) -> None:
    values = np.random.default_rng(1).normal(size=(6, 6))
    np.testing.assert_array_equal(levels(factor * values, signed=signed), levels(values, signed=signed))


def test_what_is_not_finite_counts_as_zero() -> None:
    values = np.array([[NAN, np.inf, -np.inf, 2.0]], dtype=np.float32)
    assert (largest(values), largest(values, signed=True)) == (2.0, 2.0)
    np.testing.assert_array_equal(levels(values), [[0, 0, 0, 254]])
    np.testing.assert_array_equal(levels(values, signed=True), [[127, 127, 127, 254]])
    image = picture()
    np.testing.assert_array_equal(overlay(image, np.full((3, 3), NAN)), image)
    assert np.isfinite(shrunk(np.full((50, 50), np.inf))).all()


@pytest.mark.parametrize("cells", [(1, 1), (7, 7), (20, 5), (40, 40)])
@pytest.mark.parametrize("size", [(40, 61), (96, 96)])
def test_maps_are_enlarged_by_straight_lines(cells: tuple[int, int], size: tuple[int, int]) -> None:
    leveled = np.random.default_rng(2).integers(0, 255, cells, dtype=np.uint8)
    expected = enlarged_by_scipy(leveled.astype(np.float64), size) * 255 / 254
    np.testing.assert_allclose(layer(leveled, size)[..., 3], expected, atol=1.01)


def test_the_layer_takes_colour_and_opacity_of_each_level_from_the_table() -> None:
    for signed, level, opacity in [
        (False, 254, 255),
        (False, 127, 128),
        (True, 254, 255),
        (True, 0, 255),
        (True, 127, 0),
    ]:
        over = layer(np.full((3, 3), level, dtype=np.uint8), (9, 9), signed=signed)
        assert (over == color_table(signed)[level]).all()
        assert over[0, 0, 3] == opacity


def test_blending_by_hand() -> None:
    image = np.full((1, 3, 3), 100, dtype=np.uint8)
    over = np.array([[[200, 0, 100, 255], [200, 0, 100, 51], [200, 0, 100, 0]]], dtype=np.uint8)
    np.testing.assert_array_equal(blend(image, over, 1.0), [[[200, 0, 100], [120, 80, 100], [100, 100, 100]]])
    np.testing.assert_array_equal(blend(image, over, 0.5), [[[150, 50, 100], [110, 90, 100], [100, 100, 100]]])


def test_steps_of_the_colours_are_even_to_the_eye() -> None:
    unsigned, signed = lightness(color_table(False)[:, :3]), lightness(color_table(True)[:, :3])
    steps = np.diff(unsigned[::16])
    assert steps.min() > 0.5 * steps.mean() > 1
    assert steps.max() < 2 * steps.mean()
    low, high = signed[:127][::-1], signed[128:]
    assert np.abs(low - high)[40:].max() < 8  # as light on both sides
    assert (np.diff(low[::16]) < 0).all()
    assert (np.diff(high[::16]) < 0).all()
    np.testing.assert_array_equal(color_table(True)[:, 3], color_table(True)[::-1, 3])


def test_red_is_above_zero_and_blue_below() -> None:
    image, one = np.full((8, 8, 3), 128, dtype=np.uint8), np.ones((2, 2))
    above, below = signed_overlay(image, one)[0, 0].astype(int), signed_overlay(image, -one)[0, 0].astype(int)
    assert above[0] > above[2] + 80
    assert below[2] > below[0] + 80


def test_maps_of_one_limit_can_be_compared() -> None:
    image, small, large = picture(), np.full((2, 2), 1.0), np.full((2, 2), 4.0)
    mixed = np.array([[1.0, 4.0]])
    both = overlay(image, mixed, largest=8.0)
    np.testing.assert_array_equal(overlay(image, small, largest=8.0)[:, 0], both[:, 0])
    np.testing.assert_array_equal(overlay(image, large, largest=8.0)[:, -1], both[:, -1])
    assert (overlay(image, small, largest=8.0) != overlay(image, large, largest=8.0)).any()
    np.testing.assert_array_equal(overlay(image, small), overlay(image, large))
    lone, shared = signed_overlay(image, small), signed_overlay(image, small, limit=4.0)
    assert np.abs(lone.astype(int) - image).sum() > 3 * np.abs(shared.astype(int) - image).sum()


def test_a_large_map_is_averaged_down_and_a_small_one_kept() -> None:
    values = np.random.default_rng(5).random((80, 20))
    small = shrunk(values)
    assert small.shape == (MOST_CELLS, 20)
    assert small.mean() == pytest.approx(values.mean(), abs=0.01)
    np.testing.assert_array_equal(shrunk(values[:40]), values[:40].astype(np.float32))
    np.testing.assert_allclose(shrunk(np.full((90, 90), 3.0)), 3.0)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 1), (0, 4)])
def test_what_is_no_map_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=str(shape[0])):
        overlay(picture(), np.zeros(shape))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_picture_is_named(image: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ShapeError, match="RGB"):
        overlay(image, np.ones((2, 2)))
    with pytest.raises(ShapeError, match="RGB"):
        signed_overlay(image, np.ones((2, 2)))


@pytest.mark.parametrize("limit", [-1.0, NAN, np.inf])
def test_an_impossible_limit_is_named(limit: float) -> None:
    with pytest.raises(ArgumentError, match=f"limit={limit}"):
        overlay(picture(), np.ones((2, 2)), largest=limit)


@pytest.mark.parametrize("strength", [-0.1, 1.1, NAN])
def test_an_impossible_strength_is_named(strength: float) -> None:
    with pytest.raises(ArgumentError, match=f"strength={strength}"):
        overlay(picture(), np.ones((2, 2)), strength=strength)
