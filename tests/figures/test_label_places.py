from itertools import combinations

import numpy as np
import pytest

from mlflow_yolo.figures.label_places import place_labels

FRAME = (0.0, 0.0, 600.0, 400.0)


def boxes(centres, sizes):
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def overlap(a, b) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(np.prod(np.clip(sides, 0, None)))


@pytest.mark.parametrize("seed", range(6))
def test_names_cover_neither_each_other_nor_the_points_and_stay_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform([60, 60], [540, 340], (15, 2))
    radii, sizes = rng.uniform(3, 11, 15), np.stack([rng.uniform(40, 110, 15), np.full(15, 11.0)], axis=1)
    found = boxes(place_labels(points, radii, sizes, FRAME), sizes)
    assert all(overlap(a, b) == 0 for a, b in combinations(found, 2))
    dots = np.concatenate([points - radii[:, None] / 2, points + radii[:, None] / 2], axis=1)
    assert all(overlap(a, dot) == 0 for a in found for dot in dots)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= [600, 400]).all()


def test_a_lonely_name_stands_right_beside_its_point() -> None:
    centre = place_labels(np.array([[300.0, 200.0]]), np.array([5.0]), np.array([[50.0, 10.0]]), FRAME)[0]
    assert centre == pytest.approx([300 + 5 + 3 + 25, 200])


def test_at_the_right_edge_it_moves_to_the_left() -> None:
    centre = place_labels(np.array([[590.0, 200.0]]), np.array([5.0]), np.array([[50.0, 10.0]]), FRAME)[0]
    assert centre[0] < 590


def test_names_of_points_on_one_spot_are_spread() -> None:
    points, sizes = np.full((6, 2), 200.0), np.full((6, 2), [80.0, 12.0])
    found = boxes(place_labels(points, np.full(6, 4.0), sizes, FRAME), sizes)
    assert all(overlap(a, b) == 0 for a, b in combinations(found, 2))


def test_a_name_keeps_off_the_line() -> None:
    line = np.stack([np.linspace(200, 400, 60), np.full(60, 200.0)], axis=1)  # where it would stand otherwise
    centre = place_labels(np.array([[200.0, 200.0]]), np.array([5.0]), np.array([[50.0, 10.0]]), FRAME, line=line)[0]
    assert not (abs(centre[1] - 200) < 5 and centre[0] > 200)


def test_a_name_stands_nearest_to_its_own_point() -> None:
    points = np.array([[200.0, 200.0], [262.0, 200.0]])  # the second would be next to the end of the first's name
    centre = place_labels(points, np.array([4.0, 4.0]), np.array([[50.0, 10.0]] * 2), FRAME)[0]
    box = boxes(centre[None], np.array([[50.0, 10.0]]))[0]
    distances = np.linalg.norm(np.clip(points, box[:2], box[2:]) - points, axis=1)
    assert distances[0] < distances[1]


def test_no_points_have_no_names() -> None:
    empty = np.zeros((0, 2))
    assert place_labels(empty, np.zeros(0), empty, FRAME).shape == (0, 2)
