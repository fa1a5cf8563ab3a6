"""Backends that compute nothing: what they answer, and when, is said by the test."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlflow_yolo.deployment.inference.backend import Answer, Busy, Loaded, Options, Status
from mlflow_yolo.runtime.detections import Detections

NAMES = ("red", "green", "blue")
IMAGE = b"an image"


def loaded(version: str | None = "7", **given: Any) -> Loaded:
    """Return a model of a version; its digest is the version's number repeated."""
    values = {"name": "cells", "version": version, "alias": "champion-cpu", "sha256": f"{version}" * 8}
    values |= {
        "kind": "fp32-onnx",
        "task": "detect",
        "names": NAMES,
        "imgsz": (32, 32),
        "loaded_at": "2026-01-01T00:00",
    }
    return Loaded(**{**values, **given})


def found(*boxes: Sequence[float], names: tuple[str, ...] = NAMES) -> Detections:
    """Return detections of rows (x1, y1, x2, y2, class)."""
    rows = np.array(boxes, dtype=float).reshape(-1, 5)
    return Detections(rows[:, :4], np.full(len(rows), 0.9), rows[:, 4].astype(np.int64), names)


def answer(
    model: Loaded | None = None, detections: Detections | None = None, *, ms: float = 5.0, batch: int = 1
) -> Answer:
    """Return an answer that took `ms` milliseconds for the whole batch."""
    nothing = detections if detections is not None else found()
    return Answer(nothing, model or loaded(), 100, 80, queue_ms=1.0, compute_ms=ms, batch=batch)


@dataclass
class StandIn:
    """A backend that answers at once; `answers` returns the answer to an image, or raises."""

    model: Loaded = field(default_factory=loaded)
    answers: Callable[[bytes], Answer] | None = None
    busy: bool = False
    asked: list[tuple[Any, Options]] = field(default_factory=list)
    closed_with: float | None = None

    def submit(self, image: Any, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 -- frozen
        if self.busy:
            raise Busy("full", retry_after_s=1)
        self.asked.append((image, options))
        future: Future[Answer] = Future()
        try:
            future.set_result(self.answers(image) if self.answers else answer(self.model))
        except Exception as error:
            future.set_exception(error)
        return future

    def status(self) -> Status:
        return Status(self.model, "", 0, 0)

    def close(self, grace_s: float) -> None:
        self.closed_with = grace_s


@dataclass
class Held(StandIn):
    """A backend that answers when the test says so."""

    waiting: list["Future[Answer]"] = field(default_factory=list)
    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def submit(self, image: Any, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 -- frozen
        self.asked.append((image, options))
        future: Future[Answer] = Future()
        self.waiting.append(future)
        self.came.release()
        return future

    def answer_next(self, one: Answer | None = None) -> None:
        """Answer the request that has waited longest."""
        self.waiting.pop(0).set_result(one or answer(self.model))


def failing(error: Exception) -> Callable[[bytes], Answer]:
    """Return what makes a backend fail with an error."""

    def fail(_: bytes) -> Answer:
        raise error

    return fail
