"""Paired bootstrap over test images: is one configuration better than the baseline on images like these?

Each resample draws as many images as there are, with replacement, the same ones for every configuration and training
seed. What it measures is the uncertainty that comes from the choice of test images; that of training is in the seeds
(`statistics.comparison`), and the two are reported apart.

A resample is a vector of image weights. Average precision of a weighted set needs no new matching and no sorting: only
the weights are summed up along the detections, which were sorted once. It equals COCO's AP of a data set in which each
image is repeated as often as its weight says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mlflow_yolo.detection.average_precision import average_precision
from mlflow_yolo.detection.boxes import Bools, Floats, Ints
from mlflow_yolo.detection.evaluation import MAX_DETECTIONS
from mlflow_yolo.detection.matching import AREAS, IOU_THRESHOLDS, Matches, match
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import ArgumentError, InputError, ShapeError

METRICS = {"mAP50-95": slice(0, len(IOU_THRESHOLDS)), "mAP50": slice(0, 1)}
"""The metrics of `bootstrap_map`: which IoU thresholds they average."""

_RESAMPLES_AT_ONCE = 100
"""Bounds the memory: the largest array is detections right at some threshold x this, of one class."""


@dataclass(frozen=True)
class Difference:
    """How far a configuration lies from the baseline on the same images.

    Attributes:
        difference: Configuration minus baseline, each the mean over its training seeds; on the images as they are.
        low: Lower end of the 95 % percentile interval.
        high: Upper end.
        p: Two-sided p value, at least 2 / (n_resamples + 1); 1 for two configurations that do not differ at all.
        n_images: Images.
        n_resamples: Resamples behind interval and p.
    """

    difference: float
    low: float
    high: float
    p: float
    n_images: int
    n_resamples: int


def bootstrap_map(
    groups: Mapping[str, Sequence[Sequence[Sample]]],
    *,
    baseline: str,
    n_classes: int,
    metric: str = "mAP50-95",
    max_det: int = MAX_DETECTIONS,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Return each configuration's difference in mean average precision to the baseline.

    Args:
        groups: For each configuration the samples of each training seed; the same images in the same order everywhere.
        baseline: The configuration to compare with.
        n_classes: Number of classes.
        metric: `mAP50-95` or `mAP50`.
        max_det: As in `evaluate`.
        n_resamples: Bootstrap resamples; resamples without any object are left out.
        seed: Of the random draws.

    Returns:
        By configuration, in the order of `groups`, without the baseline.

    Raises:
        InputError: No baseline, a configuration without samples, no images, no ground truth, or images that differ.
        ArgumentError: An unknown metric, less than one resample, or a class id that does not exist.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13 (percentile interval); the p value
    inverts that interval.
    """
    if metric not in METRICS:
        raise ArgumentError(f"metric={metric!r} is not known: use one of {', '.join(METRICS)}.")
    _check_groups(groups, baseline)
    _check_images(groups)
    if not any(len(sample.gt_boxes) for sample in groups[baseline][0]):
        raise InputError("no image has ground truth, so there is no average precision to compare: label the images.")

    def measure(samples: Sequence[Sample]) -> Callable[[Floats], Floats]:
        curves = _Curves.of(samples, n_classes=n_classes, max_det=max_det, thresholds=METRICS[metric])
        return curves.mean_average_precision

    return _differences(groups, measure, baseline=baseline, n_resamples=n_resamples, seed=seed)


def bootstrap_mean(
    groups: Mapping[str, Sequence[npt.NDArray[Any]]], *, baseline: str, n_resamples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """Return each configuration's difference to the baseline in the mean of a value per image.

    For classification the value is 1 where the image was named right, else 0, and the mean is top-1 accuracy.

    Args:
        groups: For each configuration one array (I,) per training seed; the same images in the same order everywhere.
        baseline: The configuration to compare with.
        n_resamples: Bootstrap resamples.
        seed: Of the random draws.

    Returns:
        By configuration, in the order of `groups`, without the baseline.

    Raises:
        InputError: No baseline, a configuration without values, or no images.
        ShapeError: The arrays differ in shape or are not (I,).
        ArgumentError: Less than one resample.
    """
    _check_groups(groups, baseline)
    expected = np.shape(groups[baseline][0])
    for name, children in groups.items():
        for values in children:
            if values.ndim != 1 or values.shape != expected:
                raise ShapeError(f"{name!r} has values of shape {values.shape}, expected {expected}: one per image.")

    def measure(values: npt.NDArray[Any]) -> Callable[[Floats], Floats]:
        return lambda weights: np.asarray(values @ weights / len(values))

    return _differences(groups, measure, baseline=baseline, n_resamples=n_resamples, seed=seed)


def _differences(
    groups: Mapping[str, Sequence[Any]],
    measure: Callable[[Any], Callable[[Floats], Floats]],
    *,
    baseline: str,
    n_resamples: int,
    seed: int,
) -> dict[str, Difference]:
    """Return the differences, where `measure(child)` maps weights (I, B) to the child's metric (B,)."""
    if n_resamples < 1:
        raise ArgumentError(f"n_resamples={n_resamples} is too few: use 1000.")
    n_images = len(groups[baseline][0])
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_images, np.full(n_images, 1.0 / n_images), size=n_resamples)
    # The first column is the data set as it is.
    weights = np.ones((n_images, n_resamples + 1))
    weights[:, 1:] = counts.T
    means = {
        name: np.mean([measure(child)(weights) for child in children], axis=0) for name, children in groups.items()
    }
    return {name: _summary(means[name] - means[baseline], n_images) for name in groups if name != baseline}


def _summary(differences: Floats, n_images: int) -> Difference:
    """Return the summary of (1 + B,) differences, the first of which is the observed one."""
    drawn = differences[1:][~np.isnan(differences[1:])]
    n = len(drawn)
    if not n:
        raise InputError(f"none of {n_images} resampled images has ground truth: use more images or resamples.")
    low, high = np.percentile(drawn, [2.5, 97.5])
    rarer = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    return Difference(
        difference=float(differences[0]),
        low=float(low),
        high=float(high),
        p=min(1.0, 2 * (1 + rarer) / (n + 1)),
        n_images=n_images,
        n_resamples=n,
    )


@dataclass(frozen=True, eq=False)
class _ClassCurve:
    """The sorted detections of one class, reduced to what its precision-recall curves need.

    Attributes:
        image: (R,) image of each detection that is right at some threshold, in the order of the scores.
        right: (R, T) at which threshold.
        n_between: (R, I) detections of each image between the previous of them, exclusive, and it, inclusive.
        n_objects: (I,) objects of each image.
    """

    image: Ints
    right: Bools
    n_between: sparse.csr_array
    n_objects: Floats

    def average_precision(self, weights: Floats) -> Floats:
        """Return (B, T); nan where the weighted images hold no object of the class."""
        n_objects = self.n_objects @ weights
        seen = np.cumsum(self.n_between @ weights, axis=0)
        columns = []
        for right in self.right.T:
            tp = np.cumsum(weights[self.image[right]], axis=0)
            columns.append(average_precision(tp, seen[right], n_objects))
        return np.stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class _Curves:
    """One child's curves of all classes that have ground truth."""

    classes: Sequence[_ClassCurve]

    @classmethod
    def of(cls, samples: Sequence[Sample], *, n_classes: int, max_det: int, thresholds: slice) -> "_Curves":
        matches = match(samples, n_classes=n_classes, max_det=max_det, area_ranges={"all": AREAS["all"]})
        return cls(list(_class_curves(matches, thresholds)))

    def mean_average_precision(self, weights: Floats) -> Floats:
        """Return the mean over classes and thresholds (B,) for image weights (I, B); nan without any object."""
        blocks = np.split(weights, range(_RESAMPLES_AT_ONCE, weights.shape[1], _RESAMPLES_AT_ONCE), axis=1)
        return np.concatenate([self._of_block(np.ascontiguousarray(block)) for block in blocks])

    def _of_block(self, weights: Floats) -> Floats:
        ap = np.stack([curve.average_precision(weights) for curve in self.classes])
        present = ~np.isnan(ap[:, :, 0])
        n_present = present.sum(axis=0)
        total = np.where(present, ap.mean(axis=2), 0.0).sum(axis=0)
        return np.asarray(np.divide(total, n_present, out=np.full(len(total), np.nan), where=n_present > 0))


def _class_curves(matches: Matches, thresholds: slice) -> Iterator[_ClassCurve]:
    for class_id, where in enumerate(matches.slices()):
        of_class = matches.gt_image[matches.gt_class == class_id]
        if not len(of_class):
            continue
        image, right = matches.image[where], matches.tp[0, where, thresholds]
        rows = np.flatnonzero(right.any(axis=1))
        following = np.searchsorted(rows, np.arange(len(image)))
        needed = following < len(rows)  # what comes after the last right one changes no curve
        pairs = (following[needed], image[needed])
        shape = (len(rows), matches.n_images)
        yield _ClassCurve(
            image=image[rows],
            right=right[rows],
            n_between=sparse.csr_array((np.ones(int(needed.sum())), pairs), shape=shape),
            n_objects=np.bincount(of_class, minlength=matches.n_images).astype(np.float64),
        )


def _check_groups(groups: Mapping[str, Sequence[Any]], baseline: str) -> None:
    if baseline not in groups:
        raise InputError(f"baseline {baseline!r} is not among the configurations: use one of {', '.join(groups)}.")
    for name, children in groups.items():
        if not len(children):
            raise InputError(f"configuration {name!r} has no training seed: leave it out or train it.")
        if not len(children[0]):
            raise InputError(f"configuration {name!r} has no images: measure a split that has some.")


def _check_images(groups: Mapping[str, Sequence[Sequence[Sample]]]) -> None:
    """Raise unless every child saw the same images, with the same ground truth, in the same order."""
    first_name, children = next(iter(groups.items()))
    expected = children[0]
    for name, children in groups.items():
        for samples in children:
            if len(samples) != len(expected):
                raise InputError(
                    f"{name!r} has {len(samples)} images and {first_name!r} {len(expected)}: measure the same split."
                )
            for ours, theirs in zip(samples, expected, strict=True):
                if ours.image != theirs.image or not np.array_equal(ours.gt_classes, theirs.gt_classes):
                    raise InputError(
                        f"{name!r} has {ours.image!r} where {first_name!r} has {theirs.image!r}, or other labels: "
                        "measure the same split in the same order."
                    )
