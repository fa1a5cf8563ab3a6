"""The images that are watched follow from the labels: hardest, median, easiest, one for each class, never more than 12."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mlflow_yolo.tracking.maps.choice import Chosen, Labels, choose_images, difficulty


def image(name: str, *objects: tuple[int, float, float, float, float]) -> Labels:
    """Return an image's labels; an object is class, x1, y1, x2, y2."""
    boxes = np.array([o[1:] for o in objects], dtype=np.float64).reshape(-1, 4)
    return Labels(name, np.array([o[0] for o in objects], dtype=np.int64), boxes)


def squares(name: str, *classes: int, side: float = 0.1) -> Labels:
    """Return an image with an object of each class, side by side."""
    return image(name, *((c, 0.2 * i, 0.0, 0.2 * i + side, side) for i, c in enumerate(classes)))


def shown(chosen: Sequence[Chosen], labels: Sequence[Labels]) -> dict[str, str]:
    return {one.key: labels[one.image].name for one in chosen}


def test_an_object_counts_by_its_size_and_by_its_largest_overlap() -> None:
    half = (0, 0.0, 0.0, 0.5, 0.5)  # a side of a half
    beside = (0, 0.25, 0.0, 0.75, 0.5)  # an intersection of 1/8, a union of 3/8: IoU 1/3

    assert difficulty(image("one", half)) == pytest.approx(0.5)
    assert difficulty(image("two", half, beside)) == pytest.approx(2 * 0.5 * (1 + 1 / 3))
    assert difficulty(image("none")) == 0.0


@pytest.mark.parametrize(
    "harder",
    [squares("more", 0, 0, 0), squares("smaller", 0, 0, side=0.05), image("nearer", *[(0, 0, 0, 0.1, 0.1)] * 2)],
    ids=["more objects", "smaller objects", "objects on one another"],
)
def test_an_image_is_harder_with(harder: Labels) -> None:
    assert difficulty(harder) > difficulty(squares("plain", 0, 0))


def test_hardest_median_easiest_and_one_of_each_class_are_chosen() -> None:
    labels = [
        squares("five", 0, 0, 0, 0, 0),
        squares("four", 1, 1, 1, 1),
        squares("three", 0, 0, 0),
        squares("two", 0, 1),
        squares("one", 0),
    ]

    chosen = choose_images(labels, {0: "dark red", 1: "a/b"})

    assert shown(chosen, labels) == {
        "cam/01-hardest": "five",
        "cam/02-median": "three",
        "cam/03-easiest": "one",
        "cam/04-dark red": "two",
        "cam/05-a_b": "four",  # the rarer class chose first, the lower median of two and four
    } or shown(chosen, labels) == {
        "cam/01-hardest": "five",
        "cam/02-median": "three",
        "cam/03-easiest": "one",
        "cam/04-dark red": "four",
        "cam/05-a_b": "two",
    }
    assert [one.class_id for one in chosen] == [None, None, None, 0, 1]
