"""Mean, lowest and highest over seeds, with missing values left out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import ShapeError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeedRange:
    """What several seeds gave at each point.

    Attributes:
        mean: Mean of the seeds that have a value, shape of one seed; NaN where none has.
        low: Lowest of them, same shape.
        high: Highest of them, same shape.
        n_seeds: Seeds with at least one value.
    """

    mean: Floats
    low: Floats
    high: Floats
    n_seeds: int


def as_floats(values: npt.ArrayLike, *, ndim: int, what: str) -> Floats:
    """Return `values` as a float array in which everything missing or infinite is NaN.

    Args:
        values: Numbers of any type; NaN and infinities count as missing.
        ndim: Dimensions that the array must have.
        what: Name and expected shape for the error message, for example "curves['10'] (n_seeds, n_epochs)".

    Returns:
        A new array of `ndim` dimensions.

    Raises:
        ShapeError: Another number of dimensions.
    """
    array: npt.NDArray[Any] = np.array(values, dtype=np.float64)
    if array.ndim != ndim:
        raise ShapeError(f"{what} has shape {array.shape}. Pass an array of {ndim} dimension{'s' * (ndim != 1)}.")
    array[~np.isfinite(array)] = np.nan
    return array


def over_seeds(values: Floats) -> SeedRange:
    """Return mean, lowest and highest over the first axis.

    Args:
        values: (n_seeds, ...); NaN is a missing value. No seeds at all give NaN everywhere.
    """
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean = np.full(total.shape, np.nan)
    np.divide(total, counts, out=mean, where=counts > 0)
    low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    n_seeds = int(known.reshape(len(values), -1).any(axis=1).sum()) if known.size else 0
    return SeedRange(mean, np.where(counts > 0, low, np.nan), np.where(counts > 0, high, np.nan), n_seeds)
