import numpy as np
import pytest

from mlflow_yolo.detection.operating_measures import Weighing, f_score, measures
from mlflow_yolo.exceptions import ArgumentError

WEIGHING = Weighing(beta=2, c_fp=3, c_fn=10)


def test_measures_are_those_of_the_hand() -> None:
    # Class 0: 3 right of 4, 6 objects; 1: 1 of 4, 1 object; 2: 2 wrong, no object; 3: silent, 2 objects.
    found = measures(np.array([3, 1, 0, 0]), np.array([4, 4, 2, 0]), np.array([6, 1, 0, 2]), 5, WEIGHING)
    assert found["precision"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert found["recall"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["f1"] == pytest.approx((6 / 10 + 2 / 5 + 0) / 3)
    assert found["f_beta"] == pytest.approx((5 * 3 / (4 + 24) + 5 / (4 + 4) + 0) / 3)
    assert (found["tp"], found["fp"], found["fn"]) == (4, 6, 5)
    assert found["cost"] == pytest.approx((3 * 6 + 10 * 5) / 5)
    assert found["detections"] == 2


def test_f_is_the_weighted_harmonic_mean_of_precision_and_recall() -> None:
    precision, recall = 6 / 8, 6 / 12
    for beta in (0.5, 1.0, 2.0):
        expected = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        assert f_score(np.array(6.0), np.array(8.0), np.array(12.0), beta=beta) == pytest.approx(expected)


def test_what_cannot_be_measured_is_nan_and_costs_are_known_all_the_same() -> None:
    found = measures(np.zeros(2), np.array([3.0, 0]), np.zeros(2), 2, WEIGHING)
    assert [bool(np.isnan(found[name])) for name in ("precision", "recall", "f1", "f_beta")] == [True] * 4
    assert found["cost"] == pytest.approx(3 * 3 / 2)
    silent = measures(np.zeros(1), np.zeros(1), np.array([4.0]), 2, WEIGHING)
    assert np.isnan(silent["precision"])
    assert (silent["recall"], silent["f1"], silent["cost"]) == (0, 0, 20)


def test_many_countings_are_measured_at_once() -> None:
    tp, seen = np.array([[1.0, 0], [2, 1]]), np.array([[1.0, 1], [4, 1]])
    found = measures(tp, seen, np.array([[2.0, 1], [0, 1]]), 1, WEIGHING)
    np.testing.assert_allclose(found["recall"], [0.25, 1.0])
    np.testing.assert_allclose(found["precision"], [0.5, 1.0])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"beta": 0.0}, "beta=0"),
        ({"beta": float("inf")}, "beta=inf"),
        ({"c_fp": -1.0}, "c_fp=-1"),
        ({"c_fn": float("nan")}, "c_fn=nan"),
        ({"c_fp": 0.0, "c_fn": 0.0}, "c_fn=0"),
    ],
)
def test_weights_that_no_error_can_have_are_refused(given: dict[str, float], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        Weighing(**given)
