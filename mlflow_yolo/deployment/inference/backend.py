"""What computes behind a server: one interface for an engine, a router over two of them, or another machine.

    future = backend.submit(jpeg, Options(conf=0.4))
    answer = future.result()
    answer.detections, answer.model.version

A backend never makes a caller wait for room: it takes the image at once, or raises `Busy` and says when to come again.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.images import Pixels
from mlflow_yolo.runtime.selection import CONF, IOU, MAX_DET, Selection


class Busy(WorkError):
    """As much waits as may wait; nothing was taken.

    Attributes:
        retry_after_s: Whole seconds, at least 1, after which what waits now will be done.
    """

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the error travel between processes with its attribute."""
        return _busy, (str(self), self.retry_after_s)


class TooLate(WorkError):
    """The time of a request was over before it was computed."""


class Closed(WorkError):
    """The backend takes no more work, or was closed before it came to this."""


@dataclass(frozen=True)
class Options:
    """Which detections a request wants; None is the model's operating point, as in `Detector`.

    Attributes:
        conf: Score that a detection is above, in [0, 1]. Given, it holds for all classes.
        iou: Largest overlap of two detections of one class, in [0, 1].
        max_det: Largest number of detections, 1 or more.

    Raises:
        ArgumentError: A value is out of its range.
    """

    conf: float | None = None
    iou: float | None = None
    max_det: int | None = None

    def __post_init__(self) -> None:
        if self.max_det is not None and self.max_det % 1 != 0:  # not so for nan and infinity either
            raise ArgumentError(f"max_det={self.max_det} is no whole number. Use 1 or more.")
        self.selection({})

    def selection(self, point: Mapping[str, Any]) -> Selection:
        """Return what counts of a model with the operating point `point` (`Variant.operating_point`).

        It is what `Detector` makes of the same arguments.

        Raises:
            ArgumentError: The operating point has a value out of its range.
        """
        return Selection(
            conf=_first(self.conf, point.get("conf"), CONF),
            iou=_first(self.iou, point.get("iou"), IOU),
            max_det=int(_first(self.max_det, point.get("max_det"), MAX_DET)),
            per_class=point.get("per_class") if self.conf is None else None,
        )


@dataclass(frozen=True)
class Loaded:
    """A model that is served, as `/version` tells it.

    Attributes:
        name: Registered model, or a local variant's folder.
        version: Number of its version; None for a local variant.
        alias: Alias under which it was found, None where it was named otherwise.
        sha256: Digest of the bytes that compute.
        kind: One of `variant.KINDS`.
        task: `detect`, `segment` or `classify`.
        names: Class names by id.
        imgsz: (height, width) of its input, pixels.
        loaded_at: When it was opened: UTC, ISO 8601, to the second.
    """

    name: str
    version: str | None
    alias: str | None
    sha256: str
    kind: str
    task: str
    names: tuple[str, ...]
    imgsz: tuple[int, int]
    loaded_at: str


@dataclass(frozen=True)
class Answer:
    """What became of one image.

    Attributes:
        detections: What was found, as `Detector` returns it.
        model: The model that computed it.
        width: Width of the image, pixels.
        height: Height of the image, pixels.
        queue_ms: From taking it to beginning with it.
        compute_ms: Decoding, inference and all between; of a whole batch where it was computed in one.
        batch: Images that were computed with it, itself included.
    """

    detections: Detections
    model: Loaded
    width: int
    height: int
    queue_ms: float
    compute_ms: float
    batch: int


@dataclass(frozen=True)
class Status:
    """How a backend is.

    Attributes:
        serving: The model that new requests go to.
        error: One line: why a newer version is not served, or the registry not heard; empty where all is well.
        queue: Requests that wait.
        in_flight: Requests that are computed now.
    """

    serving: Loaded
    error: str
    queue: int
    in_flight: int


class Backend(Protocol):
    """What a server asks for detections."""

    def submit(self, image: bytes | Pixels, options: Options = ...) -> "Future[Answer]":
        """Take an image and return at once.

        Args:
            image: An encoded image file, or pixels as `read_image` takes them. A path is refused.
            options: Which detections are wanted.

        Returns:
            A future that gets the answer, or the error of this image alone: `ArgumentError` for one that cannot be
            read, `TooLate`, `Closed`. It may be cancelled while it waits.

        Raises:
            Busy: As much waits as may.
            Closed: Nothing is taken any more.
            ArgumentError: `image` is neither bytes nor an array.
        """

    def status(self) -> Status:
        """Return how it is now."""

    def close(self, grace_s: float) -> None:
        """Take no more, finish what waits within `grace_s` seconds, answer the rest with `Closed`; then return."""


def _busy(message: str, retry_after_s: int) -> Busy:
    return Busy(message, retry_after_s=retry_after_s)


def _first(*values: float | None) -> float:
    """Return the first value that is given."""
    return next(value for value in values if value is not None)
