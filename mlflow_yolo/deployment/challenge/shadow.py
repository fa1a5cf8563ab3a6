"""Shadow: a challenger computes a share of the requests too, after the champion has answered them.

    backend = Shadow(champion, challenger, percent=10, listeners=[comparison.add])

Nobody waits for it: the champion's answer is given first, one request at a time is mirrored by a thread of its own, and
what comes while a few wait already is dropped and counted.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from mlflow_yolo.deployment.challenge.outcomes import Call, Listener, Outcome, agree
from mlflow_yolo.deployment.challenge.router import Challenged, Share, call_of
from mlflow_yolo.deployment.inference.backend import Answer, Backend, Busy, Options, Status
from mlflow_yolo.exceptions import InputError
from mlflow_yolo.runtime.images import Pixels

MAX_WAITING = 8
"""Requests that wait for the challenger; each may hold a photograph of many megabytes."""

_TIMEOUT_S = 60.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Mirrored:
    """A request that the champion has answered."""

    image: bytes | Pixels
    options: Options
    answer: Answer


class Shadow:
    """A backend whose answers are the champion's, while a challenger computes a share of them for comparison.

    Args:
        champion: Answers everything.
        challenger: Returns the challenger; asked for every mirrored request.
        percent: Share that is mirrored, in [0, 100].
        listeners: Are told the outcome of every mirrored request, by the mirroring thread.
        dropped: Is told of every request that was not mirrored because the challenger was busy.
        max_waiting: Answered requests that may wait for the challenger.

    Raises:
        ArgumentError: percent is out of range.
    """

    def __init__(
        self,
        champion: Backend,
        challenger: Challenged,
        percent: float,
        *,
        listeners: Sequence[Listener] = (),
        dropped: Callable[[], None] = lambda: None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._champion = champion
        self._challenger = challenger
        self._share = Share(percent)
        self._listeners = tuple(listeners)
        self._dropped = dropped
        self._waiting: queue.Queue[_Mirrored | None] = queue.Queue(max_waiting)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._mirror_all, name="shadow", daemon=True)
        self._thread.start()

    def submit(self, image: bytes | Pixels, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 -- frozen
        """Take an image; see `Backend.submit`."""
        future = self._champion.submit(image, options)
        if self._share.takes():
            future.add_done_callback(lambda done: self._offer(image, options, done))
        return future

    def status(self) -> Status:
        """Return how the champion is."""
        return self._champion.status()

    def close(self, grace_s: float) -> None:
        """Mirror no more, close the champion, and wait for the challenger's last answer; what waits is dropped."""
        self._closed.set()
        self._champion.close(grace_s)
        while self._thread.is_alive():
            try:
                self._waiting.put_nowait(None)  # wakes the thread
                break
            except queue.Full:
                self._take_one()
        self._thread.join(timeout=grace_s)

    def _offer(self, image: bytes | Pixels, options: Options, done: "Future[Answer]") -> None:
        """Queue an answered request, or drop it; called by the thread that answered."""
        call = call_of(done, self._champion)
        if call is None or self._closed.is_set():
            return
        if call.failed:
            self._tell(Outcome(champion=call))
            return
        try:
            self._waiting.put_nowait(_Mirrored(image, options, done.result()))
        except queue.Full:
            self._dropped()

    def _mirror_all(self) -> None:
        while not self._closed.is_set():
            request = self._waiting.get()
            challenger = self._challenger() if request is not None else None
            if request is not None and challenger is not None:
                try:
                    self._mirror(request, challenger)
                except Busy:
                    self._dropped()
                except Exception:
                    _logger.exception("a mirrored request could not be compared")

    def _mirror(self, request: _Mirrored, challenger: Backend) -> None:
        champion = Call.of(request.answer)
        try:
            answer = challenger.submit(request.image, request.options).result(_TIMEOUT_S)
        except Busy:
            raise
        except Exception as error:
            if not isinstance(error, InputError):  # e.g. TooLate; other channels than the champion's is its own fault
                _logger.info("the challenger failed: %s", error)
            self._tell(Outcome(champion, Call(challenger.status().serving, None)))
            return
        self._tell(Outcome(champion, Call.of(answer), agree(request.answer, answer)))

    def _tell(self, outcome: Outcome) -> None:
        for listener in self._listeners:
            listener(outcome)

    def _take_one(self) -> None:
        try:
            self._waiting.get_nowait()
        except queue.Empty:
            return
