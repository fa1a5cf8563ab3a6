"""What part of each cell of a map's grid objects cover: from boxes, polygons or pixels.

A grid (h, w) divides a frame of `size` (height, width) into h x w cells of equal size. Coverage is an area and not a
yes or no, so that an object smaller than a cell is not lost. The part of objects `b` outside objects `a`, for
co-occurrence, is exact as `box_mask(a and b) - box_mask(a)`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import InputError, ShapeError

Floats = npt.NDArray[np.float64]

_LINES = 16
"""Lines a cell on which a polygon is measured; a horizontal edge is off by at most 1/32 of a cell."""


def box_mask(boxes: npt.NDArray[Any], *, size: tuple[int, int], grid: tuple[int, int]) -> Floats:
    """Return the fraction of each cell that the union of the boxes covers; exact, overlaps count once.

    Args:
        boxes: (N, 4) xyxy, pixels of the frame; what lies outside the frame is cut off.
        size: Height and width of the frame, pixels.
        grid: Rows and columns of the map.

    Returns:
        (h, w) in [0, 1]; zeros for no boxes and for boxes without area.

    Raises:
        ShapeError: `boxes` is not (N, 4), or `size` or `grid` has a side below 1.
        InputError: A corner is not finite.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"boxes have shape {boxes.shape}, expected (N, 4): pass np.zeros((0, 4)) for no boxes.")
    corners = _in_cells(boxes.reshape(-1, 2, 2), size, grid).reshape(-1, 4)
    # Lines through all box sides and all cell sides make rectangles that are wholly inside or wholly outside.
    xs = np.union1d(np.arange(grid[1] + 1), corners[:, 0::2])
    ys = np.union1d(np.arange(grid[0] + 1), corners[:, 1::2])
    left, right = np.searchsorted(xs, corners[:, 0::2]).T
    top, bottom = np.searchsorted(ys, corners[:, 1::2]).T
    inside = np.zeros((len(ys) - 1, len(xs) - 1))
    for x1, y1, x2, y2 in zip(left, top, right, bottom, strict=True):
        inside[y1:y2, x1:x2] = 1.0
    areas = inside * np.diff(ys)[:, None] * np.diff(xs)
    rows = np.add.reduceat(areas, np.searchsorted(ys, np.arange(grid[0])), axis=0)
    cells = np.add.reduceat(rows, np.searchsorted(xs, np.arange(grid[1])), axis=1)
    return np.asarray(np.minimum(cells, 1.0))


def polygon_mask(polygons: Sequence[npt.NDArray[Any]], *, size: tuple[int, int], grid: tuple[int, int]) -> Floats:
    """Return the fraction of each cell that the union of the polygons covers.

    Each polygon is closed by itself and filled by the even-odd rule; overlaps of two polygons count once. Exact along
    x; along y measured on 16 lines a cell.

    Args:
        polygons: Each (K, 2) xy, pixels of the frame: outlines of masks, or the four corners of rotated boxes.
        size: Height and width of the frame, pixels.
        grid: Rows and columns of the map.

    Returns:
        (h, w) in [0, 1]; zeros for no polygons and for those with fewer than three corners.

    Raises:
        ShapeError: A polygon is not (K, 2), or `size` or `grid` has a side below 1.
        InputError: A corner is not finite.
    """
    n_rows, n_columns = grid
    lines = (np.arange(n_rows * _LINES) + 0.5) / _LINES
    crossings = [np.zeros((len(lines), 2))]
    for polygon in polygons:
        corners = np.asarray(polygon, dtype=np.float64)
        if corners.ndim != 2 or corners.shape[1] != 2:
            raise ShapeError(f"a polygon has shape {corners.shape}, expected (K, 2): pass its corners as x and y.")
        crossings.append(_crossings(_in_cells(corners, size, grid, cut=False), lines))
    spans = np.clip(np.concatenate(crossings, axis=1), 0.0, n_columns)
    starts, ends = _disjoint(spans[:, 0::2], spans[:, 1::2])
    edges = np.arange(n_columns + 1.0)
    mask = np.empty(grid)
    for row in range(n_rows):  # one row of cells at a time bounds the memory
        here = slice(row * _LINES, (row + 1) * _LINES)
        start, end = starts[here, :, None], ends[here, :, None]
        until = np.clip(edges - start, 0.0, end - start).sum(axis=1).mean(axis=0)
        mask[row] = np.diff(until)
    return np.clip(mask, 0.0, 1.0)


def resize_mask(mask: npt.NDArray[Any], grid: tuple[int, int]) -> Floats:
    """Return the mean of a mask of pixels over each cell of a grid that need not divide it evenly.

    Args:
        mask: (H, W), bool or fractions.
        grid: Rows and columns of the map; finer than the mask is allowed.

    Returns:
        (h, w), the mean unchanged; zeros for an empty mask.

    Raises:
        ShapeError: `mask` is not (H, W) with at least one pixel, or `grid` has a side below 1.
    """
    if mask.ndim != 2:
        raise ShapeError(f"the mask has shape {mask.shape}, expected (H, W): take the union over instances first.")
    _check_sides(mask.shape, grid)
    rows, columns = (_shares_of_cells(n, m) for n, m in zip(mask.shape, grid, strict=True))
    return np.asarray(rows @ mask.astype(np.float64) @ columns.T)


def _check_sides(size: tuple[int, ...], grid: tuple[int, int]) -> None:
    if min(*size, *grid) < 1:
        raise ShapeError(f"a frame of {size} has no grid of {grid}: every side must be at least 1.")


def _in_cells(points: Floats, size: tuple[int, int], grid: tuple[int, int], *, cut: bool = True) -> Floats:
    """Return (..., 2) xy points of the frame in units of cells."""
    _check_sides(size, grid)
    if not np.isfinite(points).all():
        raise InputError("a corner of an object is not finite: leave the object out.")
    cells = points * np.array([grid[1] / size[1], grid[0] / size[0]])
    return np.asarray(np.clip(cells, 0.0, np.array(grid[::-1])) if cut else cells)


def _crossings(corners: Floats, lines: Floats) -> Floats:
    """Return where a polygon crosses horizontal lines (Y,): (Y, even number) sorted x, inf beyond the last crossing."""
    if len(corners) < 3:
        return np.zeros((len(lines), 0))
    (x1, y1), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    reached = slice(*np.searchsorted(lines, [y1.min(), y1.max()]))
    y = lines[reached, None]
    # Half-open: a line through a corner meets one of its two edges, a horizontal edge meets none.
    meets = (y1 <= y) != (y2 <= y)
    slope = np.divide(x2 - x1, y2 - y1, out=np.zeros_like(x1), where=y1 != y2)
    n_crossings = int(meets.sum(axis=1).max(initial=0))
    crossings = np.full((len(lines), n_crossings), np.inf)
    crossings[reached] = np.sort(np.where(meets, x1 + (y - y1) * slope, np.inf), axis=1)[:, :n_crossings]
    return crossings


def _disjoint(starts: Floats, ends: Floats) -> tuple[Floats, Floats]:
    """Return intervals (Y, P) with the same union on each line of which no two overlap."""
    order = np.argsort(starts, axis=1)
    starts, ends = np.take_along_axis(starts, order, axis=1), np.take_along_axis(ends, order, axis=1)
    reached = np.maximum.accumulate(ends, axis=1)
    starts[:, 1:] = np.maximum(starts[:, 1:], reached[:, :-1])
    return starts, np.maximum(starts, ends)


def _shares_of_cells(n_pixels: int, n_cells: int) -> Floats:
    """Return (cells, pixels): what share of a cell each pixel of a line makes up; rows add up to 1."""
    edges = np.arange(n_cells + 1)[:, None] * (n_pixels / n_cells)
    pixels = np.arange(n_pixels)
    common = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.asarray(np.maximum(common, 0.0) * (n_cells / n_pixels))
