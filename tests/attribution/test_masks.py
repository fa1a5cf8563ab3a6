import numpy as np
import pytest

from mlflow_yolo.attribution.masks import box_mask, polygon_mask, resize_mask
from mlflow_yolo.exceptions import InputError, ShapeError

NO_BOXES = np.zeros((0, 4))


def rectangle(x1, y1, x2, y2):
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=float)


def rotated_box(rng):
    """Return the corners of a rotated box in a frame of 64 x 96, some of it perhaps outside."""
    angle, (w, h) = rng.uniform(0, np.pi), rng.uniform(5, 50, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rectangle(-w / 2, -h / 2, w / 2, h / 2) @ turn.T + rng.uniform(0, [96, 64])


def is_inside_convex(corners, points):
    """Return which (..., 2) points lie on the same side of all edges: an oracle that knows nothing of crossings."""
    ahead = np.roll(corners, -1, axis=0) - corners
    to_point = points[..., None, :] - corners
    side = ahead[:, 0] * to_point[..., 1] - ahead[:, 1] * to_point[..., 0]
    return (side >= 0).all(axis=-1) | (side <= 0).all(axis=-1)


def test_coverage_of_two_overlapping_boxes_by_hand():
    mask = box_mask(np.array([[0, 0, 10, 10], [5, 5, 25, 15]]), size=(20, 30), grid=(2, 3))
    # cells of 10 x 10: the second box has a quarter in cell 0, which the first fills; 10 x 5 in cell 1; 5 x 5 in cell 2
    np.testing.assert_allclose(mask, [[1, 0.5, 0.25], [0.25, 0.5, 0.25]])


def test_union_of_boxes_equals_counting_pixels():
    rng = np.random.default_rng(0)
    corners = rng.integers(-20, 120, (12, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.min(axis=1) + rng.integers(1, 30, (12, 2))], axis=1)
    pixels = np.zeros((63, 90))
    for x1, y1, x2, y2 in np.clip(boxes, 0, None):
        pixels[y1:y2, x1:x2] = 1
    mask = box_mask(boxes, size=(63, 90), grid=(7, 9))
    np.testing.assert_allclose(mask, pixels.reshape(7, 9, 9, 10).mean(axis=(1, 3)), atol=1e-12)
    assert 0 < mask.mean() < 1


def test_area_of_two_boxes_follows_inclusion_and_exclusion_on_a_grid_that_does_not_divide_the_frame():
    a, b = np.array([3.3, 2.1, 41.7, 30.2]), np.array([20.4, 11.9, 77.7, 47.5])
    common = (41.7 - 20.4) * (30.2 - 11.9)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    mask = box_mask(np.stack([a, b]), size=(50, 80), grid=(7, 13))
    assert mask.mean() * 50 * 80 == pytest.approx(sum(areas) - common, rel=1e-12)
    assert mask.max() == 1.0


def test_an_object_smaller_than_a_cell_is_not_lost():
    mask = box_mask(np.array([[33.0, 17.0, 35.0, 21.0]]), size=(64, 64), grid=(2, 2))
    np.testing.assert_allclose(mask, [[0, 8 / 1024], [0, 0]])


def test_order_and_repetition_of_boxes_do_not_matter():
    boxes = np.random.default_rng(1).uniform(0, 40, (6, 4))
    boxes[:, 2:] += boxes[:, :2]
    expected = box_mask(boxes, size=(64, 64), grid=(5, 5))
    again = box_mask(np.concatenate([boxes[::-1], boxes]), size=(64, 64), grid=(5, 5))
    np.testing.assert_allclose(again, expected, atol=1e-12)


def test_what_an_object_covers_outside_another_is_the_difference_of_unions():
    a, b = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10]])
    outside = box_mask(np.concatenate([a, b]), size=(10, 20), grid=(1, 2)) - box_mask(a, size=(10, 20), grid=(1, 2))
    np.testing.assert_allclose(outside, [[0, 0.5]])


@pytest.mark.parametrize(
    "boxes", [NO_BOXES, [[5, 5, 5, 9]], [[9, 9, 5, 5]], [[-9, -9, -1, -1]], [[70, 3, 90, 8]]], ids=str
)
def test_nothing_in_the_frame_gives_zeros(boxes):
    mask = box_mask(np.array(boxes), size=(64, 64), grid=(4, 3))
    assert mask.shape == (4, 3)
    assert not mask.any()


def test_a_triangle_covers_half_of_its_square():
    # the diagonal halves the cells on it; the lines of a cell lie symmetric about its middle, so this is exact
    mask = polygon_mask([np.array([[0, 0], [30, 0], [0, 30]])], size=(30, 30), grid=(3, 3))
    np.testing.assert_allclose(mask, [[1, 1, 0.5], [1, 0.5, 0], [0.5, 0, 0]], atol=1e-12)


def test_polygons_equal_counting_points_in_rotated_boxes():
    rng = np.random.default_rng(2)
    polygons = [rotated_box(rng) for _ in range(6)]
    x, y = np.meshgrid((np.arange(96 * 8) + 0.5) / 8, (np.arange(64 * 8) + 0.5) / 8)
    inside = np.any([is_inside_convex(corners, np.stack([x, y], axis=-1)) for corners in polygons], axis=0)
    expected = inside.reshape(8, 64, 12, 64).mean(axis=(1, 3))
    mask = polygon_mask(polygons, size=(64, 96), grid=(8, 12))
    np.testing.assert_allclose(mask, expected, atol=0.02)
    assert 0.05 < mask.mean() < 0.95


def test_a_polygon_that_is_a_box_covers_what_the_box_covers():
    box = np.array([[7.3, 5.2, 50.1, 33.3]])
    mask = polygon_mask([rectangle(*box[0])], size=(48, 64), grid=(6, 8))
    np.testing.assert_allclose(mask, box_mask(box, size=(48, 64), grid=(6, 8)), atol=1 / 32 + 1e-12)


def test_overlapping_polygons_count_once_and_a_bow_tie_by_the_even_odd_rule():
    one = rectangle(0, 0, 20, 20)
    twice = polygon_mask([one, one[::-1], rectangle(10, 0, 30, 20)], size=(40, 40), grid=(2, 2))
    np.testing.assert_allclose(twice, [[1, 0.5], [0, 0]], atol=1e-12)
    # a short one within a long one must not hide from a third how far the long one reached
    nested = [rectangle(0, 0, 40, 5), rectangle(5, 0, 10, 5), rectangle(20, 0, 30, 5)]
    np.testing.assert_allclose(polygon_mask(nested, size=(10, 40), grid=(1, 4)), np.full((1, 4), 0.5), atol=1e-12)
    bow_tie = np.array([[0, 0], [40, 0], [0, 40], [40, 40]])
    np.testing.assert_allclose(polygon_mask([bow_tie], size=(40, 40), grid=(1, 1)), [[0.5]], atol=1e-12)


def test_corners_that_lie_on_a_measuring_line_lose_no_area():
    # in a frame of one 16 x 16 cell the lines are at 0.5, 1.5, ...: the widest one passes through two corners
    diamond = np.array([[8, 0], [16, 7.5], [8, 15], [0, 7.5]])
    for corners in (diamond, diamond[::-1]):
        found = polygon_mask([corners], size=(16, 16), grid=(1, 1))
        assert found[0, 0] == pytest.approx(16 * 15 / 2 / 256, abs=0.005)  # a lost line would be 0.06


def test_polygons_beyond_the_frame_are_cut_and_those_without_area_ignored():
    mask = polygon_mask([rectangle(-50, -50, 10, 10)], size=(20, 20), grid=(2, 2))
    np.testing.assert_allclose(mask, [[1, 0], [0, 0]], atol=1e-12)
    flat = [np.array([[3, 3], [9, 9]]), np.array([[3, 3], [9, 3], [15, 3]]), np.zeros((0, 2))]
    assert not polygon_mask(flat, size=(20, 20), grid=(2, 2)).any()
    assert not polygon_mask([], size=(20, 20), grid=(2, 2)).any()


def test_resized_mask_by_hand_and_with_cells_that_cut_pixels():
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    np.testing.assert_allclose(resize_mask(mask, (1, 2)), [[0.75, 0]])
    # three cells of 4/3 pixels in a line of 1 1 0 0: 1, (2/3) / (4/3), 0
    np.testing.assert_allclose(resize_mask(mask[:1], (1, 3)), [[1, 0.5, 0]])
    np.testing.assert_allclose(resize_mask(mask, (4, 4)), np.repeat(mask, 2, axis=0))


def test_resizing_keeps_the_mean_and_agrees_with_the_box_it_was_drawn_from():
    pixels = np.zeros((50, 80))
    pixels[11:37, 8:71] = 1
    resized = resize_mask(pixels, (7, 13))
    assert resized.mean() == pytest.approx(pixels.mean())
    np.testing.assert_allclose(resized, box_mask(np.array([[8, 11, 71, 37]]), size=(50, 80), grid=(7, 13)), atol=1e-12)


def test_input_that_does_not_fit_is_named():
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        box_mask(np.zeros((2, 3)), size=(9, 9), grid=(3, 3))
    with pytest.raises(ShapeError, match=r"\(5, 3\)"):
        polygon_mask([np.zeros((5, 3))], size=(9, 9), grid=(3, 3))
    with pytest.raises(ShapeError, match=r"\(2, 9, 9\)"):
        resize_mask(np.zeros((2, 9, 9)), (3, 3))
    with pytest.raises(ShapeError, match=r"\(0, 3\)"):
        box_mask(NO_BOXES, size=(9, 9), grid=(0, 3))
    with pytest.raises(InputError, match="not finite"):
        box_mask(np.array([[0, 0, np.nan, 4]]), size=(9, 9), grid=(3, 3))
    with pytest.raises(InputError, match="not finite"):
        polygon_mask([np.array([[0, 0], [np.inf, 4], [3, 3]])], size=(9, 9), grid=(3, 3))
