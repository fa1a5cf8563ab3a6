"""How a training ended, read from the exception that is on its way through Ultralytics' `finally`."""

import sys
from dataclasses import dataclass

_INTERRUPTIONS = frozenset({"KeyboardInterrupt", "SystemExit", "GeneratorExit"})
_PRUNED = "TrialPruned"
"""Optuna's signal that a trial was given up on purpose; known by name, so that Optuna need not be installed."""


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        status: `FINISHED`, `FAILED` or `KILLED`.
        state: Why it was killed: `interrupted` or `pruned`; None otherwise.
    """

    status: str
    state: str | None = None


def propagating(ambient: BaseException | None) -> BaseException | None:
    """Return the exception that is leaving the current code, None where there is none.

    Args:
        ambient: What `sys.exc_info()[1]` was before: a training that is started inside an `except` block (a second try
            with a smaller batch) still sees the exception of the first.
    """
    error = sys.exc_info()[1]
    return None if error is ambient else error


def outcome_of(error: BaseException | None) -> Outcome:
    """Return status and state of a run that `error` ended; FINISHED without one."""
    if error is None:
        return Outcome("FINISHED")
    names = {kind.__name__ for kind in type(error).__mro__}
    if _PRUNED in names:
        return Outcome("KILLED", "pruned")
    if names & _INTERRUPTIONS:
        return Outcome("KILLED", "interrupted")
    return Outcome("FAILED")
