"""The outline of a mask as a polygon along its pixel edges."""

import numpy as np
from numpy.typing import NDArray

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # east, south, west, north, as (x, y) with y down


def fill_diagonals(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask in which no two pixels touch at a corner only: one pixel is added to each such pair.

    Without such pairs the outline of `trace_outline` never passes a point twice.
    """
    filled = mask.copy()
    while True:
        a, b, c, d = filled[:-1, :-1], filled[:-1, 1:], filled[1:, :-1], filled[1:, 1:]
        falling, rising = a & d & ~b & ~c, b & c & ~a & ~d
        if not (falling.any() or rising.any()):
            return filled
        filled[:-1, 1:] |= falling
        filled[:-1, :-1] |= rising


def trace_outline(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the outer outline of the first pixel region of a mask, (N, 2) xy corners in pixels, clockwise.

    The polygon encloses exactly the pixels of the region and its holes: pixel (row, column) is the square from
    (column, row) to (column + 1, row + 1). Regions are connected by edges; the first is the one whose top row comes
    first. Only corners are listed. An empty mask gives (0, 2).

    Source: crack following (A. Rosenfeld, A. C. Kak, "Digital Picture Processing", 1982, section 11.2); code ours.
    """
    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded)
    if not len(rows):
        return np.zeros((0, 2), np.int64)
    start = (int(columns[0]), int(rows[0]))
    (x, y), heading, corners = start, 0, [start]
    while True:
        x, y = x + _STEPS[heading][0], y + _STEPS[heading][1]
        if (x, y) == start:
            return np.array(corners, np.int64) - 1
        turn = _turn(padded, x, y, heading)
        if turn:
            corners.append((x, y))
        heading = (heading + turn) % 4


def _turn(padded: NDArray[np.bool_], x: int, y: int, heading: int) -> int:
    """Return -1, 0 or 1 (left, straight, right) so that the region stays on the right hand."""
    (dx, dy), (rx, ry) = _STEPS[heading], _STEPS[(heading + 1) % 4]
    ahead_right = padded[y + (dy + ry - 1) // 2, x + (dx + rx - 1) // 2]
    ahead_left = padded[y + (dy - ry - 1) // 2, x + (dx - rx - 1) // 2]
    if not ahead_right:
        return 1
    return -1 if ahead_left else 0
