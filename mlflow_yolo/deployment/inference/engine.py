"""Threads that compute what waits, on one model at a time.

    engine = Engine(fetch("models:/cells@champion-cpu"))
    engine.submit(jpeg).result().detections
    engine.swap(engine.open(fetch("models:/cells/8")))
    engine.close(grace_s=10)

A worker takes what waits, decodes, computes and answers; every step that costs gives other threads the interpreter
while it lasts (the decoder, both runtimes), so one worker a core keeps all cores busy.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_yolo.deployment.inference.backend import Answer, Busy, Closed, Options, Status, TooLate
from mlflow_yolo.deployment.inference.served import Served, open_served
from mlflow_yolo.deployment.inference.waiting import Line, Request
from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError, WorkError
from mlflow_yolo.runtime.hardware import usable_cores
from mlflow_yolo.runtime.images import Pixels

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_yolo.registry.fetching import Fetched

Observer = Callable[[bytes | Pixels, Options, Answer], None]

_LOG = logging.getLogger(__name__)
_LAST_S = 5.0
"""How long `close` waits beyond the grace for what is being computed at that moment: it cannot be interrupted."""

_NEWEST_SHARE = 0.1
"""Weight of the newest measurement in the mean time of an image."""

_LOWEST_PRIORITY = 19


class Engine:
    """A backend that computes in threads of this process; see `Backend`."""

    def __init__(
        self,
        source: "Fetched | str | Path | Served",
        *,
        workers: int | None = None,
        threads: int = 1,
        max_batch: int = 1,
        batch_wait_ms: float = 0.0,
        max_queue: int = 64,
        timeout_s: float = 30.0,
        background: bool = False,
        observer: Observer | None = None,
    ) -> None:
        """Open and warm a model, and start the workers.

        Args:
            source: What to serve; see `open_served`, or a model that is open for as many workers.
            workers: Images that are computed at once; None for one a core.
            threads: Threads of one inference. Two images on two cores beat one image on both: 38 against 17 a second
                (fp32-onnx), 50 against 30 (int8-onnx; YOLO11n, 320 pixels, on a machine that was busy besides).
            max_batch: Images that one worker computes as one. One by default, because batches gain a CPU nothing that
                is worth the wait: of YOLO11n at 320 pixels on two cores, images a second (time of a call) were with
                batches of 1, 4 and 8: fp32-onnx 89 (22 ms), 89 (88), 70 (200); int8-onnx 139 (14), 156 (49), 158 (100);
                bf16-openvino 122 (16), 119 (70), 118 (120).
            batch_wait_ms: How long an image may wait for others to share a batch with, counted from when it came.
            max_queue: Images that may wait; more are refused with `Busy`.
            timeout_s: How long an image may wait before it is answered with `TooLate`.
            background: Compute only when nobody else on the machine wants the core (Linux).
            observer: Called by the worker after each answer; what it raises is logged and else ignored.

        Raises:
            ArgumentError: A value is out of its range.
            CheckpointError: See `open_served`.
        """
        self._workers = workers if workers is not None else len(usable_cores())
        self._threads, self._max_batch, self._timeout_s = threads, max_batch, timeout_s
        self._background, self._observer = background, observer
        counts = {"workers": self._workers, "threads": threads, "max_batch": max_batch, "max_queue": max_queue}
        _check_positive(counts | {"timeout_s": timeout_s})
        if not 0 <= batch_wait_ms < math.inf:
            raise ArgumentError(f"batch_wait_ms={batch_wait_ms} is no time to wait. Use 0 or more milliseconds.")
        self._lock = threading.Lock()
        self._error, self._in_flight, self._seconds = "", 0, 0.0
        self._served = source if isinstance(source, Served) else self.open(source)
        self._line = Line(max_queue, batch_wait_s=batch_wait_ms / 1e3)
        self._crew = [
            threading.Thread(target=self._work, args=(index,), name=f"engine-{index}", daemon=True)
            for index in range(self._workers)
        ]
        for thread in self._crew:
            thread.start()

    def submit(self, image: bytes | Pixels, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 (frozen)
        """Take an image and return at once; see `Backend.submit`."""
        if not isinstance(image, bytes | np.ndarray):
            raise ArgumentError(f"image={type(image).__name__} is no image. Pass an image file's bytes or an array.")
        request = Request(image, options, deadline=time.perf_counter() + self._timeout_s)
        if self._line.put(request):
            return request.future
        if self._line.closed:
            raise Closed("the server is stopping and takes no more images. Ask another one.")
        with self._lock:
            after = retry_after_s(len(self._line) + self._in_flight, self._seconds, self._workers)
        raise Busy(f"{len(self._line)} images wait already. Come again in {after} s.", retry_after_s=after)

    def status(self) -> Status:
        """Return how it is now."""
        with self._lock:
            return Status(self._served.loaded, self._error, len(self._line), self._in_flight)

    def report(self, error: str) -> None:
        """Let `status` say why a newer version is not served; empty for all is well."""
        with self._lock:
            self._error = error

    def open(self, source: "Fetched | str | Path") -> Served:
        """Return a model opened and warmed as this engine's workers need it; it is not served yet."""

        def opened() -> Served:
            return open_served(source, workers=self._workers, threads=self._threads, max_batch=self._max_batch)

        return _in_background(opened) if self._background else opened()

    def swap(self, served: Served) -> None:
        """Serve another model from now on; the old one is closed when the last image that it computes is done.

        Args:
            served: What `open` returned.

        Raises:
            Closed: The engine is closed; `served` was closed too.
        """
        with self._lock:
            if not self._line.closed:
                served, self._served = self._served, served
        served.retire()
        if self._line.closed:
            raise Closed("the engine is closed and serves no other model.")

    def close(self, grace_s: float) -> None:
        """Take no more, finish what waits within `grace_s` seconds, answer the rest with `Closed`; then return."""
        with self._lock:
            self._line.close()
        self._join(grace_s)
        for request in self._line.drain():
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(Closed("the server stopped before it came to this image. Send it again."))
        self._join(_LAST_S)
        self._served.retire()

    def _join(self, patience_s: float) -> None:
        end = time.perf_counter() + patience_s
        for thread in self._crew:
            if thread is not threading.current_thread():
                thread.join(max(end - time.perf_counter(), 0))

    def _work(self, worker: int) -> None:
        if self._background:
            _yield_to_others()
        while batch := self._line.take(self._served.sizes):
            wanted = [request for request in batch if _is_wanted(request)]
            del batch
            if wanted:
                self._serve(wanted, worker)
            # Else the last image and its answer would stay in memory until the next one comes.
            wanted.clear()

    def _serve(self, batch: list[Request], worker: int) -> None:
        """Answer requests that were taken from the line."""
        with self._lock:
            served = self._served.acquire()
            self._in_flight += len(batch)
        began, n_images = time.perf_counter(), len(batch)
        try:
            self._answer(batch, served, worker, began)
        except Exception as error:  # nothing that is known; but a worker that dies would never be missed
            for request in batch:
                if not request.future.done():
                    _fail(request, error)
        finally:
            spent_s = (time.perf_counter() - began) / n_images
            with self._lock:
                self._in_flight -= n_images
                self._seconds += (spent_s - self._seconds) * (_NEWEST_SHARE if self._seconds else 1.0)
            served.release()

    def _answer(self, batch: list[Request], served: Served, worker: int, began: float) -> None:
        read = [(request, pixels) for request in batch if (pixels := _read(request, served)) is not None]
        while read:
            size = max(one for one in served.sizes if one <= len(read))
            self._compute(read[:size], served, worker, began)
            read = read[size:]

    def _compute(self, read: list[tuple[Request, Pixels]], served: Served, worker: int, began: float) -> None:
        """Answer requests whose images are read, as one batch."""
        try:
            found = served.detect([pixels for _, pixels in read], [one.options for one, _ in read], worker=worker)
        except Exception as error:
            if len(read) == 1:
                _fail(read[0][0], error)
                return
            # One image that the model cannot compute must not take the others with it.
            for one in read:
                self._compute([one], served, worker, began)
            return
        compute_ms = (time.perf_counter() - began) * 1e3
        for (request, pixels), detections in zip(read, found, strict=True):
            answer = Answer(
                detections=detections,
                model=served.loaded,
                width=pixels.shape[1],
                height=pixels.shape[0],
                queue_ms=(began - request.taken) * 1e3,
                compute_ms=compute_ms,
                batch=len(read),
            )
            request.future.set_result(answer)
            self._observe(request, answer)

    def _observe(self, request: Request, answer: Answer) -> None:
        if self._observer is None:
            return
        try:
            self._observer(request.image, request.options, answer)
        except Exception:
            _LOG.exception("the observer of an answer failed; serving goes on")


def retry_after_s(n_ahead: int, seconds: float, workers: int) -> int:
    """Return the whole seconds, at least 1, in which all who are ahead will be answered.

    Args:
        n_ahead: Images that wait or are computed.
        seconds: Time in which one worker computes one image, by those of late; 0 before the first.
        workers: Images that are computed at once.
    """
    return max(1, math.ceil(n_ahead * seconds / workers))


def _is_wanted(request: Request) -> bool:
    """Return whether somebody still waits for it; who waits in vain is told."""
    if not request.future.set_running_or_notify_cancel():
        return False
    if (late_s := time.perf_counter() - request.deadline) <= 0:
        return True
    waited_s = time.perf_counter() - request.taken
    _fail(request, TooLate(f"waited {waited_s:.1f} s, {late_s:.1f} s longer than allowed. Send fewer at once."))
    return False


def _read(request: Request, served: Served) -> Pixels | None:
    """Return the image, or answer that it cannot be read."""
    try:
        return served.read(request.image)
    except Exception as error:
        _fail(request, error)
        return None


def _fail(request: Request, error: Exception) -> None:
    """Answer with an error, in one line of ours whatever it was.

    The traceback is cut off: it holds the frames of a worker, and with them the image and the future, which holds the
    error. In such a circle every bad image would stay in memory until the garbage collector comes by.
    """
    if not isinstance(error, MlflowYoloError):
        _LOG.error("an image could not be computed", exc_info=error)
        reason = " ".join(str(error).split())[:300]
        error = WorkError(f"the model cannot compute this image ({type(error).__name__}: {reason}). Try another one.")
    error.__cause__ = error.__context__ = None
    request.future.set_exception(error.with_traceback(None))


def _check_positive(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ArgumentError(f"{name}={value} serves nobody. Use more than 0.")


def _yield_to_others() -> None:
    """Give this thread, and those that it starts, the lowest priority where the system has one for threads."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


def _in_background(step: Callable[[], Served]) -> Served:
    """Return what a step returns, done in a thread of low priority: threads that a runtime starts inherit it."""
    done: Future[Served] = Future()

    def work() -> None:
        _yield_to_others()
        try:
            done.set_result(step())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name="engine-open", daemon=True).start()
    return done.result()
