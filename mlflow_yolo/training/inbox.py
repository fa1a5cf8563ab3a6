"""What the driver of a study says to one of its workers while it works."""

import contextlib
import json
import threading


class Inbox:
    """Keeps the last order to stop; may be read and written from any thread.

    Attributes:
        stop: Why the work is to end: `pruned`; None where it may go on.
    """

    def __init__(self) -> None:
        self.stop: str | None = None
        self._stopped = threading.Event()

    def hear(self, line: bytes) -> None:
        """Take a line of JSON, `{"stop": "pruned"}`; anything else says nothing to us, and is no reason to fail."""
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict) and isinstance(word := message.get("stop"), str):
                self.stop = word
                self._stopped.set()

    def wait(self, seconds: float) -> None:
        """Wait until there is an order to stop, at most so long: the driver is deciding on what it was just told."""
        self._stopped.wait(seconds)
