import dataclasses
import math

import numpy as np
import pytest

from mlflow_yolo.attribution.localisation import energy_inside, localise, points_inside, summarise
from mlflow_yolo.exceptions import ArgumentError, InputError, ShapeError

MAP = np.array([[4.0, 1.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0]])
MASK = np.array([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])


def test_energy_inside_by_hand():
    assert energy_inside(MAP, MASK) == pytest.approx((4 + 0.5) / 8)


def test_energy_of_a_uniform_map_is_the_area_fraction_and_of_the_mask_itself_is_1():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((7, 9))
        assert energy_inside(np.full((7, 9), 3.0), mask) == pytest.approx(mask.mean())
        assert energy_inside(mask > 0.5, (mask > 0.5).astype(float)) == 1.0


@pytest.mark.parametrize("scale", [1e-40, 1e-8, 1.0, 1e30])
def test_the_scale_of_a_map_does_not_matter(scale):
    before, after = localise(MAP, MASK), localise((MAP * scale).astype(np.float32), MASK)
    np.testing.assert_allclose(dataclasses.astuple(after), dataclasses.astuple(before), rtol=1e-4)


def test_the_peak_points_at_cells_that_are_half_covered():
    assert points_inside(MAP, MASK) == 1.0
    assert points_inside(MAP[:, ::-1], MASK) == 0.0
    assert points_inside(np.eye(2, 4, k=1), MASK) == 0.5  # one of two tied peaks lies on the half-covered cell
    assert points_inside(np.eye(2, 4, k=1), MASK - 0.1 * (MASK == 0.5)) == 0.0


def test_an_object_that_covers_no_cell_by_half_is_where_it_covers_most():
    tiny = np.zeros((3, 3))
    tiny[1, 1], tiny[1, 2] = 0.04, 0.01
    on_it, beside_it = np.zeros((3, 3)), np.zeros((3, 3))
    on_it[1, 1], beside_it[1, 2] = 1, 1
    assert (points_inside(on_it, tiny), points_inside(beside_it, tiny)) == (1.0, 0.0)


def test_the_tolerance_is_a_distance_between_centres_of_cells():
    mask, peak = np.zeros((6, 6)), np.zeros((6, 6))
    mask[0, 0], peak[3, 4] = 1, 1  # 5 cells away
    assert points_inside(peak, mask, tolerance=4.99) == 0.0
    assert points_inside(peak, mask, tolerance=5.0) == 1.0


@pytest.mark.parametrize("tolerance", [0.0, 1.5])
def test_the_pointing_baseline_is_the_mean_over_all_single_cell_maps_and_that_of_a_uniform_map(tolerance):
    mask = np.zeros((5, 6))
    mask[1:3, 2:5], mask[3, 2] = 1, 0.3
    cells = np.eye(30).reshape(30, 5, 6)
    chance = np.mean([points_inside(cell, mask, tolerance=tolerance) for cell in cells])
    found = localise(np.ones((5, 6)), mask, tolerance=tolerance)
    assert found.pointing == found.pointing_baseline == pytest.approx(chance)


def test_a_uniform_map_is_at_every_baseline():
    mask = np.random.default_rng(1).random((6, 7)) ** 5
    found = localise(np.full((6, 7), 0.2), mask)
    assert found.energy == pytest.approx(found.coverage)
    assert found.energy_ratio == pytest.approx(1.0)
    assert found.attention_iou == pytest.approx(found.attention_iou_baseline)


def test_no_map_passes_the_ceiling_and_the_best_reaches_it():
    rng = np.random.default_rng(2)
    mask = np.zeros((8, 8))
    mask[:5, :5] = 1  # a class that fills 25 / 64 of the image
    best = localise(mask, mask)
    assert best.energy_ratio == best.energy_ceiling == pytest.approx(64 / 25)
    for _ in range(50):
        found = localise(rng.random((8, 8)) ** rng.integers(1, 20), mask)
        assert found.energy_ratio <= found.energy_ceiling


def test_the_ceiling_of_an_object_smaller_than_a_cell_is_below_1_over_its_area():
    mask = np.zeros((4, 4))
    mask[2, 1] = 0.25
    found = localise(mask > 0, mask)
    assert found.energy == 0.25
    assert found.energy_ratio == found.energy_ceiling == pytest.approx(16)  # not 1 / (0.25 / 16) = 64


@pytest.mark.parametrize(
    ("map", "mask"),
    [
        (np.zeros((3, 3)), np.eye(3)),
        (np.eye(3), np.zeros((3, 3))),
        (np.full((3, 3), np.nan), np.eye(3)),
        (np.where(np.eye(3), np.inf, 1), np.eye(3)),
    ],
    ids=["map of zeros", "no object", "nan", "infinite"],
)
def test_what_cannot_be_compared_is_nan_in_every_number(map, mask):
    found = localise(map, mask)
    assert not found.is_measured
    assert np.isnan(dataclasses.astuple(found)).all()
    assert math.isnan(energy_inside(map, mask))
    assert math.isnan(points_inside(map, mask))


def test_a_map_of_one_cell_has_nothing_to_say():
    found = localise(np.ones((1, 1)), np.array([[0.4]]))
    assert (found.energy, found.coverage, found.energy_ceiling) == (0.4, 0.4, 1.0)
    assert math.isnan(summarise([found]).attention_iou_lift)  # score and baseline are both 1


def test_summary_by_hand_leaves_out_and_counts_what_is_empty():
    ones = np.ones((1, 4))
    quarter, half = np.array([[1.0, 0, 0, 0]]), np.array([[1.0, 1.0, 0, 0]])
    found = summarise([localise(quarter, quarter), localise(ones, half), localise(0 * ones, half)])
    assert (found.n, found.n_left_out) == (2, 1)
    assert found.energy == pytest.approx((1 + 0.5) / 2)
    assert found.coverage == pytest.approx((0.25 + 0.5) / 2)
    assert found.energy_ratio == pytest.approx(2.0)
    assert found.energy_ceiling == pytest.approx(1 / 0.375)
    assert (found.pointing, found.pointing_baseline) == (pytest.approx(0.75), pytest.approx(0.375))
    score, baseline = (1 + 0.8) / 2, (4 / 7 + 0.8) / 2  # a uniform map on f: 4 f / (1 + 3 f)
    assert found.attention_iou == pytest.approx(score)
    assert found.attention_iou_baseline == pytest.approx(baseline)
    assert found.attention_iou_lift == pytest.approx((score - baseline) / (1 - baseline))


def test_a_summary_of_nothing_says_so():
    for localisations in ([], [localise(np.zeros((2, 2)), np.eye(2))]):
        found = summarise(localisations)
        assert (found.n, found.n_left_out) == (0, len(localisations))
        assert np.isnan(dataclasses.astuple(found)[2:]).all()


def test_input_that_does_not_fit_is_named():
    with pytest.raises(ShapeError, match=r"\(2, 4\).*\(4, 2\)"):
        energy_inside(MAP, MASK.T)
    with pytest.raises(ShapeError, match=r"\(1, 2, 4\)"):
        localise(MAP[None], MASK[None])
    with pytest.raises(InputError, match="-4"):
        energy_inside(-MAP, MASK)
    with pytest.raises(InputError, match="255"):
        points_inside(MAP, MASK * 255)
    with pytest.raises(ArgumentError, match="tolerance=-1"):
        points_inside(MAP, MASK, tolerance=-1)


def test_an_object_in_the_middle_is_found_by_a_look_at_the_middle_and_one_in_a_corner_is_not():
    middle, corner = np.zeros((9, 9)), np.zeros((9, 9))
    middle[3:6, 3:6], corner[:3, :3] = 1, 1
    map = np.ones((9, 9))
    assert localise(map, middle).attention_iou_centre > localise(map, middle).attention_iou_baseline
    assert localise(map, corner).attention_iou_centre < localise(map, corner).attention_iou_baseline
    assert summarise([localise(map, middle), localise(map, corner)]).attention_iou_centre == pytest.approx(
        (localise(map, middle).attention_iou_centre + localise(map, corner).attention_iou_centre) / 2
    )
