import numpy as np
import pytest
from scipy.stats import binomtest

from mlflow_yolo.classification.confused_pairs import confused_pairs
from mlflow_yolo.exceptions import ShapeError

MATRIX = np.array([[10, 6, 4], [3, 17, 0], [6, 2, 32]])
NAMES = ["cat", "dog", "owl"]


def test_pairs_come_by_count_then_by_rate() -> None:
    table = confused_pairs(MATRIX, NAMES)
    # cat -> dog and owl -> cat are 6 each, of 20 and of 40.
    assert table[["true", "predicted", "count", "n_true"]].values.tolist() == [
        ["cat", "dog", 6, 20],
        ["owl", "cat", 6, 40],
        ["cat", "owl", 4, 20],
        ["dog", "cat", 3, 20],
    ]
    np.testing.assert_allclose(table["rate"], [0.3, 0.15, 0.2, 0.15])
    assert table["both_ways"].tolist() == [9, 10, 10, 9]
    assert table[["true_id", "predicted_id"]].values.tolist() == [[0, 1], [2, 0], [0, 2], [1, 0]]


def test_intervals_are_those_of_scipy() -> None:
    table = confused_pairs(MATRIX, NAMES)
    for row in table.itertuples():
        expected = binomtest(int(row[3]), int(row.n_true)).proportion_ci(0.95, method="wilson")
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=1e-4)  # z = 1.96


def test_least_leaves_rare_pairs_out() -> None:
    assert len(confused_pairs(MATRIX, NAMES, least=6)) == 2
    assert len(confused_pairs(MATRIX, NAMES, least=0)) == 5  # never pairs that did not happen


def test_a_detectors_matrix_has_pairs_with_the_background() -> None:
    table = confused_pairs(np.array([[8, 2], [3, 0]]), ["cat"], background=True, least=1)
    assert table[["true", "predicted", "count", "n_true", "rate"]].values.tolist() == [
        ["background", "cat", 3, 3, 1.0],
        ["cat", "background", 2, 10, 0.2],
    ]
    assert table["true_id"].tolist() == [1, 0]


def test_the_mean_confidence_of_each_cell_is_added_where_it_is_given() -> None:
    conf = np.arange(9).reshape(3, 3) / 10
    assert confused_pairs(MATRIX, NAMES, mean_conf=conf)["mean_conf"].tolist() == [0.1, 0.6, 0.2, 0.3]
    assert "mean_conf" not in confused_pairs(MATRIX, NAMES)


def test_classes_of_the_same_name_stay_apart_by_their_ids() -> None:
    table = confused_pairs(np.array([[1, 5], [0, 1]]), ["same", "same"])
    assert table[["true_id", "predicted_id"]].values.tolist() == [[0, 1]]


@pytest.mark.parametrize(("matrix", "names"), [(np.eye(3) * 9, NAMES), (np.zeros((3, 3)), NAMES), (np.eye(1), ["a"])])
def test_nothing_confused_gives_no_rows_but_the_columns(matrix: np.ndarray, names: list[str]) -> None:
    table = confused_pairs(matrix, names)
    assert not len(table)
    assert {"true", "predicted", "count", "n_true", "rate", "low", "high", "both_ways"} <= set(table.columns)


def test_a_matrix_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 3\) for 2 class names"):
        confused_pairs(MATRIX, ["cat", "dog"])
    with pytest.raises(ShapeError, match="mean_conf"):
        confused_pairs(MATRIX, NAMES, mean_conf=np.zeros((2, 2)))
