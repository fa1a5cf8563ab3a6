"""What to do next, in sentences that each carry their numbers; where nothing is shown, nothing is said.

Every rule compares an interval or a null value with its measurement and is silent otherwise. The tables may come from
a classifier or a detector.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from mlflow_yolo.classification.calibration import ConfidenceSummary
from mlflow_yolo.classification.categories import CategoryErrors
from mlflow_yolo.classification.confused_pairs import BACKGROUND
from mlflow_yolo.classification.wilson import wilson_interval

LEAST_RATE = 0.02
"""A pair is worth work only where its rate is surely above this."""
FEW = 10
"""Images of a class below which its own score says next to nothing: 9 of 9 right is 70 to 100 %."""
LEAST_DELTA_AP = 0.01
"""Gain in AP below which a type of error is not worth naming."""
MOST_SENTENCES = 3
"""Sentences of one rule, the strongest first."""

_ERROR_TYPES: Mapping[str, tuple[str, str]] = {
    "cls": ("objects found under the wrong class", "Look at the confused pairs."),
    "loc": ("boxes in the wrong place", "Look at the localisation cases, and whether the labels' own edges agree."),
    "both": ("boxes wrong in class and place", "Look at these cases first."),
    "dupe": ("objects found twice", "Try a lower IoU threshold of the suppression (`iou`)."),
    "bkg": ("detections where nothing is labelled", "Look for missing labels among the most confident of them."),
    "miss": ("missed objects", "Look at them by size: a larger `imgsz` is for the small ones."),
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was measured on one split; every part may be missing.

    Attributes:
        split: Name of the split.
        what: What is counted: images of a classifier, objects of a detector.
        pairs: As `confused_pairs` returns them; those of a detector with the background.
        classes: One row per class: `name`, `n` images or objects and the column named by `score`.
        score: Share of the n that is right: "accuracy" of a classifier, "recall" of a detector.
        confidence: Confidence against being right.
        categories: Errors within and across categories.
        delta_ap: Type of detection error to the gain in AP50 if it were corrected; those that overlap others (false
            positives, false negatives) are not read.
        ap50: The AP50 that these gains come on top of.
        bias: Attention of each class on its own objects, of right detections: `name`, `n`, `lift` with its 95 %
            interval `low`, `high`; 0 is what a map without information has, NaN where there are too few images.
        co_occurrence: Attention of one class on the objects of another: the same columns, `name` names both.
    """

    split: str
    what: Literal["images", "objects"] = "images"
    pairs: pd.DataFrame | None = None
    classes: pd.DataFrame | None = None
    score: str = "accuracy"
    confidence: ConfidenceSummary | None = None
    categories: CategoryErrors | None = None
    delta_ap: Mapping[str, float] = field(default_factory=dict)
    ap50: float | None = None
    bias: pd.DataFrame | None = None
    co_occurrence: pd.DataFrame | None = None


def recommendations(evidence: Evidence) -> list[str]:
    """Return the sentences that the evidence supports, errors first; none where it supports nothing."""
    rules = (_error_type, _weak_classes, _pairs, _categories, _calibration, _confident_errors, _bias, _few)
    return [sentence for rule in rules for sentence in rule(evidence)]


def _error_type(evidence: Evidence) -> Iterator[str]:
    """Name the type of error that costs most AP, and the next."""
    gains = {name.lower(): gain for name, gain in evidence.delta_ap.items() if np.isfinite(gain)}
    ranked = sorted((name for name in gains if name in _ERROR_TYPES), key=lambda name: -gains[name])
    if not ranked or gains[ranked[0]] < LEAST_DELTA_AP:
        return
    worst = ranked[0]
    meaning, remedy = _ERROR_TYPES[worst]
    now = "" if evidence.ap50 is None else f" from {evidence.ap50:.3f}"
    second = "".join(f" (next: {_ERROR_TYPES[name][0]}, {gains[name]:.3f})" for name in ranked[1:2])
    yield (
        f"On {evidence.split}, {meaning} cost most: with them corrected AP50 would rise{now} by {gains[worst]:.3f}"
        f"{second}. {remedy}"
    )


def _weak_classes(evidence: Evidence) -> Iterator[str]:
    """Name classes below the rest; the intervals hold for all classes at once (Bonferroni) and must not overlap."""
    table = evidence.classes
    if table is None or (table["n"] > 0).sum() < 2:
        return
    table = table[table["n"] > 0]
    n = table["n"].to_numpy(dtype=np.float64)
    right = np.rint(table[evidence.score].fillna(0).to_numpy(dtype=np.float64) * n)
    z = float(stats.norm.isf(0.025 / len(n)))
    low, high = wilson_interval(right, n, z=z)
    rest_low, _ = wilson_interval(right.sum() - right, n.sum() - n, z=z)
    weak = [int(i) for i in np.argsort(right / n, kind="stable") if high[i] < rest_low[i]]
    for i in weak[:MOST_SENTENCES]:
        rest = (right.sum() - right[i]) / (n.sum() - n[i])
        yield (
            f"The {evidence.score} of {table['name'].iloc[i]!r} on {evidence.split} is {_percent(right[i] / n[i])} of "
            f"{int(n[i])} {evidence.what} (95 % interval {_range(low[i], high[i])}, for all {len(n)} classes at once), "
            f"that of the others {_percent(rest)}: look at its worst cases first."
        )
    more = len(weak) - MOST_SENTENCES
    if more > 0:
        yield f"{more} more {'class lies' if more == 1 else 'classes lie'} as surely below the others."


def _pairs(evidence: Evidence) -> Iterator[str]:
    """Name the pairs, and the classes missed, whose rate is surely worth work; intervals hold for all pairs at once.

    They were picked from all pairs that there are: of 9900 pairs with a rate of 4 %, some have 10 % of 100 by chance.
    """
    pairs = evidence.pairs
    if pairs is None or not len(pairs):
        return
    detects = evidence.what == "objects"
    n_classes = int(pairs[["true_id", "predicted_id"]].to_numpy().max()) + 1
    n_pairs = n_classes * (n_classes - 1)
    low, high = wilson_interval(pairs["count"], pairs["n_true"], z=float(stats.norm.isf(0.025 / n_pairs)))
    sure = pairs.assign(low=low, high=high)[low > LEAST_RATE].sort_values("low", ascending=False, kind="stable")
    rows = [row for row in sure.to_dict("records") if not (detects and row["true"] == BACKGROUND)]
    for row in rows[:MOST_SENTENCES]:
        numbers = (
            f"{row['count']} of {row['n_true']} {evidence.what} on {evidence.split} ({_percent(row['rate'])}, 95 % "
            f"interval {_range(row['low'], row['high'])}, for all {n_pairs} pairs at once)"
        )
        if detects and row["predicted"] == BACKGROUND:
            yield f"{row['true']!r} is missed in {numbers}: look at the missed ones by size and confidence."
        else:
            yield (
                f"{row['true']!r} is taken for {row['predicted']!r} in {numbers}, the other way round in "
                f"{row['both_ways'] - row['count']}: compare their examples, and check the labels of these."
            )


def _categories(evidence: Evidence) -> Iterator[str]:
    """Say whether errors stay within the category more, or less, than if they fell on any other class alike."""
    found = evidence.categories
    if found is None or not found.low <= found.high:
        return
    numbers = (
        f"{found.n_within} of {found.n_within + found.n_cross} errors on {evidence.split} stay within the category "
        f"({_percent(found.within_share)}, 95 % interval {_range(found.low, found.high)}; "
        f"{_percent(found.expected_share)} if they fell on all other classes alike)"
    )
    if found.low > found.expected_share:
        yield f"{numbers}: what is missing are differences between classes of one category."
    elif found.high < found.expected_share:
        yield f"{numbers}: look for what images of different categories share beside the object."


def _calibration(evidence: Evidence) -> Iterator[str]:
    """Say in which direction confidence is off, where the error is more than chance makes."""
    found = evidence.confidence
    if found is None or not found.error > found.error_if_calibrated:
        return
    low, high = wilson_interval(round(found.accuracy * found.n), found.n)
    way = "too high" if found.mean_conf > high else "too low" if found.mean_conf < low else "right only on average"
    yield (
        f"Confidence is {way}: {found.mean_conf:.3f} on average where {found.accuracy:.3f} of {found.n} predictions on "
        f"{evidence.split} are right; the calibration error over {found.n_bins} bins is {found.error:.3f}, that of a "
        f"calibrated model would be below {found.error_if_calibrated:.3f} in 95 of 100. Choose thresholds on this "
        "split's curve, or rescale confidence."
    )


def _confident_errors(evidence: Evidence) -> Iterator[str]:
    """Name confident errors where there are more than their confidence admits."""
    found = evidence.confidence
    if found is None or not found.n_confident:
        return
    low, high = map(float, wilson_interval(found.n_confident_errors, found.n_confident))
    admitted = 1 - found.confident_mean_conf
    if low > admitted:
        yield (
            f"{found.n_confident_errors} of {found.n_confident} predictions above {found.above:g} on {evidence.split} "
            f"are wrong ({_percent(found.n_confident_errors / found.n_confident)}, 95 % interval {_range(low, high)}; "
            f"their confidence admits {_percent(admitted)}): check their labels first."
        )


def _bias(evidence: Evidence) -> Iterator[str]:
    """Name classes whose attention lies off their objects, and those whose attention lies on another's."""
    if (table := evidence.bias) is not None:
        off = table[table["high"] < 0].sort_values("high", kind="stable")
        for row in off.head(MOST_SENTENCES).to_dict("records"):
            yield (
                f"Attention of {row['name']!r} on {evidence.split} lies off its objects: {_lift(row)}. Look at its "
                "maps."
            )
    if (table := evidence.co_occurrence) is not None:
        on = table[table["low"] > 0].sort_values("low", ascending=False, kind="stable")
        for row in on.head(MOST_SENTENCES).to_dict("records"):
            yield (
                f"Attention on {evidence.split} lies on another class's objects, {row['name']!r}: {_lift(row)}. "
                "Look at their maps, and add images with one of the two alone."
            )


def _few(evidence: Evidence) -> Iterator[str]:
    """Name classes with too few images to say anything of them alone."""
    if (table := evidence.classes) is None:
        return
    few = table[table["n"] < FEW].sort_values("n", kind="stable")
    if len(few):
        first = zip(few["name"][:5], few["n"][:5], strict=True)
        shown = ", ".join(f"{name!r}: {n}" for name, n in first) + (", …" if len(few) > 5 else "")
        yield (
            f"{len(few)} of {len(table)} classes have fewer than {FEW} {evidence.what} on {evidence.split} ({shown}): "
            "add some before their own scores are compared."
        )


def _percent(share: float) -> str:
    """Return a share in percent, with a decimal where it is below 10 %."""
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else f"{100 * share:.0f} %"


def _range(low: float, high: float) -> str:
    return f"{_percent(low).removesuffix(' %')} to {_percent(high)}"


def _lift(row: Mapping[Hashable, Any]) -> str:
    numbers = f"lift {row['lift']:.2f} (95 % interval {row['low']:.2f} to {row['high']:.2f}, n={row['n']}"
    return f"{numbers}; 0 is a map without information)".replace("-", "\N{MINUS SIGN}")
