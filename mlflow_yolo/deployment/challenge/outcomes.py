"""What became of requests that a champion and its challenger answered, and what a number of them says.

    tally = Tally()
    tally.add(outcome)
    tally.metrics()    # {"agreement": .97, "champion/latency_ms_p95": 21.4, …}

Latency is the work itself, for one image: how long a request waited, and with how many others it was computed, says how
many came, not which model is slow.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from mlflow_yolo.deployment.inference.backend import Answer, Loaded
from mlflow_yolo.detection.agreement import Agreement, agreement
from mlflow_yolo.detection.boxes import Ints
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.runtime.detections import Detections

SIDES = ("champion", "challenger")

_LATENCIES_KEPT = 10_000


@dataclass(frozen=True)
class Call:
    """One model's part in a request.

    Attributes:
        model: Who computed, or was to compute.
        latency_ms: Work for one image, `compute_ms / batch` of the answer; None where it failed.
    """

    model: Loaded
    latency_ms: float | None

    @classmethod
    def of(cls, answer: Answer) -> "Call":
        """Return the part of a model that answered."""
        return cls(answer.model, answer.compute_ms / answer.batch)

    @property
    def failed(self) -> bool:
        """Whether there is no answer, for a reason that is not the request's own."""
        return self.latency_ms is None


@dataclass(frozen=True)
class Outcome:
    """What became of one request; a side that was not asked is None.

    Attributes:
        champion: The champion's part.
        challenger: The challenger's part.
        agreement: How far both detected the same on this image, where both answered the same request.
    """

    champion: Call | None = None
    challenger: Call | None = None
    agreement: Agreement | None = None


Listener = Callable[[Outcome], None]
"""Is told of every outcome, from any thread; returns at once."""


def agree(champion: Answer, challenger: Answer) -> Agreement:
    """Return how far two models agree on one image, each at its own operating point.

    A classifier agrees where its surest class is the same. Classes are compared by name, so that a challenger with more
    classes, or in another order, is judged by what it says.
    """
    names = {name: index for index, name in enumerate(champion.model.names)}
    numbers = np.array(
        [names.get(name, len(names) + index) for index, name in enumerate(challenger.model.names)], dtype=np.int64
    )
    mine, theirs = champion.detections, challenger.detections
    if mine.probabilities is not None and theirs.probabilities is not None:
        same = int(numbers[theirs.probabilities.argmax()] == mine.probabilities.argmax())
        return Agreement(float(same), 1, 1, same)
    return agreement(
        [_sample(champion, mine, mine.classes)], [_sample(challenger, theirs, numbers[theirs.classes])], conf=0.0
    )


def _sample(answer: Answer, found: Detections, classes: Ints) -> Sample:
    nothing: Ints = np.zeros(0, dtype=np.int64)
    return Sample("", answer.height, answer.width, np.zeros((0, 4)), nothing, found.boxes, found.scores, classes)


@dataclass
class _Side:
    """Requests, failures and latencies of one side."""

    n: int = 0
    n_failed: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))

    def add(self, call: Call) -> None:
        self.n += 1
        if call.latency_ms is None:
            self.n_failed += 1
        else:
            self.latencies_ms.append(call.latency_ms)

    def metrics(self) -> Iterator[tuple[str, float]]:
        yield "requests", self.n
        yield "failed", self.n_failed
        if self.latencies_ms:
            for percent in (50, 95):
                yield f"latency_ms_p{percent}", float(np.percentile(self.latencies_ms, percent))


class Tally:
    """Sums of outcomes. Latencies are of the newest 10,000; for one thread at a time."""

    def __init__(self) -> None:
        self._sides = {side: _Side() for side in SIDES}
        self._n = self._n_pairs = self._n_matched = self._n_detections = 0
        self.n_dropped = 0

    def __len__(self) -> int:
        """Return the number of outcomes."""
        return self._n

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self._n += 1
        for side, call in zip(SIDES, (outcome.champion, outcome.challenger), strict=True):
            if call is not None:
                self._sides[side].add(call)
        if outcome.agreement is not None:
            self._n_pairs += 1
            self._n_matched += outcome.agreement.n_matched
            self._n_detections += outcome.agreement.n_reference + outcome.agreement.n_other

    @property
    def agreement(self) -> float | None:
        """F1 of all detections of all images together, in [0, 1]; 1 where there are none, None without a pair."""
        if not self._n_pairs:
            return None
        return 2 * self._n_matched / self._n_detections if self._n_detections else 1.0

    def metrics(self) -> dict[str, float]:
        """Return what is known as numbers: `agreement`, `pairs`, `dropped`, `<side>/requests`, `<side>/failed`,
        `<side>/latency_ms_p50` and `_p95`; what nothing is known of is left out.
        """
        values = {f"{name}/{key}": value for name, side in self._sides.items() for key, value in side.metrics()}
        if self.agreement is not None:
            values |= {"agreement": self.agreement, "pairs": self._n_pairs}
        return {**values, "dropped": self.n_dropped}
