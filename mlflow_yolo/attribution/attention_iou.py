"""Attention-IoU: how alike two maps are, or a map and a mask, whatever their scale; and what chance would score.

A(P, Q) = sum(P' Q') / sum(((P' + Q') / 2)^2), P' and Q' being divided by their sums, lies in [0, 1]. With inner
products it is 4 <P', Q'> / (|P'|^2 + |Q'|^2 + 2 <P', Q'>). For two binary masks with intersection over union I it is
4 I / (1 + 3 I). It is not corrected for chance: a map without any information scores high on a large object, so a
score is reported beside its baseline, and as `lift`.

Source: Serianni et al., "Attention IoU: Examining Biases in CelebA using Attention Maps", CVPR 2025; algebra ours.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.attribution.masks import Floats
from mlflow_yolo.exceptions import ArgumentError, InputError, ShapeError


def attention_iou(maps: npt.NDArray[Any], masks: npt.NDArray[Any]) -> Floats:
    """Return A(P, Q) of map i and mask (or second map) i.

    Args:
        maps: (B, h, w), >= 0, any scale.
        masks: (B, h, w), >= 0, any scale: coverage (the mask score), or maps of another target (the heat-map score).

    Returns:
        (B,) in [0, 1]: 1 for proportional ones, 0 for disjoint ones; nan where either is zero everywhere or not finite,
        to be left out and counted, never averaged as 0. Empty for B = 0.

    Raises:
        ShapeError: The shapes differ or are not (B, h, w).
        InputError: A negative value: rectify signed maps first.
    """
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ShapeError(f"maps of shape {maps.shape} and {masks.shape} are no pairs: both must be (B, h, w).")
    p, q = _shares(maps), _shares(masks)
    shared = np.einsum("bi,bi->b", p, q)
    return _score(shared, _concentration(p), _concentration(q))


def pairwise(maps: npt.NDArray[Any]) -> Floats:
    """Return A of every map with every other of the same image, by one matrix product.

    Args:
        maps: (..., K, h, w), >= 0: K maps an image, one a class.

    Returns:
        (..., K, K) in [0, 1], symmetric, 1 on the diagonal; nan in the rows and columns of maps that are zero
        everywhere or not finite.

    Raises:
        ShapeError: `maps` has fewer than three dimensions.
        InputError: A negative value.
    """
    maps = np.asarray(maps)
    if maps.ndim < 3:
        raise ShapeError(f"maps have shape {maps.shape}, expected (..., K, h, w): stack the maps of an image.")
    p = _shares(maps)
    shared = p @ np.swapaxes(p, -1, -2)
    own = np.diagonal(shared, axis1=-2, axis2=-1)
    return _score(shared, own[..., :, None], own[..., None, :])


def effective_fraction(maps: npt.NDArray[Any]) -> Floats:
    """Return on what fraction of the grid each map or mask lies: (sum P)^2 / (n_cells sum P^2).

    The area fraction of a binary mask. Of a mask of coverages it is the fraction that makes `uniform_baseline` exact:
    an object within one cell has the effective fraction of that cell.

    Args:
        maps: (..., h, w), >= 0.

    Returns:
        (...,) in (0, 1]; nan for one that is zero everywhere or not finite.

    Raises:
        ShapeError: `maps` has fewer than two dimensions.
        InputError: A negative value.
    """
    p = _shares(np.asarray(maps))
    return np.asarray(1.0 / (p.shape[-1] * _concentration(p)))


def uniform_baseline(fraction: npt.ArrayLike) -> Floats:
    """Return A of a map that is the same everywhere and a mask with this (effective) area fraction f: 4 f / (1 + 3 f).

    Args:
        fraction: In [0, 1], any shape.

    Raises:
        InputError: A fraction outside [0, 1].
    """
    f = np.asarray(fraction, dtype=np.float64)
    if ((f < 0) | (f > 1)).any():
        raise InputError(f"fraction={f.min():g} to {f.max():g} is no area fraction: pass values from 0 to 1.")
    return np.asarray(4.0 * f / (1.0 + 3.0 * f))


def centre_gaussian(grid: tuple[int, int], *, sigma: float = 0.25) -> Floats:
    """Return a map that looks at the middle whatever the image shows, (h, w) in (0, 1].

    Args:
        grid: Rows and columns of the map.
        sigma: Standard deviation as a fraction of the height, and of the width.

    Raises:
        ArgumentError: `sigma` is not positive.
    """
    if not sigma > 0:
        raise ArgumentError(f"sigma={sigma:g} is no width: pass a positive fraction of the side.")
    vertical, horizontal = (np.exp(-0.5 * (((np.arange(n) + 0.5) / n - 0.5) / sigma) ** 2) for n in grid)
    return np.asarray(np.outer(vertical, horizontal))


def centre_baseline(masks: npt.NDArray[Any], *, sigma: float = 0.25) -> Floats:
    """Return A of `centre_gaussian` and each mask: what a look at the middle scores, because objects are often there.

    Args:
        masks: (B, h, w), >= 0.
        sigma: As in `centre_gaussian`.

    Returns:
        (B,) in [0, 1]; nan for an empty mask.

    Raises:
        ShapeError: `masks` is not (B, h, w).
        InputError: A negative value.
        ArgumentError: `sigma` is not positive.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise ShapeError(f"masks have shape {masks.shape}, expected (B, h, w): stack them.")
    rows, columns = masks.shape[1:]
    return attention_iou(np.broadcast_to(centre_gaussian((rows, columns), sigma=sigma), masks.shape), masks)


def lift(score: npt.ArrayLike, baseline: npt.ArrayLike) -> Floats:
    """Return (score - baseline) / (1 - baseline): 0 at the baseline, 1 at a perfect score, negative below the baseline.

    Args:
        score: Any shape.
        baseline: Broadcastable to `score`.

    Returns:
        The common shape; nan where the baseline is 1, which leaves nothing to gain (an object that fills the image).
    """
    score, baseline = np.asarray(score, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    room = 1.0 - baseline
    gain = score - baseline
    return np.asarray(
        np.divide(gain, room, out=np.full(np.shape(gain), np.nan), where=np.broadcast_to(room > 0, gain.shape))
    )


def _shares(maps: npt.NDArray[Any]) -> Floats:
    """Return (..., h, w) maps flattened and divided by their sums, (..., h w); nan rows where that is undefined."""
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise ShapeError(f"maps have shape {maps.shape}, expected (..., h, w) with at least one cell.")
    flat = maps.reshape(*maps.shape[:-2], maps.shape[-2] * maps.shape[-1]).astype(np.float64)
    if (flat < 0).any():
        raise InputError(f"a map has the negative value {np.nanmin(flat):g}: rectify signed maps (np.maximum(map, 0)).")
    # By the largest value first: the sum of a very large or very small map need not be a number.
    largest = flat.max(axis=-1, keepdims=True)
    flat = np.divide(flat, largest, out=np.full(flat.shape, np.nan), where=(largest > 0) & np.isfinite(largest))
    return np.asarray(flat / flat.sum(axis=-1, keepdims=True))


def _concentration(shares: Floats) -> Floats:
    return np.asarray(np.einsum("...i,...i->...", shares, shares))


def _score(shared: Floats, p: Floats, q: Floats) -> Floats:
    return np.asarray(4.0 * shared / (p + q + 2.0 * shared))
