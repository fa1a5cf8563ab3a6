"""How much the channels of a block repeat one another: mean |cosine| between them, and the effective rank.

Both come from the channels' second moments, a (C, C) matrix that is added up over forward passes, so that no pair of
feature maps is ever laid beside another.
"""

import numpy as np
import torch
from torch import Tensor

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.vectors import Floats


class SecondMoments:
    """Sums of x and of x x^T over positions, about a fixed centre.

    The centre is the mean of the first sample: without it the covariance of nearly constant channels would drown in the
    rounding of float32. Sums are replaced and not changed in place, as tensors made in inference mode do not allow it.
    """

    def __init__(self, sample: Tensor) -> None:
        """Take the centre from the first sample, (C, P), and add nothing yet."""
        n_channels = len(sample)
        self.n_positions = 0
        self._centre = sample.float().mean(1, keepdim=True)
        self._sums = self._centre.new_zeros(n_channels)
        self._products = self._centre.new_zeros(n_channels, n_channels)

    def add(self, sample: Tensor) -> None:
        """Add a (C, P) sample."""
        centred = sample - self._centre
        self._sums = self._sums + centred.sum(1)
        self._products = torch.addmm(self._products, centred, centred.T)
        self.n_positions += sample.shape[1]

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return centre (C,), sums (C,) and products (C, C) on the device, as `gram_and_covariance` takes them."""
        return self._centre[:, 0], self._sums, self._products


def gram_and_covariance(n: float, centre: Floats, sums: Floats, products: Floats) -> tuple[Floats, Floats]:
    """Return E[x x^T] and Cov(x), each (C, C), from the sums of `SecondMoments` over n > 0 positions."""
    shift = sums / n
    covariance = products / n - np.outer(shift, shift)
    mean = centre + shift
    return covariance + np.outer(mean, mean), covariance


def redundancy(gram: Floats) -> float:
    """Return the mean |cosine| over all pairs of different channels, in [0, 1].

    Args:
        gram: (C, C) inner products of the channels' feature maps, up to a common factor. A channel that is 0 everywhere
            has no direction and is left out.

    Returns:
        0 for orthogonal channels, 1 for copies up to scale and sign; NaN with fewer than two channels that are not 0.

    Raises:
        ShapeError: `gram` is not square.
    """
    norms = np.sqrt(np.maximum(np.diag(_square(gram)), 0.0))
    alive = norms > 0
    n = int(alive.sum())
    if n < 2:
        return float("nan")
    cosines = np.abs(gram[np.ix_(alive, alive)]) / np.outer(norms[alive], norms[alive])
    return float(min((cosines.sum() - np.trace(cosines)) / (n * (n - 1)), 1.0))


def effective_rank(covariance: Floats) -> float:
    """Return exp of the entropy of the covariance's normalised eigenvalues, in [1, C].

    Args:
        covariance: (C, C), symmetric.

    Returns:
        C for uncorrelated channels of equal variance, 1 where all follow one; NaN where nothing varies or a value is
        not finite.

    Raises:
        ShapeError: `covariance` is not square.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007, on the covariance instead of singular values.
    """
    if not np.isfinite(_square(covariance)).all():
        return float("nan")
    spectrum = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    if not spectrum.sum() > 0:
        return float("nan")
    shares = spectrum[spectrum > 0] / spectrum.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _square(matrix: Floats) -> Floats:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"the matrix has shape {matrix.shape}. Pass one row and column a channel.")
    return matrix
