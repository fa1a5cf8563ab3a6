"""The thread that keeps a live run's journal delivered, and how long the end of a run waits for it."""

import threading
import time
from collections.abc import Callable

from mlflow_yolo.exceptions import MlflowYoloError
from mlflow_yolo.tracking.delivery.sender import JournalSender

SEND_INTERVAL_S = 1.0
MAX_BACK_OFF_S = 30.0
PATIENCE_S = 2.0
"""How long a request goes unanswered before the address is asked whether anybody is still there."""

_IDLE_END_S = 0.5


class SenderThread:
    """Keeps a live run's journal delivered: every second, backing off to 30 s while the server does not answer.

    Args:
        sender: What sends.
        on_end: Called once when the thread ends (releases the journal).
    """

    def __init__(self, sender: JournalSender, *, on_end: Callable[[], None]) -> None:
        self._sender = sender
        self._on_end = on_end
        self._tail = b""
        self._stop = False
        self._wanted = 0
        self._done = 0
        self._reason = ""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="mlflow-yolo-sender", daemon=True)
        self._thread.start()

    def drain(self, *, deadline: float, tail: bytes = b"", n_attempts: int = 2) -> str:
        """Send now and wait until all is sent, `n_attempts` failed, or `deadline` (time.monotonic) passed.

        Returns:
            What is in the way; empty when nothing is.
        """
        self._tail = tail
        for attempt in range(n_attempts):
            with self._changed:
                self._wanted += 1
                wanted = self._wanted
                self._changed.notify_all()
            if obstacle := self._wait(wanted, deadline):
                return obstacle
            if not self._reason:
                return ""
            if attempt + 1 < n_attempts:
                time.sleep(max(0.0, min(1.0, deadline - time.monotonic())))
        return self._reason

    def _wait(self, wanted: int, deadline: float) -> str:
        """Wait for attempt `wanted`; return why it was given up, empty when it is over.

        A server that dies in the middle of a request is not noticed before the request's own limit (20 s), so while a
        request lasts the address is asked from here.
        """
        while True:
            pause_s = min(PATIENCE_S, max(0.0, deadline - time.monotonic()))
            with self._changed:
                self._changed.wait_for(lambda: self._done >= wanted or not self._thread.is_alive(), pause_s)
                if self._done >= wanted:
                    return ""
            if not self._thread.is_alive() or time.monotonic() >= deadline:
                return self._reason or "the tracking store has not answered in time"
            if loss := self._sender.lost(PATIENCE_S):
                return loss

    def stop(self) -> None:
        """Let the thread end after the request it is in. An idle one ends at once and lets the journal go."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        self._thread.join(timeout=_IDLE_END_S)

    def _run(self) -> None:
        n_failures = 0
        try:
            while True:
                pause_s = min(MAX_BACK_OFF_S, SEND_INTERVAL_S * 2**n_failures)
                with self._changed:
                    self._changed.wait_for(lambda: self._stop or self._wanted > self._done, pause_s)
                    if self._stop:
                        return
                    wanted = self._wanted
                reason = self._attempt()
                n_failures = min(n_failures + 1, 10) if reason else 0
                with self._changed:
                    self._reason, self._done = reason, wanted
                    self._changed.notify_all()
        finally:
            self._on_end()

    def _attempt(self) -> str:
        try:
            self._sender.send_pending(tail=self._tail)
        except MlflowYoloError as error:
            return str(error)
        except Exception as error:  # a bug here must cost the delivery (replay is left), not the thread
            return f"sending failed: {type(error).__name__}: {error}"
        self._tail = b""
        return ""
