"""How far a command is, on the terminal: one bar for each of its stages."""

import sys
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm


class Stages:
    """A bar that is begun anew for every stage; nothing where the terminal is a file.

    Use as a context manager.
    """

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> "Stages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def begin(self, name: str, total: int, unit: str = "picture") -> Callable[[int], object]:
        """Begin a stage and return what is told how much was done since."""
        self._close()
        bar: tqdm[None] = tqdm(total=total, desc=name, unit=unit, file=sys.stderr, disable=None, leave=False)
        self._bar = bar
        return lambda n: bar.update(n)

    def count(self, name: str, unit: str = "batch") -> Callable[[int, int], None]:
        """Return what is told how much was done, and of how much, for a stage whose size is known when it has begun."""
        state: list[Callable[[int], object]] = []
        told = 0

        def count(done: int, total: int) -> None:
            nonlocal told
            if not state:
                state.append(self.begin(name, total, unit))
            state[0](done - told)
            told = done

        return count

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
