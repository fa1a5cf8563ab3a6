"""Outlines: polygons that enclose exactly the pixels of a mask."""

import numpy as np
import pytest
from scipy import ndimage

from mlflow_yolo.datasets.outline import fill_diagonals, trace_outline


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def polygon_area(corners: np.ndarray) -> float:
    """Shoelace formula; positive for clockwise corners with y down."""
    x, y = corners.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def test_one_pixel_is_its_four_corners() -> None:
    assert trace_outline(mask_of("..", ".#")).tolist() == [[1, 1], [2, 1], [2, 2], [1, 2]]


def test_letter_l_has_six_corners() -> None:
    corners = trace_outline(mask_of("#.", "##"))
    assert corners.tolist() == [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [0, 2]]


def test_ring_is_enclosed_with_its_hole() -> None:
    assert polygon_area(trace_outline(mask_of("####", "#..#", "#..#", "####"))) == 16


def test_empty_mask_has_no_corners() -> None:
    assert trace_outline(np.zeros((3, 3), bool)).shape == (0, 2)


def test_only_the_first_region_is_traced() -> None:
    assert polygon_area(trace_outline(mask_of("#..", "...", ".##"))) == 1


def test_diagonal_neighbours_are_joined_by_one_pixel() -> None:
    assert fill_diagonals(mask_of("#.", ".#")).sum() == 3
    assert fill_diagonals(mask_of(".#", "#.")).sum() == 3
    untouched = mask_of("##.", "#..", "...")
    np.testing.assert_array_equal(fill_diagonals(untouched), untouched)


@pytest.mark.parametrize("seed", range(20))
def test_area_of_random_blobs_is_their_pixel_count_and_no_point_is_passed_twice(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((24, 24)), 1.5)
    regions, n = ndimage.label(fill_diagonals(noise > 0.05))
    for index in range(1, n + 1):
        region = regions == index
        corners = trace_outline(region)
        assert polygon_area(corners) == ndimage.binary_fill_holes(region).sum()
        assert len(np.unique(corners, axis=0)) == len(corners)


def test_outline_moves_with_the_mask() -> None:
    mask = mask_of("....", ".##.", "..#.", "....")
    moved = np.roll(mask, (1, 1), axis=(0, 1))
    np.testing.assert_array_equal(trace_outline(moved), trace_outline(mask) + 1)
