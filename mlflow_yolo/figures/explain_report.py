"""The page on which a model's predictions are looked at, class by class, with maps of where it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlflow_yolo.figures import html
from mlflow_yolo.figures.example import Example


@dataclass(frozen=True, eq=False)
class ClassPage:
    """What the page shows of one class.

    Attributes:
        name: The class's name.
        facts: Names and values in the order of reading, for example {"accuracy": 0.67, "images": 100}; the page sorts
            the classes by those that are numbers.
        worst: Its worst predictions, worst first.
        best: Its best predictions, best first.
    """

    name: str
    facts: Mapping[str, object] = field(default_factory=dict)
    worst: Sequence[Example] = ()
    best: Sequence[Example] = ()


@dataclass(frozen=True, eq=False)
class PairPage:
    """What the page shows of two classes of which one is taken for the other.

    Attributes:
        true: Name of the true class.
        predicted: Name of the class it is taken for.
        facts: Names and values, for example {"confused": 12, "rate": 0.12}.
        examples: Cases, the most confident first.
    """

    true: str
    predicted: str
    facts: Mapping[str, object] = field(default_factory=dict)
    examples: Sequence[Example] = ()


def explain_report(
    title: str,
    *,
    answer: Sequence[str],
    facts: Mapping[str, object] | None = None,
    classes: Sequence[ClassPage] = (),
    pairs: Sequence[PairPage] = (),
    sections: Sequence[html.Section] = (),
) -> str:
    """Return the page as text: HTML with inline style and script, no request to anywhere."""
    raise NotImplementedError
