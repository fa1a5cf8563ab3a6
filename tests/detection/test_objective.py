import pytest

from mlflow_yolo.detection.objective import Objective, parse_objective
from mlflow_yolo.detection.operating_measures import Weighing
from mlflow_yolo.exceptions import ArgumentError


@pytest.mark.parametrize(
    ("text", "measure", "bound"),
    [
        ("f1", "f1", None),
        ("F1", "f1", None),
        ("fbeta", "f_beta", None),
        ("cost", "cost", None),
        ("recall@0.9", "recall", 0.9),
        ("recall@precision>=0.9", "recall", 0.9),
        ("recall@precision=.9", "recall", 0.9),
        ("precision@0.75", "precision", 0.75),
        ("precision@recall0.75", "precision", 0.75),
    ],
)
def test_words_are_read(text: str, measure: str, bound: float | None) -> None:
    objective = parse_objective(text)
    assert (objective.measure, objective.bound) == (measure, bound)
    assert parse_objective(objective.word) == objective


def test_a_bound_holds_for_the_other_measure_and_costs_shall_be_small() -> None:
    assert parse_objective("recall@0.9").bounded == "precision"
    assert parse_objective("precision@0.9").bounded == "recall"
    assert [parse_objective(word).sign for word in ("f1", "cost")] == [1, -1]


def test_labels_say_the_weights() -> None:
    weighing = Weighing(beta=0.5, c_fp=1, c_fn=20)
    labels = [Objective(measure, None, weighing).label for measure in ("f1", "f_beta", "cost")]
    assert labels == ["F1", "F0.5", "cost per image (false positive 1, miss 20)"]
    assert parse_objective("recall@0.9").label == "recall at precision >= 0.9"


@pytest.mark.parametrize("text", ["", "mAP", "f1@0.5", "recall", "recall@", "recall@recall0.9", "cost@3"])
def test_unknown_words_are_named(text: str) -> None:
    with pytest.raises(ArgumentError, match="objective="):
        parse_objective(text)


@pytest.mark.parametrize("text", ["recall@0", "recall@1.2", "precision@-0.5", "recall@nan", "recall@much"])
def test_bounds_that_cannot_be_kept_or_missed_are_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=text.split("@")[1]):
        parse_objective(text)
