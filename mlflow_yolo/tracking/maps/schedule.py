"""After which epochs maps are made: often enough to see the model learn, seldom enough not to be felt.

Before the first one they are made in any case, as step 0: what the training begins with.
"""

from mlflow_yolo.exceptions import ArgumentError

BUDGET = 0.03
"""Share of a training's time that maps may take."""

SETS = 16
"""Sets of maps that a training has at most: each is a dozen pictures, and the UI's slider has a stop for each."""

START = 0
"""The step of the maps that are made before the first epoch. MLflow's image grid opens there, with maps or without."""

OFF = 0


def check_interval(value: int | str | None, *, name: str = "maps") -> int | None:
    """Return every how many epochs maps are wanted.

    Args:
        value: A number of epochs; True, `auto` or None for what the budget allows, False, `off` or 0 for none.
        name: What the user calls it.

    Returns:
        None for what the budget allows, 0 for none.

    Raises:
        ArgumentError: Anything else.
    """
    if value is None or value is True or value == "auto":
        return None
    if value is False or value == "off":
        return OFF
    try:
        every = int(value)
    except (TypeError, ValueError):
        every = -1
    if every < 0 or every != float(value):
        raise ArgumentError(f"{name}={value} is no number of epochs. Use 1 or more, auto, or off.")
    return every


def interval(*, n_epochs: int, cost_s: float, epoch_s: float) -> int:
    """Return every how many epochs maps can be made within the budget of a whole training, start and end included.

    A power of two, so that runs of different speed still share epochs to be compared at. The start and the last epoch
    have maps in any case; a training of which these two alone take more has no others.

    Args:
        n_epochs: Epochs of the training.
        cost_s: Seconds that a set of maps takes; 0 before the first.
        epoch_s: Seconds of an epoch.
    """
    allowed = min(float(SETS), BUDGET * n_epochs * epoch_s / cost_s) if cost_s > 0 else float(SETS)
    every = 1
    while every < n_epochs and n_sets(n_epochs, every) > allowed:
        every *= 2
    return every


def n_sets(n_epochs: int, every: int) -> int:
    """Return how many sets of maps a whole training has: that of the start, and one for each epoch that is due."""
    return 1 + n_epochs // every + (n_epochs % every > 0)


def is_due(epoch: int, every: int, *, is_last: bool) -> bool:
    """Return whether an epoch, counted from 1, is the last or one of every so many; the start, 0, always is."""
    return is_last or epoch % every == 0
