"""Does a confidence of 0.8 mean that 80 % are right? Reliability, calibration error, and confident errors."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_yolo.classification.predictions import Bools, Floats, Ints, Predictions
from mlflow_yolo.classification.wilson import wilson_interval
from mlflow_yolo.exceptions import ArgumentError, ShapeError

N_BINS = 15
"""Bins of the calibration error in Guo et al. (2017); another number gives values that cannot be compared."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy, by bins of confidence; bin i holds edges[i] < confidence <= edges[i + 1].

    Attributes:
        edges: (B + 1,) ends of the bins, from 0 to 1; a confidence of 0 is in the first.
        mean_conf: (B,) mean confidence; NaN for an empty bin.
        accuracy: (B,) share that is right; NaN for an empty bin.
        low: (B,) lower end of its 95 % Wilson interval; NaN for an empty bin.
        high: (B,) upper end.
        n: (B,) predictions.
    """

    edges: Floats
    mean_conf: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    n: Ints

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of |accuracy - confidence| over the bins, weighted by n; NaN for none.

        Source: Naeini et al. (2015); Guo et al. (2017), equation 3.
        """
        if not self.n.sum():
            return float("nan")
        gap = np.abs(np.nan_to_num(self.accuracy - self.mean_conf))
        return float(gap @ self.n / self.n.sum())


@dataclass(frozen=True, eq=False)
class ConfidenceCounts:
    """How often which confidence was right and wrong.

    Attributes:
        edges: (B + 1,) ends of the bins, from 0 to 1.
        right: (B,) right predictions of each bin.
        wrong: (B,) wrong ones.
    """

    edges: Floats
    right: Ints
    wrong: Ints


@dataclass(frozen=True)
class ConfidenceSummary:
    """How confidence and being right go together, in a few numbers.

    Attributes:
        n: Predictions.
        mean_conf: Their mean confidence; NaN for none.
        accuracy: Share of them that is right; NaN for none.
        n_bins: Bins of the calibration error.
        error: Expected calibration error; NaN for none.
        error_if_calibrated: What a calibrated model stays below in 95 of 100; NaN for none.
        above: Confidence above which a prediction counts as confident.
        n_confident: Predictions above it.
        n_confident_errors: Wrong ones of them.
        confident_mean_conf: Their mean confidence; NaN for none.
    """

    n: int
    mean_conf: float
    accuracy: float
    n_bins: int
    error: float
    error_if_calibrated: float
    above: float
    n_confident: int
    n_confident_errors: int
    confident_mean_conf: float


def reliability(confidence: Floats, is_correct: Bools, *, n_bins: int = N_BINS) -> Reliability:
    """Return accuracy against confidence in bins of equal width.

    Args:
        confidence: (N,) in [0, 1].
        is_correct: (N,) whether the prediction is right.
        n_bins: Number of bins.

    Raises:
        ShapeError: The two differ in length.
        ArgumentError: A confidence is not in 0 to 1, or there is no bin.
    """
    place = _bins(confidence, is_correct, n_bins)
    n, right = np.bincount(place, minlength=n_bins), np.bincount(place[is_correct], minlength=n_bins)
    total = np.bincount(place, weights=confidence, minlength=n_bins)
    low, high = wilson_interval(right, n)
    mean_conf, accuracy = (np.divide(part, n, out=np.full(n_bins, np.nan), where=n > 0) for part in (total, right))
    return Reliability(_edges(n_bins), mean_conf, accuracy, low, high, n.astype(np.int64))


def error_if_calibrated(confidence: Floats, *, n_bins: int = N_BINS, n_draws: int = 200, seed: int = 0) -> float:
    """Return the calibration error that a perfectly calibrated model with these confidences stays below in 95 of 100.

    The measured error of finite data is above 0 even then, the more the fewer images there are.

    Args:
        confidence: (N,) in [0, 1].
        n_bins: Number of bins of the error it is compared with.
        n_draws: Times that right and wrong are drawn by the confidences.
        seed: Seed of the draws.

    Returns:
        The 95th percentile of the drawn errors; NaN for no predictions.

    Raises:
        ArgumentError: A confidence is not in 0 to 1, or there is no bin.

    Source: consistency resampling, Bröcker and Smith (2007); for this error Vaicenavicius et al. (2019).
    """
    if not len(confidence):
        return float("nan")
    place = _bins(confidence, np.zeros(len(confidence), dtype=np.bool_), n_bins)
    expected = np.bincount(place, weights=confidence, minlength=n_bins)
    generator = np.random.default_rng(seed)
    errors = []
    for _ in range(n_draws):
        right = np.bincount(place[generator.random(len(confidence)) < confidence], minlength=n_bins)
        errors.append(np.abs(right - expected).sum() / len(confidence))
    return float(np.quantile(errors, 0.95))


def summarise(confidence: Floats, is_correct: Bools, *, n_bins: int = N_BINS, above: float = 0.9) -> ConfidenceSummary:
    """Return the calibration error, what it would be by chance, and the confident errors.

    Args:
        confidence: (N,) in [0, 1].
        is_correct: (N,) whether the prediction is right.
        n_bins: Number of bins of the error.
        above: Confidence above which a prediction counts as confident.

    Raises:
        ShapeError: The two differ in length.
        ArgumentError: A confidence is not in 0 to 1, or there is no bin.
    """
    confident = confidence > above
    return ConfidenceSummary(
        n=len(confidence),
        mean_conf=_mean(confidence),
        accuracy=_mean(is_correct),
        n_bins=n_bins,
        error=reliability(confidence, is_correct, n_bins=n_bins).error,
        error_if_calibrated=error_if_calibrated(confidence, n_bins=n_bins),
        above=above,
        n_confident=int(confident.sum()),
        n_confident_errors=int((confident & ~is_correct).sum()),
        confident_mean_conf=_mean(confidence[confident]),
    )


def confidence_counts(confidence: Floats, is_correct: Bools, *, n_bins: int = 20) -> ConfidenceCounts:
    """Return the histogram of the confidence of right and of wrong predictions.

    Args:
        confidence: (N,) in [0, 1].
        is_correct: (N,) whether the prediction is right.
        n_bins: Number of bins of equal width.

    Raises:
        ShapeError: The two differ in length.
        ArgumentError: A confidence is not in 0 to 1, or there is no bin.
    """
    place = _bins(confidence, is_correct, n_bins)
    right, wrong = (np.bincount(place[of], minlength=n_bins).astype(np.int64) for of in (is_correct, ~is_correct))
    return ConfidenceCounts(_edges(n_bins), right, wrong)


def high_confidence_errors(predictions: Predictions, *, above: float = 0.9) -> pd.DataFrame:
    """Return the wrong predictions with a confidence above a threshold, the most confident first.

    Returns:
        Columns `image`, `true`, `predicted` (names), `conf`, `true_probability`, `rank` of the true class (0: first),
        `index` of the image. Ties: the earlier image. No rows where there are none.
    """
    chosen = np.nonzero(~predictions.is_correct & (predictions.confidence > above))[0]
    chosen = chosen[np.argsort(-predictions.confidence[chosen], kind="stable")]
    names = np.array(predictions.names, dtype=object)
    return pd.DataFrame(
        {
            "image": [predictions.images[i] for i in chosen],
            "true": names[predictions.true[chosen]],
            "predicted": names[predictions.predicted[chosen]],
            "conf": predictions.confidence[chosen],
            "true_probability": predictions.true_probability[chosen],
            "rank": predictions.rank[chosen],
            "index": chosen.astype(np.int64),
        }
    )


def _mean(values: Floats | Bools) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _edges(n_bins: int) -> Floats:
    return np.arange(n_bins + 1) / n_bins


def _bins(confidence: Floats, is_correct: Bools, n_bins: int) -> Ints:
    """Return the bin of each confidence; the two arrays are checked."""
    if confidence.shape != is_correct.shape or confidence.ndim != 1:
        raise ShapeError(f"confidence has shape {confidence.shape}, is_correct {is_correct.shape}. Pass (N,) of each.")
    if n_bins < 1:
        raise ArgumentError(f"n_bins={n_bins} leaves no bin: use 1 or more.")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ArgumentError(f"confidence {confidence.max():g} is not in 0 to 1: pass probabilities.")
    place = np.searchsorted(_edges(n_bins), confidence, side="left") - 1
    return np.maximum(place, 0).astype(np.int64)
