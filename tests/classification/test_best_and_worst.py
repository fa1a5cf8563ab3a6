from collections.abc import Callable

import pytest

from mlflow_yolo.classification.best_and_worst import all_cases, confused_cases, rank_cases
from mlflow_yolo.classification.predictions import Predictions
from mlflow_yolo.exceptions import ArgumentError


def test_wrong_ones_come_first_and_then_the_least_confident_right_ones(predict: Callable[..., Predictions]) -> None:
    rows = [(0, 0, 0.5), (0, 1, 0.6), (0, 0, 0.7), (0, 2, 0.9), (0, 0, 0.75), (0, 0, 0.8), (0, 0, 0.95)]
    cases = rank_cases(predict(rows))[0]
    assert [case.image for case in cases.worst] == [3, 1, 0]
    assert [case.subtype for case in cases.worst] == ["confusion", "confusion", "low_confidence"]
    assert [case.severity for case in cases.worst] == pytest.approx([0.9, 0.6, 0.5])
    assert [case.image for case in cases.best] == [6, 5, 4]
    assert {case.subtype for case in cases.best} == {"correct"}


def test_a_case_says_what_it_was_taken_for(predict: Callable[..., Predictions]) -> None:
    (case,) = rank_cases(predict([(0, 2, 0.75)]))[0].worst
    assert (case.class_id, case.predicted) == (0, 2)
    assert (case.conf, case.true_probability) == pytest.approx((0.75, 0.125))


def test_no_right_image_is_both_best_and_worst(predict: Callable[..., Predictions]) -> None:
    cases = rank_cases(predict([(0, 0, 0.9), (0, 0, 0.8), (0, 0, 0.7), (0, 0, 0.6)]))[0]
    assert [case.image for case in cases.best] == [0, 1, 2]
    assert [case.image for case in cases.worst] == [3]


def test_equally_confident_images_keep_their_order(predict: Callable[..., Predictions]) -> None:
    predictions = predict([(0, 0, 0.5)] * 5 + [(0, 1, 0.5)] * 2)
    cases = rank_cases(predictions, per_class=4)[0]
    assert [case.image for case in cases.best] == [0, 1, 2, 3]
    assert [case.image for case in cases.worst] == [5, 6, 4]


def test_every_class_has_an_entry_also_without_images_or_right_ones(predict: Callable[..., Predictions]) -> None:
    cases = rank_cases(predict([(1, 0, 0.9)]))
    assert list(cases) == [0, 1, 2]
    assert (cases[0].worst, cases[0].best, cases[1].best) == ((), (), ())
    assert rank_cases(predict([]))[2].worst == ()


def test_images_are_of_the_class_they_show(nine: Predictions) -> None:
    cases = rank_cases(nine, per_class=9)
    for class_id, of_class in cases.items():
        images = [case.image for case in of_class.worst + of_class.best]
        assert sorted(images) == [i for i in range(9) if nine.true[i] == class_id]


def test_confused_pairs_hold_their_images_by_confidence(nine: Predictions) -> None:
    pairs = confused_cases(nine)
    assert {pair: [case.image for case in cases] for pair, cases in pairs.items()} == {
        (0, 1): [2, 3],
        (2, 0): [7],
        (2, 1): [8],
    }


def test_the_table_holds_every_image_wrong_ones_first(nine: Predictions) -> None:
    table = all_cases(nine)
    assert table["index"].tolist() == [2, 3, 8, 7, 6, 1, 5, 0, 4]
    assert table["is_correct"].tolist() == [False] * 4 + [True] * 5
    assert table["severity"].tolist() == pytest.approx([0.95, 0.75, 0.65, 0.55, 0.5, 0.4, 0.2, 0.1, 0.0])
    assert table.iloc[0][["image", "true", "predicted"]].tolist() == ["2.png", "cat", "dog"]


def test_no_images_give_an_empty_table(predict: Callable[..., Predictions]) -> None:
    assert not len(all_cases(predict([])))
    assert confused_cases(predict([])) == {}


def test_a_negative_number_of_cases_is_refused(nine: Predictions) -> None:
    assert rank_cases(nine, per_class=0)[0].worst == ()
    with pytest.raises(ArgumentError, match="per_class=-1"):
        rank_cases(nine, per_class=-1)
