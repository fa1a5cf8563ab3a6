"""Watched images follow from the labels alone: hardest, median, easiest, one for each class, never more than 12."""

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
        squares("two", 0, 0),
        squares("one", 0),
    ]

    chosen = choose_images(labels, {0: "dark red", 1: "a/b"})

    assert shown(chosen, labels) == {
        "cam/01-hardest": "five",
        "cam/02-median": "three",
        "cam/03-easiest": "one",
        "cam/04-dark red": "two",
        "cam/05-a_b": "four",
    }
    assert [(one.title, one.class_id) for one in chosen[3:]] == [("dark red", 0), ("a/b", 1)]


def test_a_rare_class_gets_its_only_image_before_a_frequent_one_takes_it() -> None:
    labels = [
        squares("a", 0),
        squares("b", 0, 1),
        *(squares(name, *[0] * n) for name, n in (("c", 3), ("d", 4), ("e", 5))),
    ]

    assert shown(choose_images(labels, {}), labels) == {
        "cam/01-hardest": "e",
        "cam/02-median": "c",
        "cam/03-easiest": "a",
        "cam/04-0": "d",  # b is the lower median of b and d
        "cam/05-1": "b",
    }


def test_an_image_is_shown_again_for_a_class_that_is_nowhere_else() -> None:
    labels = [squares("a", 0), squares("b", 0, 1), squares("c", 0, 0, 0)]

    chosen = choose_images(labels, {})

    assert shown(chosen, labels)["cam/02-median"] == shown(chosen, labels)["cam/05-1"] == "b"
    assert [one.class_id for one in chosen if labels[one.image].name == "b"] == [None, 0, 1]


def test_neither_the_order_nor_the_folder_of_the_images_has_an_influence() -> None:
    numbers = random.Random(0)
    labels = [squares(f"{i:03}", *(numbers.randrange(5) for _ in range(numbers.randrange(1, 5)))) for i in range(40)]
    moved = [replace(one, name=f"/elsewhere/{one.name}") for one in labels]
    shuffled = numbers.sample(moved, len(moved))

    names = {key: f"/elsewhere/{name}" for key, name in shown(choose_images(labels, {}), labels).items()}
    assert shown(choose_images(shuffled, {}), shuffled) == names


def test_of_many_classes_those_with_the_most_objects_are_shown() -> None:
    labels = [squares(f"{c}-{i}", c) for c in range(20) for i in range(1 + c % 10)]

    chosen = choose_images(labels, {})

    assert len(chosen) == 12
    assert [one.class_id for one in chosen[3:]] == [
        5,
        6,
        7,
        8,
        9,
        16,
        17,
        18,
        19,
    ]  # 15 has as many as 5, which is first
    assert len({one.image for one in chosen}) == 12


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        ([], []),
        ([image("empty"), image("bare")], []),
        ([image("empty"), squares("only", 3)], ["cam/01-hardest", "cam/04-three"]),
        ([squares("one", 3), squares("two", 3, 3)], ["cam/01-hardest", "cam/02-median", "cam/04-three"]),
    ],
)
def test_what_there_is_is_shown_of_few_images(labels: Sequence[Labels], keys: Sequence[str]) -> None:
    chosen = choose_images(labels, {3: "three"})

    assert [one.key for one in chosen] == keys
    assert all(labels[one.image].classes.size for one in chosen)


def test_of_a_classifier_the_middle_image_of_each_class_is_shown() -> None:
    labels = [Labels(f"{c}/{i}.png", np.array([c]), np.zeros((0, 4))) for c in range(3) for i in range(5)]

    assert shown(choose_images(labels, {0: "cat", 1: "dog", 2: "owl"}), labels) == {
        "cam/01-cat": "0/2.png",
        "cam/02-dog": "1/2.png",
        "cam/03-owl": "2/2.png",
    }
    assert len(choose_images([replace(one, classes=one.classes + 3 * i) for i, one in enumerate(labels)], {})) == 12
