"""What a classifier said about every image of a split: all that the other modules need, from one forward pass."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import ArgumentError, ShapeError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Predictions:
    """One row per image.

    Attributes:
        images: Names of the images, relative and unique within the split.
        true: (N,) int64, true class ids.
        probabilities: (N, C) float32, softmax of the class logits.
        names: Class names, C of them.

    Raises:
        ShapeError: The lengths do not fit together, or there are no classes.
        ArgumentError: A true class is not in 0 to C - 1, or a probability is not in 0 to 1.
    """

    images: tuple[str, ...]
    true: Ints
    probabilities: npt.NDArray[np.float32]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        n_images, n_classes = len(self.images), len(self.names)
        if self.true.shape != (n_images,) or self.probabilities.shape != (n_images, n_classes) or not n_classes:
            raise ShapeError(
                f"true has shape {self.true.shape} and probabilities {self.probabilities.shape} for {n_images} images "
                f"and {n_classes} classes. Pass ({n_images},) and ({n_images}, {n_classes}), with a class at least."
            )
        outside = (self.true < 0) | (self.true >= n_classes)
        if outside.any():
            row = int(outside.argmax())
            raise ArgumentError(
                f"{self.images[row]!r} has class {self.true[row]} of {n_classes} classes: use 0 to {n_classes - 1}."
            )
        # The negation finds NaN too: the model of a diverged training. Float32 softmax ends up to 1e-6 above 1.
        wrong = ~((self.probabilities >= 0) & (self.probabilities <= 1 + 1e-5)).all(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            raise ArgumentError(
                f"a probability of {self.images[row]!r} is not in 0 to 1 ({self.probabilities[row].max():g}): pass the "
                "softmax of finite logits."
            )

    @cached_property
    def predicted(self) -> Ints:
        """(N,) the class of highest probability; of equal ones the first."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def confidence(self) -> Floats:
        """(N,) the probability of the predicted class, in [0, 1]."""
        return self._probability_of(self.predicted)

    @cached_property
    def true_probability(self) -> Floats:
        """(N,) the probability of the true class, in [0, 1]."""
        return self._probability_of(self.true)

    @cached_property
    def is_correct(self) -> Bools:
        """(N,) whether the predicted class is the true one."""
        return np.asarray(self.predicted == self.true)

    @cached_property
    def rank(self) -> Ints:
        """(N,) how many classes come before the true one, 0 where the prediction is correct; below 5: top-5 correct."""
        own = np.take_along_axis(self.probabilities, self.true[:, None], axis=1)
        earlier = np.arange(len(self.names)) < self.true[:, None]
        before = (self.probabilities > own) | ((self.probabilities == own) & earlier)
        return np.asarray(before.sum(axis=1, dtype=np.int64))

    def _probability_of(self, classes: Ints) -> Floats:
        chosen = np.take_along_axis(self.probabilities, classes[:, None], axis=1)[:, 0]
        return np.minimum(chosen, 1.0).astype(np.float64)
