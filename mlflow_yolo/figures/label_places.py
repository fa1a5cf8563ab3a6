"""Where to write the names of points so that they hide neither each other nor the points."""

import numpy as np
import numpy.typing as npt

from mlflow_yolo.figures.seed_range import Floats

_GAPS = (3.0, 10.0, 20.0, 34.0, 50.0, 70.0, 95.0, 125.0)
"""Distances between a point's edge and its name that are tried, the nearest first."""
_ANGLES = np.deg2rad([0, 180, 90, 270, 30, 150, 330, 210, 60, 120, 300, 240])
"""Directions that are tried: beside the point before above and below it, then aslant."""
_LABEL, _POINT, _LINE, _OUTSIDE = 30.0, 12.0, 1.5, 60.0
"""What it costs to cover another name, a point or a line, or to leave the frame, where a unit of distance costs 1."""
_AMBIGUOUS = 25.0
"""What it costs to stand nearer to another point than to the own one."""


def place_labels(
    points: Floats,
    radii: Floats,
    sizes: Floats,
    frame: tuple[float, float, float, float],
    *,
    line: Floats | None = None,
) -> Floats:
    """Return where the names of points go.

    Args:
        points: (N, 2) x, y of the points; y up or down, in any unit, pixels say. Earlier points choose first.
        radii: (N,) radius of each point.
        sizes: (N, 2) width and height of each name.
        frame: x and y of one corner and of the opposite one, lower values first; names stay inside if they can.
        line: (M, 2) places that names should rather not cover, such as samples of a curve.

    Returns:
        (N, 2) centre of each name; empty for no points.
    """
    boxes = np.zeros((0, 4))
    crowd = np.concatenate([points - radii[:, None], points + radii[:, None]], axis=1).reshape(-1, 4)
    dots = np.zeros((0, 2)) if line is None else line
    centres = np.zeros((len(points), 2))
    for i, (point, radius, size) in enumerate(zip(points, radii, sizes, strict=True)):
        options, distance = _options(point, float(radius), size)
        tried = np.concatenate([options - size / 2, options + size / 2], axis=1)
        cost = distance + _LABEL * _overlaps(tried, boxes, margin=1.0) + _POINT * _overlaps(tried, crowd, margin=1.0)
        cost += _LINE * float(size[1]) * _holds(tried, dots) + _OUTSIDE * _outside(tried, frame)
        gaps = _gaps(tried, points) - radii
        cost += _AMBIGUOUS * (np.delete(gaps, i, axis=1).min(axis=1, initial=np.inf) <= gaps[:, i])
        best = int(np.argmin(cost))
        centres[i] = options[best]
        boxes = np.concatenate([boxes, tried[best : best + 1]])
    return centres


def _options(point: Floats, radius: float, size: Floats) -> tuple[Floats, Floats]:
    """Return the centres (K, 2) that are tried for one name, and the distance (K,) of each."""
    gaps, angles = (grid.ravel() for grid in np.meshgrid(_GAPS, _ANGLES, indexing="ij"))
    way = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # The name's box touches the circle of that distance: its centre lies half a box further out, on every side.
    reach = np.clip(way * 3, -1, 1) * size / 2
    return point + way * (radius + gaps)[:, None] + reach, gaps + 0.01 * np.arange(len(gaps))


def _overlaps(tried: Floats, others: Floats, *, margin: float) -> Floats:
    """Return how much area (K,) of each tried box (K, 4) lies on other boxes (M, 4)."""
    low = np.maximum(tried[:, None, :2], others[None, :, :2] - margin)
    high = np.minimum(tried[:, None, 2:], others[None, :, 2:] + margin)
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=2).sum(axis=1))


def _holds(tried: Floats, dots: Floats) -> Floats:
    """Return how many dots (M, 2) lie in each box."""
    inside = (dots[None] >= tried[:, None, :2]) & (dots[None] <= tried[:, None, 2:])
    return np.asarray(inside.all(axis=2).sum(axis=1), dtype=np.float64)


def _gaps(tried: Floats, points: Floats) -> Floats:
    """Return the distance (K, N) from each box to each point."""
    nearest = np.clip(points[None], tried[:, None, :2], tried[:, None, 2:])
    return np.asarray(np.linalg.norm(nearest - points[None], axis=2))


def _outside(tried: Floats, frame: tuple[float, float, float, float]) -> Floats:
    """Return how far each box sticks out of the frame, summed over its sides."""
    corner: npt.NDArray[np.float64] = np.array(frame)
    return np.asarray(
        np.clip(corner[:2] - tried[:, :2], 0, None).sum(1) + np.clip(tried[:, 2:] - corner[2:], 0, None).sum(1)
    )
