"""The values of each task's metrics object under our names."""

from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_yolo.tracking.events.final_values import read_final_values


def curves(scale: float = 1.0, *, classes: tuple[int, ...] = (0, 2)) -> Any:
    """Stand in for Ultralytics' `Metric` of one set of curves."""
    rows = {0: (0.9, 0.8, 0.7, 0.6), 2: (0.5, 0.4, 0.3, 0.2)}
    return SimpleNamespace(
        map=0.4 * scale,
        map50=0.5 * scale,
        mp=0.7 * scale,
        mr=0.6 * scale,
        f1=[0.8 * scale, 0.4 * scale][: len(classes)],
        ap_class_index=list(classes),
        class_result=lambda row: rows[classes[row]],
    )


NAMES = {0: "car", 1: "absent", 2: "bus/van"}


def test_a_detector_has_one_set_and_f1_is_the_mean_over_classes() -> None:
    final = read_final_values(SimpleNamespace(box=curves(), names=NAMES))

    assert final.values == pytest.approx({"mAP50": 0.5, "mAP50-95": 0.4, "precision": 0.7, "recall": 0.6, "F1": 0.6})
    assert final.headline == ("mAP50-95", 0.4)


def test_classes_without_objects_are_absent_and_rows_belong_to_their_class() -> None:
    final = read_final_values(SimpleNamespace(box=curves(), names=NAMES))

    assert final.per_class == {
        "car": {"precision": 0.9, "recall": 0.8, "AP50": 0.7, "AP50-95": 0.6, "F1": 0.8},
        "bus/van": {"precision": 0.5, "recall": 0.4, "AP50": 0.3, "AP50-95": 0.2, "F1": 0.4},
    }


@pytest.mark.parametrize(("attribute", "prefix"), [("seg", "mask"), ("pose", "pose")])
def test_a_second_set_stands_under_its_own_prefix(attribute: str, prefix: str) -> None:
    final = read_final_values(SimpleNamespace(box=curves(), names=NAMES, **{attribute: curves(0.5)}))

    assert final.values["mAP50-95"] == 0.4
    assert final.values[f"{prefix}/mAP50-95"] == pytest.approx(0.2)
    assert final.values[f"{prefix}/F1"] == pytest.approx(0.3)
    assert len(final.values) == 10


def test_a_classifier_has_top1_and_top5() -> None:
    final = read_final_values(SimpleNamespace(top1=0.75, top5=1))

    assert (final.values, final.per_class, final.headline) == ({"top1": 0.75, "top5": 1.0}, {}, ("top1", 0.75))


def test_a_detector_that_found_nothing_scores_zero() -> None:
    box = SimpleNamespace(map=0.0, map50=0.0, mp=0.0, mr=0.0, f1=[], ap_class_index=[])

    final = read_final_values(SimpleNamespace(box=box, names=NAMES))
    assert set(final.values.values()) == {0.0}
    assert final.per_class == {}


def test_an_object_without_metrics_is_no_metrics_object() -> None:
    with pytest.raises(AttributeError, match="box"):
        read_final_values(SimpleNamespace(names=NAMES))


@pytest.mark.slow
def test_the_attributes_are_those_of_ultralytics_own_objects() -> None:
    from ultralytics.utils.metrics import ClassifyMetrics, DetMetrics, OBBMetrics, PoseMetrics, SegmentMetrics

    keys = {"mAP50", "mAP50-95", "precision", "recall", "F1"}
    for empty, prefix in ((DetMetrics(), ""), (OBBMetrics(), ""), (SegmentMetrics(), "mask"), (PoseMetrics(), "pose")):
        expected = keys | ({f"{prefix}/{key}" for key in keys} if prefix else set())
        assert set(read_final_values(empty).values) == expected
    assert set(read_final_values(ClassifyMetrics()).values) == {"top1", "top5"}
