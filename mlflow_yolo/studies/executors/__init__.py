"""Where a study's jobs run: here in processes of their own (`local`), or on the machines of a Ray cluster (`ray`).

Both speak with their workers in JSON lines, so that a study does not see where it runs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """One training to run: its key in the study, and the file that says what to do."""

    key: str
    file: Path


@dataclass(frozen=True)
class Event:
    """What a worker said: `progress` with values, or `ended` with `exit_code`."""

    key: str
    kind: str
    values: dict[str, Any] = field(default_factory=dict)


NextJob = Callable[[], Job | None]
"""Called whenever a job can start; None where there is none for now: it is asked again after the next event."""


class Executor(Protocol):
    """Where the jobs of a study run."""

    def run(self, next_job: NextJob) -> Iterator[Event]:
        """Yield what the jobs say, until none is running and there is no next one.

        Closing the iterator ends the workers.
        """

    def tell(self, key: str, message: Mapping[str, Any]) -> None:
        """Send a message to a running job, for example `{"stop": "pruned"}`; one that has ended gets none."""
