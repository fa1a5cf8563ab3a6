from collections.abc import Callable

import numpy as np
import pytest

from mlflow_yolo.classification.calibration import (
    confidence_counts,
    error_if_calibrated,
    high_confidence_errors,
    reliability,
    summarise,
)
from mlflow_yolo.classification.predictions import Predictions
from mlflow_yolo.exceptions import ArgumentError, ShapeError


def test_the_error_by_hand() -> None:
    # Bins (0, .5] and (.5, 1]: three of mean .4 with one right, one of .9 that is right.
    found = reliability(np.array([0.3, 0.4, 0.5, 0.9]), np.array([False, True, False, True]), n_bins=2)
    np.testing.assert_allclose(found.mean_conf, [0.4, 0.9])
    np.testing.assert_allclose(found.accuracy, [1 / 3, 1])
    assert found.n.tolist() == [3, 1]
    assert found.edges.tolist() == [0, 0.5, 1]
    assert found.error == pytest.approx((3 * abs(0.4 - 1 / 3) + 0.1) / 4)


def test_bins_are_closed_on_the_right_and_zero_is_in_the_first() -> None:
    found = reliability(np.array([0.0, 0.2, 0.6, 1.0]), np.ones(4, dtype=bool), n_bins=5)
    assert found.n.tolist() == [2, 0, 1, 0, 1]
    assert np.isnan(found.mean_conf[1])
    assert np.isnan(found.accuracy[1])
    assert np.isnan(found.low[1])


def test_fifteen_bins_unless_said_otherwise() -> None:
    assert len(reliability(np.array([0.5]), np.array([True])).n) == 15


def test_a_calibrated_model_has_no_error_and_a_sure_one_that_errs_all() -> None:
    assert reliability(np.full(4, 0.75), np.array([True, True, True, False])).error == pytest.approx(0)
    assert reliability(np.ones(4), np.zeros(4, dtype=bool)).error == pytest.approx(1)


def test_the_order_of_predictions_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    conf, right = generator.random(100), generator.random(100) < 0.6
    order = generator.permutation(100)
    assert reliability(conf[order], right[order]).error == pytest.approx(reliability(conf, right).error)


def test_the_error_of_a_calibrated_model_follows_the_normal_limit() -> None:
    # One bin of n coins: |right - n / 2| / n stays below 1.96 sqrt(1 / (4 n)) in 95 of 100.
    found = error_if_calibrated(np.full(10_000, 0.5), n_bins=1, n_draws=2000)
    assert found == pytest.approx(1.96 * 0.5 / 100, rel=0.06)


def test_a_sure_model_that_is_calibrated_has_no_error() -> None:
    assert error_if_calibrated(np.array([1.0, 0.0, 1.0])) == 0


def test_draws_from_the_confidences_stay_below_in_most_cases() -> None:
    generator = np.random.default_rng(1)
    conf = generator.random(300)
    limit = error_if_calibrated(conf)
    errors = [reliability(conf, generator.random(300) < conf).error for _ in range(400)]
    assert 0.9 < np.mean(np.array(errors) <= limit) < 0.99


def test_a_summary_counts_confident_errors(nine: Predictions) -> None:
    found = summarise(nine.confidence, nine.is_correct, above=0.7)
    assert (found.n, found.n_confident, found.n_confident_errors) == (9, 5, 2)
    assert found.accuracy == pytest.approx(5 / 9)
    assert found.mean_conf == pytest.approx(6.7 / 9)
    assert found.confident_mean_conf == pytest.approx((0.9 + 0.95 + 0.75 + 1 + 0.8) / 5)
    assert found.n_bins == 15
    assert found.error == reliability(nine.confidence, nine.is_correct).error


def test_no_predictions_have_no_error() -> None:
    none, nothing = np.zeros(0), np.zeros(0, dtype=bool)
    found = summarise(none, nothing)
    assert (found.n, found.n_confident) == (0, 0)
    assert np.isnan([found.error, found.error_if_calibrated, found.mean_conf, found.accuracy]).all()
    assert reliability(none, nothing).n.tolist() == [0] * 15


def test_right_and_wrong_are_counted_apart(nine: Predictions) -> None:
    found = confidence_counts(nine.confidence, nine.is_correct, n_bins=2)
    assert (found.right.tolist(), found.wrong.tolist()) == ([1, 4], [0, 4])


def test_high_confidence_errors_come_with_the_most_confident_first(predict: Callable[..., Predictions]) -> None:
    predictions = predict([(0, 1, 0.95), (0, 0, 0.99), (1, 2, 0.98), (2, 0, 0.9), (2, 1, 0.95)])
    table = high_confidence_errors(predictions)
    assert table["image"].tolist() == ["2.png", "0.png", "4.png"]  # .9 is not above .9
    assert table["index"].tolist() == [2, 0, 4]
    assert table[["true", "predicted"]].values.tolist() == [["dog", "owl"], ["cat", "dog"], ["owl", "dog"]]
    np.testing.assert_allclose(table["conf"], [0.98, 0.95, 0.95], rtol=1e-6)
    np.testing.assert_allclose(table["true_probability"], [0.01, 0.025, 0.025], rtol=1e-5)


def test_no_confident_errors_give_no_rows(predict: Callable[..., Predictions]) -> None:
    assert not len(high_confidence_errors(predict([(0, 0, 0.99), (0, 1, 0.5)])))
    assert not len(high_confidence_errors(predict([])))


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_what_is_no_confidence_is_refused(value: float) -> None:
    with pytest.raises(ArgumentError, match="not in 0 to 1"):
        reliability(np.array([value]), np.array([True]))


def test_lengths_and_numbers_of_bins_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        reliability(np.array([0.5]), np.array([True, False]))
    with pytest.raises(ArgumentError, match="n_bins=0"):
        reliability(np.array([0.5]), np.array([True]), n_bins=0)
