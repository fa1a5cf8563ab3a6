import numpy as np
import pytest

from mlflow_yolo.detection.class_table import class_table
from mlflow_yolo.detection.confusion import confusion_matrix
from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.detection.operating_point import operating_confidence
from mlflow_yolo.exceptions import ArgumentError

OBJECT, OTHER, FAR = (0, 0, 100, 100), (200, 200, 300, 300), (400, 400, 480, 480)


def test_each_column_by_hand(one_image):
    objects = [(OBJECT, 0), (OTHER, 0), (FAR, 1)]
    detections = [(OBJECT, 0.9, 0), ((0, 300, 50, 350), 0.8, 0), (FAR, 0.7, 0), (OTHER, 0.1, 0)]
    table = class_table([one_image(objects, detections)], names=["cat", "dog", "cow"], conf=0.25).set_index("class")
    assert table.loc["cat", ["n_objects", "n_detections", "missed", "background"]].tolist() == [2, 3, 1, 1]
    assert table.loc["cat", ["precision", "recall", "f1"]].tolist() == pytest.approx([1 / 3, 1 / 2, 2 / 5])
    # precision 1 up to recall 1/2, then 2/4 with the detection below conf
    assert table.loc["cat", "ap50"] == table.loc["cat", "ap50_95"] == pytest.approx((51 + 50 * 0.5) / 101)
    assert table.loc["dog", ["n_objects", "n_detections", "recall", "f1", "ap50"]].tolist() == [1, 0, 0, 0, 0]
    assert np.isnan(table.loc["dog", "precision"])
    assert table.loc["dog", "missed"] == 0  # taken for a cat
    assert np.isnan(table.loc["cow", ["precision", "recall", "f1", "ap50", "ap50_95"]].astype(float)).all()
    assert table.loc["cow", ["n_objects", "n_detections", "missed", "background"]].tolist() == [0, 0, 0, 0]


def test_table_agrees_with_the_evaluation_and_the_confusion_matrix(random_samples):
    samples = random_samples(10, 50)
    evaluation = evaluate(samples, n_classes=3)
    assert operating_confidence(samples, n_classes=3) == evaluation.conf
    table = class_table(samples, names=["a", "b", "c"], conf=evaluation.conf)
    np.testing.assert_allclose(table["f1"], evaluation.f1_per_class)
    assert table["precision"].mean() == pytest.approx(evaluation.precision)
    assert table["recall"].mean() == pytest.approx(evaluation.recall)
    assert table["ap50"].mean() == pytest.approx(evaluation.map50)
    matrix = confusion_matrix(samples, n_classes=3, conf=evaluation.conf)
    np.testing.assert_array_equal(table["n_objects"], matrix[:3].sum(axis=1))
    np.testing.assert_array_equal(table["n_detections"], matrix[:, :3].sum(axis=0))
    given = class_table(samples, names=["a", "b", "c"], conf=evaluation.conf, evaluation=evaluation)
    assert given.equals(table)


def test_the_operating_point_is_the_confidence_of_the_best_f1(one_image):
    detections = [(OBJECT, 0.9, 0), (OTHER, 0.6, 0), (FAR, 0.5, 0)]
    # F1: 2/3 at .9, 1 at .6, 4/5 at .5
    assert operating_confidence([one_image([(OBJECT, 0), (OTHER, 0)], detections)], n_classes=1) == 0.6
    assert operating_confidence([one_image([(OBJECT, 0)], [(FAR, 0.9, 0)])], n_classes=1) == 0
    assert operating_confidence([], n_classes=1) == 0


def test_no_images_give_a_row_of_nothing_per_class():
    table = class_table([], names=["a", "b"], conf=0.3)
    assert table["class"].tolist() == ["a", "b"]
    assert table[["n_objects", "n_detections", "missed", "background"]].to_numpy().sum() == 0
    assert table[["precision", "recall", "f1", "ap50", "ap50_95"]].isna().all(axis=None)


def test_a_class_without_a_name_raises(one_image):
    with pytest.raises(ArgumentError, match="class 1"):
        class_table([one_image([(OBJECT, 1)], [])], names=["a"], conf=0.3)
