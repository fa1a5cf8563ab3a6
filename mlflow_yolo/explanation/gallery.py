"""Which examples are shown where: by class its worst and its best, by confused pair its cases."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mlflow_yolo import keys
from mlflow_yolo.figures.example import Example

Case = TypeVar("Case", bound=Hashable)
Case_co = TypeVar("Case_co", bound=Hashable, covariant=True)
Pair = tuple[int, int]
"""A true class and the one it was taken for."""


class Ranked(Protocol[Case_co]):
    """The cases of one class."""

    @property
    def worst(self) -> Sequence[Case_co]:
        """The worst first."""

    @property
    def best(self) -> Sequence[Case_co]:
        """The best first."""


@dataclass(frozen=True, eq=False)
class Chosen(Generic[Case]):
    """The cases worth a look.

    Attributes:
        classes: Of every class.
        pairs: Of the most confused pairs, the most confused first.
    """

    classes: Mapping[int, Ranked[Case]]
    pairs: Mapping[Pair, Sequence[Case]]

    def cases(self) -> list[Case]:
        """Return every case once."""
        of_classes = [case for of in self.classes.values() for case in (*of.worst, *of.best)]
        return list(dict.fromkeys([*of_classes, *(case for of in self.pairs.values() for case in of)]))


@dataclass(frozen=True, eq=False)
class Gallery:
    """Drawn cases.

    Attributes:
        worst: By class.
        best: By class.
        pairs: By confused pair.
    """

    worst: Mapping[int, Sequence[Example]]
    best: Mapping[int, Sequence[Example]]
    pairs: Mapping[Pair, Sequence[Example]]

    def files(self, names: Sequence[str]) -> dict[str, list[Example]]:
        """Return the examples of every picture file by its path without ending; no file where there is none."""
        folders = keys.class_segments(names)
        files = {f"worst/{folders[c]}": [*worst, *self.best[c]] for c, worst in self.worst.items()}
        files |= {f"pairs/{folders[t]}__{folders[p]}": [*of] for (t, p), of in self.pairs.items()}
        return {path: examples for path, examples in files.items() if examples}


def hang(chosen: Chosen[Case], drawn: Mapping[Case, Example]) -> Gallery:
    """Return the gallery of chosen cases.

    Args:
        chosen: The cases.
        drawn: What was drawn of each.
    """
    return Gallery(
        worst={c: [drawn[case] for case in of.worst] for c, of in chosen.classes.items()},
        best={c: [drawn[case] for case in of.best] for c, of in chosen.classes.items()},
        pairs={pair: [drawn[case] for case in of] for pair, of in chosen.pairs.items()},
    )
