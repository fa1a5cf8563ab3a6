"""Requests that wait for a worker: a bounded line, taken in order, in batches where one is wanted."""

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from mlflow_yolo.deployment.inference.backend import Answer, Options
from mlflow_yolo.runtime.images import Pixels


@dataclass(frozen=True, eq=False)
class Request:
    """One image and who waits for it.

    Attributes:
        image: An encoded file, or pixels.
        options: Which detections are wanted.
        deadline: `time.perf_counter()` after which nobody waits any more.
        future: Gets the answer.
        taken: `time.perf_counter()` when it came.
    """

    image: bytes | Pixels
    options: Options
    deadline: float
    future: "Future[Answer]" = field(default_factory=Future)
    taken: float = field(default_factory=time.perf_counter)


class Line:
    """Requests in the order in which they came, as many as may wait.

    Attributes:
        closed: Whether it takes no more.
    """

    def __init__(self, max_queue: int, *, batch_wait_s: float = 0.0) -> None:
        """Make an empty line.

        Args:
            max_queue: Largest number of requests that wait.
            batch_wait_s: How long the first of a batch may wait for others, counted from when it came.
        """
        self.closed = False
        self._max_queue = max_queue
        self._batch_wait_s = batch_wait_s
        self._requests: deque[Request] = deque()
        self._change = threading.Condition()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._requests)

    def put(self, request: Request) -> bool:
        """Let a request wait; return whether there was room. A closed line has none."""
        with self._change:
            if len(self._requests) >= self._max_queue:
                # Who went away leaves a cancelled future behind, which must not take the place of one who is here.
                self._requests = deque(one for one in self._requests if not one.future.cancelled())
            if self.closed or len(self._requests) >= self._max_queue:
                return False
            self._requests.append(request)
            self._change.notify()
        return True

    def take(self, sizes: tuple[int, ...] = (1,)) -> list[Request]:
        """Wait for requests and return some; an empty list once the line is closed and nobody waits.

        Args:
            sizes: How many may be taken at once, ascending, the first of them 1: the largest that the line fills.
        """
        with self._change:
            while not self._requests:
                if self.closed:
                    return []
                self._change.wait()
            if self._batch_wait_s and sizes[-1] > 1:
                self._wait_for_more(sizes[-1])
            size = max((one for one in sizes if one <= len(self._requests)), default=0)
            taken = [self._requests.popleft() for _ in range(size)]
            if self._requests:
                self._change.notify()  # the call that woke us may have been meant for another worker too
        return taken

    def close(self) -> None:
        """Take no more; those who wait may still be taken."""
        with self._change:
            self.closed = True
            self._change.notify_all()

    def drain(self) -> list[Request]:
        """Return all who wait, and leave nobody."""
        with self._change:
            left, self._requests = list(self._requests), deque()
            self._change.notify_all()
        return left

    def _wait_for_more(self, wanted: int) -> None:
        while self._requests and len(self._requests) < wanted and not self.closed:
            left_s = self._requests[0].taken + self._batch_wait_s - time.perf_counter()
            if left_s <= 0 or not self._change.wait(left_s):
                return
