"""What an operating point shall be best in, by the words a user writes."""

import re
from dataclasses import dataclass, field

from mlflow_yolo.detection.operating_measures import Weighing
from mlflow_yolo.exceptions import ArgumentError

_BOUNDED = re.compile(r"(recall|precision)@(?:(recall|precision)>?=?)?(.+)")
_OTHER = {"recall": "precision", "precision": "recall"}
_WORDS = {"f1": "f1", "fbeta": "f_beta", "f_beta": "f_beta", "cost": "cost"}


@dataclass(frozen=True)
class Objective:
    """What is made as large, or of costs as small, as can be.

    Attributes:
        measure: A key of `operating_measures.measures`: `f1`, `f_beta`, `cost`, `recall` or `precision`.
        bound: Least value of the other one of recall and precision; None where nothing is asked of it.
        weighing: What errors weigh.
    """

    measure: str = "f1"
    bound: float | None = None
    weighing: Weighing = field(default_factory=Weighing)

    @property
    def sign(self) -> float:
        """1 for what shall be large, -1 for what shall be small."""
        return -1.0 if self.measure == "cost" else 1.0

    @property
    def bounded(self) -> str:
        """The measure that `bound` holds for."""
        return _OTHER[self.measure]

    @property
    def word(self) -> str:
        """The objective as it is written on the command line."""
        if self.bound is not None:
            return f"{self.measure}@{self.bound:g}"
        return "fbeta" if self.measure == "f_beta" else self.measure

    @property
    def label(self) -> str:
        """The objective as it is read: `mean F1`, `recall at precision >= 0.9`."""
        if self.bound is not None:
            return f"{self.measure} at {self.bounded} >= {self.bound:g}"
        weights = self.weighing
        return {
            "f1": "F1",
            "f_beta": f"F{weights.beta:g}",
            "cost": f"cost per image (false positive {weights.c_fp:g}, miss {weights.c_fn:g})",
        }[self.measure]


def parse_objective(text: str, *, weighing: Weighing | None = None) -> Objective:
    """Return the objective of a word.

    Args:
        text: `f1`, `fbeta`, `cost`, `recall@P` (the highest recall at precision P or more) or `precision@R`.
        weighing: What errors weigh, None for beta 2 and equal costs.

    Raises:
        ArgumentError: An unknown word, or a bound outside 0 to 1.
    """
    weighing = weighing or Weighing()
    word = text.strip().lower()
    if word in _WORDS:
        return Objective(_WORDS[word], None, weighing)
    match = _BOUNDED.fullmatch(word)
    if match is None or match[2] == match[1]:
        raise ArgumentError(
            f"objective={text} is not known. Use f1, fbeta, cost, recall@0.9 (highest recall at precision 0.9 or more) "
            "or precision@0.9."
        )
    try:
        bound = float(match[3])
    except ValueError:
        bound = -1.0
    if not 0 < bound <= 1:
        raise ArgumentError(
            f"objective={text}: {match[3]} is no {_OTHER[match[1]]}. Use a number above 0 and up to 1, as in "
            f"{match[1]}@0.9."
        )
    return Objective(match[1], bound, weighing)
