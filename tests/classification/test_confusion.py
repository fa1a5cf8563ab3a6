from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from mlflow_yolo.classification.confusion import (
    cluster_order,
    confusion_matrix,
    mean_confidences,
    row_shares,
)
from mlflow_yolo.classification.predictions import Predictions
from mlflow_yolo.exceptions import ShapeError


def blocks(of_class: np.ndarray) -> np.ndarray:
    """Return a matrix in which classes of one block are taken for each other, 6 of 100, others 1 of 100."""
    matrix = np.where(of_class[:, None] == of_class[None, :], 6, 1)
    np.fill_diagonal(matrix, 100)
    return matrix


def test_rows_are_true_and_columns_predicted(nine: Predictions) -> None:
    assert confusion_matrix(nine).tolist() == [[2, 2, 0], [0, 3, 0], [1, 1, 0]]


def test_the_matrix_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    rows = generator.dirichlet(np.ones(7), 300).astype(np.float32)
    true = generator.integers(0, 7, 300)
    predictions = Predictions(tuple(map(str, range(300))), true, rows, tuple("abcdefg"))
    expected = sklearn_confusion_matrix(true, rows.argmax(axis=1), labels=range(7))
    np.testing.assert_array_equal(confusion_matrix(predictions), expected)


def test_cells_hold_the_mean_confidence_of_their_images(nine: Predictions) -> None:
    expected = [[0.75, 0.85, np.nan], [np.nan, 2.3 / 3, np.nan], [0.55, 0.65, np.nan]]
    np.testing.assert_allclose(mean_confidences(nine), expected, rtol=1e-6)


def test_no_images_give_zeros_and_one_class_one_cell(predict: Callable[..., Predictions]) -> None:
    assert confusion_matrix(predict([])).tolist() == [[0] * 3] * 3
    assert confusion_matrix(predict([(0, 0, 1.0)], ["only"])).tolist() == [[1]]


def test_shares_of_a_row_without_images_are_zero() -> None:
    assert row_shares(np.array([[1, 3], [0, 0]])).tolist() == [[0.25, 0.75], [0, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_classes_that_are_taken_for_each_other_stand_side_by_side(seed: int) -> None:
    of_class = np.random.default_rng(seed).permutation(np.repeat(np.arange(12), 5))
    order = cluster_order(blocks(of_class))
    assert sorted(order.tolist()) == list(range(60))
    assert (np.diff(of_class[order]) != 0).sum() == 11  # 12 blocks, each in one piece


@pytest.mark.parametrize("upper", [True, False])
def test_confusion_in_one_direction_is_enough(upper: bool) -> None:
    matrix = np.diag([90] * 6)
    matrix[[0, 1, 2], [5, 4, 3]] = 10
    order = cluster_order(matrix if upper else matrix.T).tolist()
    assert [abs(order.index(i) - order.index(5 - i)) for i in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("matrix", [np.diag([5, 0, 2]), np.zeros((4, 4), dtype=int), np.ones((2, 2)), np.ones((1, 1))])
def test_where_nothing_can_be_ordered_the_order_stays(matrix: np.ndarray) -> None:
    assert cluster_order(matrix).tolist() == list(range(len(matrix)))


def test_no_classes_have_an_empty_order() -> None:
    assert cluster_order(np.zeros((0, 0), dtype=np.int64)).tolist() == []


def test_a_matrix_that_is_not_square_has_no_order() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        cluster_order(np.ones((2, 3), dtype=np.int64))
