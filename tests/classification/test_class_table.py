from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from mlflow_yolo.classification.class_table import class_table
from mlflow_yolo.classification.predictions import Predictions


def test_scores_of_nine_images_by_hand(nine: Predictions) -> None:
    table = class_table(nine).set_index("name")
    assert table["n"].tolist() == [4, 3, 2]
    np.testing.assert_allclose(table["accuracy"], [1 / 2, 1, 0])
    np.testing.assert_allclose(table["precision"], [2 / 3, 3 / 6, np.nan])
    np.testing.assert_allclose(table["f1"], [4 / 7, 6 / 9, 0])
    np.testing.assert_allclose(table["mean_conf"], [0.8, 2.3 / 3, 0.6], rtol=1e-6)
    assert table["confused_with"].tolist() == ["dog", "", "cat"]
    assert table["confused_count"].tolist() == [2, 0, 1]
    assert table.loc["dog", "high"] == 1.0
    assert 0 < table.loc["dog", "low"] < 1


def test_precision_recall_and_f1_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    rows = generator.dirichlet(np.ones(6), 300).astype(np.float32)
    true = generator.integers(0, 6, 300)
    predictions = Predictions(tuple(map(str, range(300))), true, rows, tuple("abcdef"))
    expected = precision_recall_fscore_support(true, rows.argmax(axis=1), labels=range(6))
    table = class_table(predictions)
    np.testing.assert_allclose(table[["precision", "accuracy", "f1", "n"]].to_numpy().T, expected)


def test_top_five_counts_the_true_class_among_the_first_five() -> None:
    rows = np.array([[0.3, 0.25, 0.2, 0.12, 0.08, 0.05]] * 3, dtype=np.float32)
    predictions = Predictions(("a", "b", "c"), np.array([4, 5, 5]), rows, tuple("abcdef"))
    assert class_table(predictions)["top5"].tolist()[4:] == [1.0, 0.0]


def test_a_class_without_images_has_no_accuracy(predict: Callable[..., Predictions]) -> None:
    table = class_table(predict([(0, 1, 0.9)]))
    assert table["n"].tolist() == [1, 0, 0]
    assert table.loc[1, ["accuracy", "low", "high", "top5", "mean_conf"]].isna().all()
    assert table.loc[1, "f1"] == 0  # predicted, and wrong
    assert np.isnan(table.loc[2, "f1"])  # neither there nor predicted


def test_no_images_give_a_row_per_class(predict: Callable[..., Predictions]) -> None:
    table = class_table(predict([]))
    assert table["name"].tolist() == ["cat", "dog", "owl"]
    assert table["accuracy"].isna().all()


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_the_order_of_classes_changes_no_score(nine: Predictions, order: list[int]) -> None:
    place = np.argsort(order)
    names = tuple(nine.names[i] for i in order)
    moved = Predictions(nine.images, place[nine.true], nine.probabilities[:, order], names)
    columns = ["n", "accuracy", "low", "high", "precision", "f1", "top5", "mean_conf"]
    expected = class_table(nine).set_index("name")[columns]
    np.testing.assert_allclose(class_table(moved).set_index("name").loc[expected.index, columns], expected)
