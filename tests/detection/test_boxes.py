import numpy as np
import pytest

from mlflow_yolo.detection.boxes import areas, clip, iou, paired_iou, xywhn_to_xyxy
from mlflow_yolo.exceptions import ShapeError

NONE = np.zeros((0, 4))


def test_iou_of_boxes_that_share_a_quarter_is_one_seventh():
    overlap = iou(np.array([[0, 0, 10, 10]]), np.array([[5, 5, 15, 15], [0, 0, 10, 10], [10, 0, 20, 10]]))
    np.testing.assert_allclose(overlap, [[25 / 175, 1.0, 0.0]])


def test_iou_does_not_change_with_scale_or_place_and_transposes_with_its_arguments():
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.uniform(0, 100, (n, 2, 2)), axis=1).reshape(n, 4) for n in (5, 7))
    assert iou(a, b).max() > 0
    np.testing.assert_allclose(iou(a * 7 + 3, b * 7 + 3), iou(a, b), atol=1e-12)
    np.testing.assert_array_equal(iou(b, a), iou(a, b).T)
    np.testing.assert_array_equal(paired_iou(a, b[:5]), np.diag(iou(a, b[:5])))


def test_iou_of_boxes_without_area_is_zero():
    point = np.array([[3.0, 3.0, 3.0, 3.0]])
    assert iou(point, point) == 0


def test_iou_of_no_boxes_keeps_the_other_axis():
    assert iou(NONE, np.zeros((3, 4))).shape == (0, 3)
    assert iou(np.zeros((2, 4)), NONE).shape == (2, 0)
    assert paired_iou(NONE, NONE).shape == (0,)


def test_area_of_a_box_turned_inside_out_is_zero():
    np.testing.assert_array_equal(areas(np.array([[0, 0, 4, 5], [4, 5, 0, 0], [2, 2, 2, 9]])), [20, 0, 0])
    assert areas(NONE).shape == (0,)


def test_label_of_the_right_lower_quarter_becomes_its_pixels():
    boxes = xywhn_to_xyxy(np.array([[0.75, 0.75, 0.5, 0.5]]), width=200, height=100)
    np.testing.assert_array_equal(boxes, [[100, 50, 200, 100]])
    assert xywhn_to_xyxy(NONE, width=200, height=100).shape == (0, 4)


def test_clip_moves_corners_into_the_image():
    boxes = clip(np.array([[-5, 10, 205, 90], [250, 10, 260, 20]]), width=200, height=80)
    np.testing.assert_array_equal(boxes, [[0, 10, 200, 80], [200, 10, 200, 20]])
    assert clip(NONE, width=200, height=80).shape == (0, 4)


@pytest.mark.parametrize("wrong", [np.zeros(4), np.zeros((2, 5)), np.zeros(0)])
def test_boxes_that_are_not_rows_of_four_raise(wrong):
    with pytest.raises(ShapeError, match=str(wrong.shape).replace("(", r"\(").replace(")", r"\)")):
        iou(wrong, NONE)


def test_pairs_of_different_number_raise():
    with pytest.raises(ShapeError, match=r"\(2, 4\)"):
        paired_iou(np.zeros((2, 4)), np.zeros((3, 4)))
