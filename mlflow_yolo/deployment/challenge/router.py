"""Canary: a share of the requests is answered by the challenger.

    backend = Router(champion, challenger, percent=10, listeners=[comparison.add])

Who asked gets an answer all the same when the challenger fails or is busy: the champion then computes it too. Which
requests go to the challenger is counted, not drawn: of the first n exactly floor(n · percent / 100).
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from fractions import Fraction

from mlflow_yolo.deployment.challenge.outcomes import Call, Listener, Outcome
from mlflow_yolo.deployment.inference.backend import Answer, Backend, Busy, Options, Status, TooLate
from mlflow_yolo.exceptions import ArgumentError, InputError
from mlflow_yolo.runtime.images import Pixels

Challenged = Callable[[], Backend | None]
"""Returns the challenger, or None while there is none that differs from the champion."""


class Share:
    """Says of every request whether it belongs to a share of them.

    What is owed is carried from one request to the next, so the share is kept at every moment and not only on average.

    Args:
        percent: The share, in [0, 100].

    Raises:
        ArgumentError: percent is out of range.
    """

    def __init__(self, percent: float) -> None:
        if not 0 <= percent <= 100:
            raise ArgumentError(f"percent={percent:g} is no share. Use 0 to 100.")
        self._percent = Fraction(str(percent))
        self._owed = Fraction(0)
        self._lock = threading.Lock()

    def takes(self) -> bool:
        """Return whether the next request belongs to it; may be called from any thread."""
        with self._lock:
            self._owed += self._percent
            if self._owed < 100:
                return False
            self._owed -= 100
            return True


class Router:
    """A backend of two: the champion, and for a share of the requests its challenger.

    Args:
        champion: Answers the others, and those that the challenger could not answer.
        challenger: Returns the challenger; asked for every request of the share.
        percent: Share of the challenger, in [0, 100].
        listeners: Are told of every request's outcome.

    Raises:
        ArgumentError: percent is out of range.
    """

    def __init__(
        self, champion: Backend, challenger: Challenged, percent: float, *, listeners: Sequence[Listener] = ()
    ) -> None:
        self._champion = champion
        self._challenger = challenger
        self._share = Share(percent)
        self._listeners = tuple(listeners)

    def submit(self, image: bytes | Pixels, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 -- frozen
        """Take an image; see `Backend.submit`."""
        challenger = self._challenger() if self._share.takes() else None
        if challenger is not None:
            try:
                return self._by_challenger(challenger, image, options)
            except Busy:
                pass
        return self._by_champion(image, options)

    def status(self) -> Status:
        """Return how the champion is."""
        return self._champion.status()

    def close(self, grace_s: float) -> None:
        """Close the champion; the challenger is closed by who opened it."""
        self._champion.close(grace_s)

    def _by_champion(self, image: bytes | Pixels, options: Options) -> "Future[Answer]":
        future = self._champion.submit(image, options)
        future.add_done_callback(lambda done: self._tell(champion=call_of(done, self._champion)))
        return future

    def _by_challenger(self, challenger: Backend, image: bytes | Pixels, options: Options) -> "Future[Answer]":
        future: Future[Answer] = Future()

        def answered(done: "Future[Answer]") -> None:
            call = call_of(done, challenger)
            self._tell(challenger=call)
            if call is not None and call.failed and not isinstance(done.exception(), TooLate):
                self._instead(future, image, options)
            else:
                _pass_on(done, future)

        challenger.submit(image, options).add_done_callback(answered)
        return future

    def _instead(self, future: "Future[Answer]", image: bytes | Pixels, options: Options) -> None:
        """Let the champion answer what the challenger could not."""
        try:
            self._by_champion(image, options).add_done_callback(lambda done: _pass_on(done, future))
        except Exception as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _tell(self, *, champion: Call | None = None, challenger: Call | None = None) -> None:
        if champion is not None or challenger is not None:
            for listener in self._listeners:
                listener(Outcome(champion=champion, challenger=challenger))


def call_of(done: "Future[Answer]", backend: Backend) -> Call | None:
    """Return a backend's part in a request that is done; None where the request was bad or nobody wanted it any more.

    What failed is put down to the model that serves now: there is no answer that names one.
    """
    if done.cancelled():
        return None
    error = done.exception()
    if error is None:
        return Call.of(done.result())
    return None if isinstance(error, InputError) else Call(backend.status().serving, None)


def _pass_on(done: "Future[Answer]", future: "Future[Answer]") -> None:
    """Give the outcome of one future to another, unless nobody waits for that any more."""
    if done.cancelled() or not future.set_running_or_notify_cancel():
        future.cancel()
    elif (error := done.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())
