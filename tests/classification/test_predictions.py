import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from mlflow_yolo.classification.predictions import Predictions
from mlflow_yolo.exceptions import ArgumentError, ShapeError


def of(probabilities: list[list[float]], true: list[int]) -> Predictions:
    rows = np.array(probabilities, dtype=np.float32)
    names = tuple(f"class {i}" for i in range(rows.shape[1]))
    return Predictions(tuple(f"{i}.png" for i in range(len(rows))), np.array(true, dtype=np.int64), rows, names)


def test_prediction_confidence_and_rank_of_each_image() -> None:
    predictions = of([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.625, 0.125]], [0, 1, 2])
    assert predictions.predicted.tolist() == [0, 1, 1]
    assert predictions.confidence.tolist() == [0.5, 0.75, 0.625]
    assert predictions.true_probability.tolist() == [0.5, 0.75, 0.125]
    assert predictions.is_correct.tolist() == [True, True, False]
    assert predictions.rank.tolist() == [0, 0, 2]


def test_of_equal_probabilities_the_first_class_is_predicted_and_ranks_agree() -> None:
    predictions = of([[0.25] * 4] * 4, [0, 1, 2, 3])
    assert predictions.predicted.tolist() == [0, 0, 0, 0]
    assert predictions.rank.tolist() == [0, 1, 2, 3]
    assert ((predictions.rank == 0) == predictions.is_correct).all()


def test_top_five_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    rows = generator.dirichlet(np.ones(12), 200).astype(np.float32)
    true = generator.integers(0, 12, 200)
    predictions = of(rows.tolist(), true.tolist())
    assert (predictions.rank < 5).mean() == pytest.approx(top_k_accuracy_score(true, rows, k=5, labels=range(12)))


def test_no_images_give_empty_arrays() -> None:
    predictions = Predictions((), np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.float32), ("a", "b", "c"))
    for values in (predictions.predicted, predictions.confidence, predictions.is_correct, predictions.rank):
        assert values.shape == (0,)


def test_a_confidence_that_rounding_lifts_above_one_is_one() -> None:
    assert of([[1.000001, 0.0]], [0]).confidence.tolist() == [1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.25, 3.5])
def test_what_is_no_probability_is_refused_with_its_image(value: float) -> None:
    with pytest.raises(ArgumentError, match=r"'1\.png'"):
        of([[0.5, 0.5], [0.5, value]], [0, 0])


@pytest.mark.parametrize("true", [-1, 2])
def test_a_class_that_does_not_exist_is_refused(true: int) -> None:
    with pytest.raises(ArgumentError, match=f"class {true} of 2"):
        of([[0.5, 0.5]], [true])


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        of([[0.5, 0.5]], [0, 1])
    with pytest.raises(ShapeError, match="0 classes"):
        Predictions(("a",), np.zeros(1, dtype=np.int64), np.zeros((1, 0), dtype=np.float32), ())
