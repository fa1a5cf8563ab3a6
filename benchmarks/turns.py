"""Pieces of work that are timed in turns, so that what else the machine does hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Work = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """How long one piece of work took, round by round.

    Attributes:
        wall_s: Seconds by the clock.
        cpu_s: Seconds of CPU time of the process, all threads together; other processes disturb it less.
    """

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]


def take_turns(
    works: Mapping[str, Work], n_rounds: int, *, warm_up: bool = True, wait: Work | None = None
) -> dict[str, Times]:
    """Return the times of each piece of work, by name; the order turns around from round to round.

    Args:
        works: What is done, by name.
        n_rounds: Rounds that count.
        warm_up: Whether a round before them is thrown away: the first call of anything allocates and chooses kernels.
        wait: Called before each look at the clock, for a device that computes in the background.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for number in range(-int(warm_up), n_rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            span = _timed(works[name], wait)
            if number >= 0:
                taken[name].append(span)
    return {name: Times(tuple(s[0] for s in spans), tuple(s[1] for s in spans)) for name, spans in taken.items()}


def _timed(work: Work, wait: Work | None) -> tuple[float, float]:
    if wait is not None:
        wait()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if wait is not None:
        wait()
    return time.perf_counter() - wall, time.process_time() - cpu
