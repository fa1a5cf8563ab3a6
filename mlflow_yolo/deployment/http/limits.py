"""How much one request may ask of a server, and how it is told that it asked too much."""

import math
from dataclasses import dataclass, fields

from mlflow_yolo.exceptions import ArgumentError, InputError


class Refused(InputError):
    """A request that is not answered, with the HTTP status that says why.

    Attributes:
        status: 4xx.
        retry_after_s: Whole seconds after which to come again; None where that would not help.
        unread: The body was not read to its end, so that the connection cannot be used again.
    """

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None, unread: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.unread = unread


@dataclass(frozen=True)
class Limits:
    """How much one request may ask of a server.

    Attributes:
        max_body_mb: Largest body, 10^6 bytes.
        max_pixels: Largest image, width times height, as its header says before anything is decoded.
        max_batch: Most images of one request.
        timeout_s: Longest time to send a body, and then again to be answered, seconds.
        max_held_mb: Bodies that are in memory at once, all requests together, 10^6 bytes.

    Raises:
        ArgumentError: A limit is not above 0, or one body is larger than all bodies may be.
    """

    max_body_mb: float = 16
    max_pixels: float = 50e6
    max_batch: int = 32
    timeout_s: float = 30
    max_held_mb: float = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ArgumentError(f"{field.name}={value} lets nothing through. Use a number above 0.")
        if self.max_held_mb < self.max_body_mb:
            raise ArgumentError(
                f"max_held_mb={self.max_held_mb:g} has no room for one body of max_body_mb={self.max_body_mb:g}. "
                "Use at least as much."
            )

    @property
    def body_bytes(self) -> int:
        """Largest body, bytes."""
        return int(self.max_body_mb * 1e6)

    @property
    def held_bytes(self) -> int:
        """Largest sum of bodies in memory, bytes."""
        return int(self.max_held_mb * 1e6)
