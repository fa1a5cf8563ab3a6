import numpy as np

from mlflow_yolo.runtime.detections import Detections

NAMES = ("cat", "dog")


def test_the_table_has_one_row_for_each_detection() -> None:
    found = Detections(np.array([[1, 2, 3, 4], [5, 6, 7, 8.0]]), np.array([0.9, 0.5]), np.array([1, 0]), NAMES)
    frame = found.to_frame()
    assert len(found) == 2
    assert frame.columns.tolist() == ["class_id", "name", "score", "x1", "y1", "x2", "y2"]
    assert frame.loc[0].tolist() == [1, "dog", 0.9, 1, 2, 3, 4]


def test_the_table_of_nothing_has_the_same_columns() -> None:
    frame = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int), NAMES).to_frame()
    assert (len(frame), frame.columns.tolist()[-1]) == (0, "y2")


def test_the_table_of_a_classifier_has_one_row_for_each_class_the_surest_first() -> None:
    found = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int), NAMES, probabilities=np.array([0.2, 0.8]))
    assert found.to_frame().values.tolist() == [[1, "dog", 0.8], [0, "cat", 0.2]]
