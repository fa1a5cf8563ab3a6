"""Does a map lie on its object? Energy inside, pointing game and Attention-IoU, each beside what chance would score.

All three cost no forward pass. Masks are coverages of the map's cells (`masks`). The baselines are exact for a map that
is the same everywhere, on this mask.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mlflow_yolo.attribution.attention_iou import (
    attention_iou,
    centre_baseline,
    effective_fraction,
    lift,
    uniform_baseline,
)
from mlflow_yolo.attribution.masks import Floats
from mlflow_yolo.exceptions import ArgumentError, InputError, ShapeError

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Localisation:
    """How well one map lies on one mask; every number is nan where map or mask is empty or the map is not finite.

    Attributes:
        energy: Share of the map inside the mask, in [0, 1] (energy-based pointing game).
        energy_largest: The largest share any map on this grid can have inside: the largest coverage of a cell, 1 unless
            the object is smaller than a cell.
        pointing: 1 if the map's peak lies on the mask, else 0; between for tied peaks (pointing game).
        pointing_baseline: The chance of a random cell to do so.
        attention_iou: Attention-IoU of map and mask, in [0, 1].
        attention_iou_baseline: That of a uniform map.
        attention_iou_centre: That of a look at the middle of the image, whatever it shows.
        coverage: Area fraction of the mask, the energy a uniform map has inside: the baseline of `energy`.
    """

    energy: float
    energy_largest: float
    pointing: float
    pointing_baseline: float
    attention_iou: float
    attention_iou_baseline: float
    attention_iou_centre: float
    coverage: float

    @property
    def is_measured(self) -> bool:
        """Whether map and mask could be compared."""
        return not np.isnan(self.energy)

    @property
    def energy_ratio(self) -> float:
        """Energy inside over that of a uniform map: 1 by chance."""
        return self.energy / self.coverage

    @property
    def energy_ceiling(self) -> float:
        """The largest `energy_ratio` there can be: 1 / coverage for objects that fill a cell or more."""
        return self.energy_largest / self.coverage


@dataclass(frozen=True)
class LocalisationSummary:
    """Means over maps; nan where none could be measured.

    Attributes:
        n: Maps in the means.
        n_left_out: Maps without values: the map or its mask was empty, or the map not finite.
        energy: Mean share inside the mask.
        coverage: Mean area fraction, the energy of uniform maps.
        energy_ratio: `energy` / `coverage`. A ratio of means: a mean of ratios would be that of the smallest objects.
        energy_ceiling: The largest `energy_ratio` these masks allow. Large for single instances; for the map of a class
            that fills the image, hardly above 1, however good the map.
        pointing: Mean of the pointing game.
        pointing_baseline: Its chance level.
        attention_iou: Mean Attention-IoU.
        attention_iou_baseline: Its chance level.
        attention_iou_centre: That of a look at the middle of the image.
        attention_iou_lift: (score - baseline) / (1 - baseline) of the two means.
    """

    n: int
    n_left_out: int
    energy: float
    coverage: float
    energy_ratio: float
    energy_ceiling: float
    pointing: float
    pointing_baseline: float
    attention_iou: float
    attention_iou_baseline: float
    attention_iou_centre: float
    attention_iou_lift: float


def energy_inside(map: npt.NDArray[Any], mask: npt.NDArray[Any]) -> float:
    """Return sum(map x mask) / sum(map), the share of the map inside the mask, in [0, 1].

    Args:
        map: (h, w), >= 0, any scale.
        mask: (h, w) coverage, in [0, 1].

    Returns:
        nan for a map that is zero everywhere or not finite, and for an empty mask. A uniform map gives the mask's mean.

    Raises:
        ShapeError: The shapes differ or are not (h, w).
        InputError: A negative value in the map, or a coverage outside [0, 1].

    Source: Wang et al., "Score-CAM", CVPR Workshops 2020, section 4.3.
    """
    map, mask = _check(map, mask)
    if not _is_comparable(map, mask):
        return float("nan")
    scaled = map / map.max()
    return min(float((scaled * mask).sum() / scaled.sum()), 1.0)


def points_inside(map: npt.NDArray[Any], mask: npt.NDArray[Any], *, tolerance: float = 0.0) -> float:
    """Return whether the map's largest cell lies on the object: 1 or 0, the mean over cells that tie for the largest.

    A cell lies on the object where that covers half of it; of an object that covers no cell by half, it is the cells
    that it covers most.

    Args:
        map: (h, w), >= 0.
        mask: (h, w) coverage, in [0, 1].
        tolerance: How far from the object still counts, cells between centres (the paper's 15 pixels at stride 8: 1.9).

    Returns:
        In [0, 1]; nan as in `energy_inside`. A uniform map gives the chance of a random cell.

    Raises:
        ShapeError: The shapes differ or are not (h, w).
        InputError: A negative value in the map, or a coverage outside [0, 1].
        ArgumentError: A negative tolerance.

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", IJCV 2018, section 4.2.
    """
    map, mask = _check(map, mask)
    if not _is_comparable(map, mask):
        return float("nan")
    return float(_hits(mask, tolerance)[map == map.max()].mean())


def localise(map: npt.NDArray[Any], mask: npt.NDArray[Any], *, tolerance: float = 0.0) -> Localisation:
    """Return all measures of one map on one mask, with their baselines.

    Args:
        map: (h, w), >= 0, any scale.
        mask: (h, w) coverage, in [0, 1].
        tolerance: As in `points_inside`.

    Raises:
        ShapeError: The shapes differ or are not (h, w).
        InputError: A negative value in the map, or a coverage outside [0, 1].
        ArgumentError: A negative tolerance.
    """
    map, mask = _check(map, mask)
    if not _is_comparable(map, mask):
        return Localisation(*[float("nan")] * 8)
    return Localisation(
        energy=energy_inside(map, mask),
        energy_largest=float(mask.max()),
        pointing=points_inside(map, mask, tolerance=tolerance),
        pointing_baseline=float(_hits(mask, tolerance).mean()),
        attention_iou=float(attention_iou(map[None], mask[None])[0]),
        attention_iou_baseline=float(uniform_baseline(effective_fraction(mask))),
        attention_iou_centre=float(centre_baseline(mask[None])[0]),
        coverage=float(mask.mean()),
    )


def summarise(localisations: Iterable[Localisation]) -> LocalisationSummary:
    """Return the means over the maps that could be measured, and how many could not."""
    every = list(localisations)
    kept = [one for one in every if one.is_measured]

    def mean(name: str) -> float:
        return float(np.mean([getattr(one, name) for one in kept])) if kept else float("nan")

    score, baseline, coverage = mean("attention_iou"), mean("attention_iou_baseline"), mean("coverage")
    return LocalisationSummary(
        n=len(kept),
        n_left_out=len(every) - len(kept),
        energy=mean("energy"),
        coverage=coverage,
        energy_ratio=mean("energy") / coverage,
        energy_ceiling=mean("energy_largest") / coverage,
        pointing=mean("pointing"),
        pointing_baseline=mean("pointing_baseline"),
        attention_iou=score,
        attention_iou_baseline=baseline,
        attention_iou_centre=mean("attention_iou_centre"),
        attention_iou_lift=float(lift(score, baseline)),
    )


def _check(map: npt.NDArray[Any], mask: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    map, mask = np.asarray(map, dtype=np.float64), np.asarray(mask, dtype=np.float64)
    if map.ndim != 2 or map.shape != mask.shape or not map.size:
        raise ShapeError(f"a map of shape {map.shape} and a mask of {mask.shape}: both must be (h, w), the same grid.")
    if (map < 0).any():
        raise InputError(
            f"the map has the negative value {np.nanmin(map):g}: rectify a signed map (np.maximum(map, 0))."
        )
    if not ((mask >= 0) & (mask <= 1)).all():
        raise InputError(f"the mask has values from {mask.min():g} to {mask.max():g}: pass coverages from 0 to 1.")
    return map, mask


def _is_comparable(map: Floats, mask: Floats) -> bool:
    return bool(np.isfinite(map).all() and map.any() and mask.any())


def _hits(mask: Floats, tolerance: float) -> Bools:
    """Return the cells on the object, or within the tolerance of it."""
    if not tolerance >= 0:
        raise ArgumentError(f"tolerance={tolerance:g} is no distance: pass 0 or more cells.")
    on_object = mask >= min(0.5, float(mask.max()))
    if not tolerance:
        return np.asarray(on_object)
    return np.asarray(ndimage.distance_transform_edt(~on_object) <= tolerance)
