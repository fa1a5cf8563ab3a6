"""Tables of how far a model looks at its objects: per class, size and outcome, per confused pair, per co-occurrence.

Every row has the mean score, the mean of its baseline (what a map without information scores on the same masks), the
lift (score - baseline) / (1 - baseline) of the two means, and 95 % intervals of score and lift from a bootstrap over
images. Cases whose map or mask is empty have the score nan: they are left out and counted.

The tables do not care which score it is, as long as 1 is the best there is: the mask score is
`attention_iou(maps, masks)` with `uniform_baseline(effective_fraction(masks))`, the heat-map score of two targets is
`attention_iou(maps, others)` with `heat_map_baseline(maps, others)`, energy inside goes with the mask's coverage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.attribution.attention_iou import effective_fraction, lift, uniform_baseline
from mlflow_yolo.attribution.cluster_bootstrap import LEAST_CLUSTERS, cluster_interval
from mlflow_yolo.attribution.masks import Floats
from mlflow_yolo.exceptions import ArgumentError, ShapeError

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

SIZES = ("small", "medium", "large")
OUTCOMES = ("TP", "FP", "FN")
ALL = "all"


@dataclass(frozen=True)
class Case:
    """One map and its own mask.

    Attributes:
        image: Name of the image; cases of one image are resampled together.
        class_id: Class that the map explains.
        size: Of the object (of the detection, for a FP): one of `SIZES`.
        outcome: One of `OUTCOMES`.
        score: In [0, 1]; nan where map or mask is empty.
        baseline: What a map without information scores on this mask; nan where the mask is empty.
    """

    image: str
    class_id: int
    size: str
    outcome: str
    score: float
    baseline: float


@dataclass(frozen=True)
class PairCase:
    """One map and what belongs to another class: its map at the same anchor, or its mask in the same image.

    Attributes:
        image: Name of the image.
        class_id: Class that the map explains; the true class of a confused pair.
        other_id: The other class: the predicted one, or the one whose mask it is.
        score: In [0, 1]; nan where either is empty.
        baseline: What a map without information scores.
    """

    image: str
    class_id: int
    other_id: int
    score: float
    baseline: float


def coco_sizes(areas: npt.NDArray[Any]) -> list[str]:
    """Return small (below 32^2), medium or large (from 96^2) for areas (N,) in square pixels of the original image."""
    return [SIZES[i] for i in np.digitize(areas, [32.0**2, 96.0**2])]


def heat_map_baseline(maps: npt.NDArray[Any], others: npt.NDArray[Any]) -> Floats:
    """Return what maps would score against each other if either were uniform: the mean of the two cases.

    Args:
        maps: (B, h, w), >= 0.
        others: (B, h, w), >= 0, maps of another target.

    Returns:
        (B,) in (0, 1]; nan where either is zero everywhere or not finite.

    Raises:
        ShapeError: The shapes differ.
        InputError: A negative value.

    Source: ours.
    """
    if np.shape(maps) != np.shape(others):
        raise ShapeError(f"maps of shape {np.shape(maps)} and {np.shape(others)} are no pairs: pass as many of each.")
    fractions = np.stack([effective_fraction(maps), effective_fraction(others)])
    return np.asarray(uniform_baseline(fractions).mean(axis=0))


def bias_table(cases: Sequence[Case], names: Sequence[str], *, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return one row for each class, size and outcome there is, and for all classes, all sizes, all outcomes.

    Args:
        cases: The cases, in any order.
        names: Names of the classes, by class id.
        n_resamples: Bootstrap resamples.
        seed: Of the draws.

    Returns:
        Columns `class_id` (missing in rows of all classes), `class`, `size`, `outcome`, then those of every table:
        `n` (cases in the means), `n_left_out`, `n_images`, `score`, `score_low`, `score_high`, `baseline`, `lift`,
        `lift_low`, `lift_high`. Numbers are nan where there is nothing to average, intervals also below ten images.
        No rows for no cases.

    Raises:
        ArgumentError: A class id without a name, an unknown size or outcome, or less than one resample.
    """
    for case in cases:
        if case.size not in SIZES or case.outcome not in OUTCOMES:
            raise ArgumentError(
                f"size={case.size!r}, outcome={case.outcome!r} in {case.image!r}: use {SIZES} and {OUTCOMES}."
            )
    columns = _Columns.of(cases, names, _numbered(cases))
    sizes, outcomes = (np.array([getattr(case, name) for case in cases], dtype=str) for name in ("size", "outcome"))
    rows = []
    for class_id, of_class in _present(columns.class_id, range(len(names)), whole=None):
        for size, of_size in _present(sizes, SIZES, within=of_class):
            for outcome, of_outcome in _present(outcomes, OUTCOMES, within=of_size):
                key = {"class_id": class_id, "class": ALL if class_id is None else names[class_id]}
                row = columns.summary(of_outcome, n_resamples=n_resamples, seed=seed)
                rows.append({**key, "size": size, "outcome": outcome, **row})
    return _frame(rows, ["class_id", "class", "size", "outcome"])


def pair_table(
    cases: Sequence[PairCase], names: Sequence[str], *, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return one row for each confused pair, the most frequent first: do both classes rest on the same evidence?

    Args:
        cases: Heat-map scores of the true and the predicted class at the same anchors, one a confusion.
        names: Names of the classes, by class id.
        n_resamples: Bootstrap resamples.
        seed: Of the draws.

    Returns:
        Columns `class_id`, `class`, `other_id`, `other`, then those of every table (see `bias_table`).

    Raises:
        ArgumentError: A class id without a name, or less than one resample.
    """
    columns = _Columns.of(cases, names, _numbered(cases))
    others = _other_ids(cases, names)
    rows = [
        {**_pair(names, pair), **columns.summary(where, n_resamples=n_resamples, seed=seed)}
        for pair, where in _pairs(columns.class_id, others)
    ]
    rows.sort(key=lambda row: (-row["n"] - row["n_left_out"], row["class_id"], row["other_id"]))
    return _frame(rows, ["class_id", "class", "other_id", "other"])


def co_occurrence_table(
    cases: Sequence[PairCase],
    names: Sequence[str],
    *,
    own: Sequence[Case] = (),
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row for each ordered pair of classes that share images: how far class a looks at class b.

    A lift above 0 says that the maps of a lie on b more than maps without information would. Where objects overlap,
    let the masks of b leave out what a covers (see `masks`), or attention on the object itself counts as on b.

    Args:
        cases: Score of the map of a (`class_id`) on the mask of b (`other_id`), for the images that hold both.
        names: Names of the classes, by class id.
        own: The mask scores of the classes on their own objects. With them, the table says whether a is looked at less
            where b is around.
        n_resamples: Bootstrap resamples.
        seed: Of the draws.

    Returns:
        Columns `class_id`, `class`, `other_id`, `other`, then those of every table (see `bias_table`); the largest lift
        first. With `own` also `own_with` and `own_without`, the mean score of a on its own objects in images with and
        without b, `own_difference` (with - without) and its interval `own_low`, `own_high`.

    Raises:
        ArgumentError: A class id without a name, a class paired with itself, or less than one resample.
    """
    images = _numbered([*cases, *own])
    columns = _Columns.of(cases, names, images)
    others = _other_ids(cases, names)
    if (columns.class_id == others).any():
        raise ArgumentError("a case pairs a class with itself: its own objects belong into `own`.")
    of_own = _Columns.of(own, names, images)
    rows = []
    for pair, where in _pairs(columns.class_id, others):
        row = {**_pair(names, pair), **columns.summary(where, n_resamples=n_resamples, seed=seed)}
        if len(own):
            mine = of_own.class_id == pair[0]
            with_other = np.isin(of_own.image, columns.image[where])
            row |= of_own.difference(mine, with_other, n_resamples=n_resamples, seed=seed)
        rows.append(row)
    rows.sort(key=lambda row: (np.isnan(row["lift"]), -row["lift"], row["class_id"], row["other_id"]))
    extra = ["own_with", "own_without", "own_difference", "own_low", "own_high"] if len(own) else []
    return _frame(rows, ["class_id", "class", "other_id", "other"], extra)


_MEASURES = [
    *("n", "n_left_out", "n_images", "score", "score_low", "score_high"),
    *("baseline", "lift", "lift_low", "lift_high"),
]


@dataclass(frozen=True, eq=False)
class _Columns:
    """Cases as arrays (N,); images by number, as comparing names is slow."""

    image: Ints
    class_id: Ints
    score: Floats
    baseline: Floats

    @classmethod
    def of(cls, cases: Sequence[Case] | Sequence[PairCase], names: Sequence[str], images: dict[str, int]) -> "_Columns":
        class_id = np.array([case.class_id for case in cases], dtype=np.int64)
        _check_ids(class_id, names)
        return cls(
            image=np.array([images[case.image] for case in cases], dtype=np.int64),
            class_id=class_id,
            score=np.array([case.score for case in cases], dtype=np.float64),
            baseline=np.array([case.baseline for case in cases], dtype=np.float64),
        )

    @property
    def is_measured(self) -> Bools:
        return np.isfinite(self.score) & np.isfinite(self.baseline)

    def summary(self, where: Bools, *, n_resamples: int, seed: int) -> dict[str, Any]:
        """Return the measures of the cases chosen."""
        kept = where & self.is_measured
        n = int(kept.sum())
        values = np.stack([self.score[kept], self.baseline[kept], np.ones(n)], axis=1)
        found = _score_and_lift(values.sum(axis=0, keepdims=True))[0]
        (score, lifted) = cluster_interval(
            self.image[kept], values, _score_and_lift, n_resamples=n_resamples, seed=seed
        )
        return {
            "n": n,
            "n_left_out": int(where.sum()) - n,
            "n_images": len(np.unique(self.image[kept])),
            "score": found[0],
            "score_low": score[0],
            "score_high": score[1],
            "baseline": self.baseline[kept].mean() if n else np.nan,
            "lift": found[1],
            "lift_low": lifted[0],
            "lift_high": lifted[1],
        }

    def difference(self, where: Bools, is_first: Bools, *, n_resamples: int, seed: int) -> dict[str, Any]:
        """Return the mean score of the cases chosen that are first, of the others, and their difference."""
        kept = where & self.is_measured
        score, first = self.score[kept], is_first[kept].astype(np.float64)
        values = np.stack([score * first, first, score * (1 - first), 1 - first], axis=1)
        sums = values.sum(axis=0, keepdims=True)
        low = high = np.nan
        if min(len(np.unique(self.image[kept & side])) for side in (is_first, ~is_first)) >= LEAST_CLUSTERS:
            resampling = {"n_resamples": n_resamples, "seed": seed}
            ((low, high),) = cluster_interval(self.image[kept], values, _difference_of_means, **resampling)
        return {
            "own_with": float(_ratio(sums[:, 0], sums[:, 1])[0]),
            "own_without": float(_ratio(sums[:, 2], sums[:, 3])[0]),
            "own_difference": float(_difference_of_means(sums)[0, 0]),
            "own_low": low,
            "own_high": high,
        }


def _ratio(total: Floats, n: Floats) -> Floats:
    return np.asarray(np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0))


def _score_and_lift(sums: Floats) -> Floats:
    """Return (R, 2) from sums of score, baseline and number (R, 3)."""
    score, baseline = _ratio(sums[:, 0], sums[:, 2]), _ratio(sums[:, 1], sums[:, 2])
    return np.stack([score, lift(score, baseline)], axis=1)


def _difference_of_means(sums: Floats) -> Floats:
    """Return (R, 1) from total and number of the one and of the other (R, 4)."""
    return (_ratio(sums[:, 0], sums[:, 1]) - _ratio(sums[:, 2], sums[:, 3]))[:, None]


def _present(
    values: npt.NDArray[Any], every: Sequence[Any], *, whole: Any = ALL, within: Bools | None = None
) -> Iterator[tuple[Any, Bools]]:
    """Yield the whole and each value there is, in the given order, with the cases that have it."""
    inside = np.ones(len(values), dtype=np.bool_) if within is None else within
    if inside.any():
        yield whole, inside
    for value in every:
        where = inside & (values == value)
        if where.any():
            yield value, where


def _pairs(first: Ints, second: Ints) -> Iterator[tuple[tuple[int, int], Bools]]:
    pairs, group = np.unique(np.stack([first, second], axis=1), axis=0, return_inverse=True)
    for index, (a, b) in enumerate(pairs):
        yield (int(a), int(b)), np.asarray(group.reshape(-1) == index)


def _pair(names: Sequence[str], pair: tuple[int, int]) -> dict[str, Any]:
    return {"class_id": pair[0], "class": names[pair[0]], "other_id": pair[1], "other": names[pair[1]]}


def _other_ids(cases: Sequence[PairCase], names: Sequence[str]) -> Ints:
    others = np.array([case.other_id for case in cases], dtype=np.int64)
    _check_ids(others, names)
    return others


def _numbered(cases: Sequence[Case | PairCase]) -> dict[str, int]:
    """Return a number for each image, by name: in the order of the cases, intervals would depend on it."""
    return {name: number for number, name in enumerate(sorted({case.image for case in cases}))}


def _check_ids(ids: Ints, names: Sequence[str]) -> None:
    wrong = ids[(ids < 0) | (ids >= len(names))]
    if len(wrong):
        raise ArgumentError(f"class id {wrong[0]} has no name: there are {len(names)}, for ids from 0.")


def _frame(rows: Sequence[dict[str, Any]], keys: Sequence[str], extra: Sequence[str] = ()) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[*keys, *_MEASURES, *extra])
    return table.astype({name: "Int64" for name in keys if name.endswith("_id")})
