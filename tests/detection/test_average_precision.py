import numpy as np
import pytest

from mlflow_yolo.detection.average_precision import RECALL_POINTS, average_precision, envelope, points_gained


def _column(*values):
    return np.array(values, dtype=float)[:, None]


def test_right_wrong_right_of_two_objects_by_hand():
    # precision 1 up to recall .5 (51 points), then 2/3 (50 points)
    ap = average_precision(_column(1, 2), _column(1, 3), np.array([2.0]))
    assert ap[0] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-15)


def test_the_envelope_lifts_precision_to_the_best_that_follows():
    np.testing.assert_allclose(envelope(_column(1, 2, 3), _column(4, 5, 9))[:, 0], [0.4, 0.4, 1 / 3])


def test_points_gained_equals_a_search_in_the_recalls():
    for n_objects in range(1, 301):
        tp = np.arange(1.0, n_objects + 1)
        first_to_reach = np.searchsorted(tp / n_objects, RECALL_POINTS, side="left")
        expected = np.bincount(first_to_reach, minlength=n_objects)
        np.testing.assert_array_equal(points_gained(tp[:, None], np.array([n_objects]))[:, 0], expected)


def test_a_detection_that_is_repeated_counts_as_often():
    # weights 2, 0, 3 of right, wrong, right: as five detections that are all right
    weighted = average_precision(_column(2, 5), _column(2, 5), np.array([10.0]))
    repeated = average_precision(_column(1, 2, 3, 4, 5), _column(1, 2, 3, 4, 5), np.array([10.0]))
    assert weighted[0] == pytest.approx(repeated[0], abs=1e-15)
    assert weighted[0] == pytest.approx(51 / 101, abs=1e-15)


def test_a_true_positive_of_weight_zero_changes_nothing():
    with_it = average_precision(_column(0, 1, 1), _column(0, 2, 3), np.array([4.0]))
    without = average_precision(_column(1), _column(2), np.array([4.0]))
    assert with_it[0] == pytest.approx(without[0], abs=1e-15)


def test_nothing_right_is_zero_and_no_object_is_nan():
    nothing = np.zeros((0, 2))
    np.testing.assert_array_equal(average_precision(nothing, nothing, np.array([3.0, 0.0])), [0.0, np.nan])
