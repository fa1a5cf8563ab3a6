from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlflow_yolo.attribution.bias import Case, bias_table
from mlflow_yolo.classification.calibration import ConfidenceSummary
from mlflow_yolo.classification.categories import categories, category_errors
from mlflow_yolo.classification.class_table import class_table
from mlflow_yolo.classification.confused_pairs import confused_pairs
from mlflow_yolo.classification.predictions import Predictions
from mlflow_yolo.classification.recommendations import Evidence, recommendations
from mlflow_yolo.detection.error_types import error_types
from mlflow_yolo.detection.samples import Sample

CALIBRATED = ConfidenceSummary(1000, 0.8, 0.8, 15, 0.02, 0.03, 0.9, 400, 12, 0.97)


def classes(n: list[int], accuracy: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"name": [f"class {i}" for i in range(len(n))], "n": n, "accuracy": accuracy})


def test_no_evidence_gives_no_sentence() -> None:
    assert recommendations(Evidence("val")) == []


def test_a_good_classifier_gives_no_sentence(predict: Callable[..., Predictions]) -> None:
    table = class_table(predict([(i % 3, i % 3, 0.9) for i in range(90)]))
    pairs = confused_pairs(np.diag([30, 30, 30]), ["cat", "dog", "owl"])
    assert recommendations(Evidence("val", pairs=pairs, classes=table, confidence=CALIBRATED)) == []


def test_a_pair_is_named_with_its_numbers() -> None:
    pairs = confused_pairs(np.array([[60, 40], [5, 95]]), ["cat", "dog"])
    (sentence,) = recommendations(Evidence("val", pairs=pairs))
    # Only cat -> dog: 5 of 100 may be 1.9 % where both directions are looked at (z = 2.24).
    assert "'cat' is taken for 'dog' in 40 of 100 images on val (40 %" in sentence
    assert "other way round in 5" in sentence
    assert "for all 2 pairs at once" in sentence


def test_a_pair_needs_more_evidence_among_more_pairs() -> None:
    few, many = np.diag([90, 90, 90]), np.diag([90] * 100)
    few[0, 2] = many[0, 99] = 7  # 7.2 % of 97
    names = [f"class {i}" for i in range(100)]
    assert len(recommendations(Evidence("val", pairs=confused_pairs(few, names[:3])))) == 1
    assert recommendations(Evidence("val", pairs=confused_pairs(many, names))) == []


def test_a_detectors_missed_class_is_named_and_false_alarms_are_not_pairs() -> None:
    pairs = confused_pairs(np.array([[50, 50], [80, 0]]), ["cat"], background=True)
    (sentence,) = recommendations(Evidence("test", what="objects", pairs=pairs))
    assert "'cat' is missed in 50 of 100 objects on test (50 %" in sentence


def test_a_weak_class_is_named_with_an_interval_for_all_classes() -> None:
    (sentence,) = recommendations(Evidence("val", classes=classes([100, 100, 100], [0.5, 0.9, 0.95])))
    assert "'class 0' on val is 50 % of 100 images" in sentence
    assert "for all 3 classes at once" in sentence
    assert "that of the others 92 %" in sentence  # (90 + 95) / 200 = .925, to even
    assert recommendations(Evidence("val", classes=classes([100, 100, 100], [0.85, 0.9, 0.95]))) == []


def test_a_class_that_is_low_by_chance_among_many_is_not_called_weak() -> None:
    # 82 of 100 lies below 1800 of 2000 by 95 % intervals (to 0.883, from 0.886), but one of 21 classes may.
    assert recommendations(Evidence("val", classes=classes([100] * 21, [0.82] + [0.9] * 20))) == []
    assert len(recommendations(Evidence("val", classes=classes([100, 2000], [0.82, 0.9])))) == 0
    assert len(recommendations(Evidence("val", classes=classes([100, 2000], [0.8, 0.9])))) == 1


def test_of_many_weak_classes_three_are_named_and_the_others_counted() -> None:
    accuracy = [0.1] * 5 + [0.95] * 20
    found = recommendations(Evidence("val", classes=classes([100] * 25, accuracy)))
    assert len(found) == 4
    assert found[-1] == "2 more classes lie as surely below the others."


def test_the_score_of_a_detector_is_its_recall() -> None:
    table = classes([100, 100], [0.3, 0.9]).rename(columns={"accuracy": "recall"})
    (sentence,) = recommendations(Evidence("val", what="objects", classes=table, score="recall"))
    assert sentence.startswith("The recall of 'class 0' on val is 30 % of 100 objects")


def test_classes_with_few_images_are_named_and_not_called_weak() -> None:
    (sentence,) = recommendations(Evidence("val", classes=classes([100, 9, 0], [0.9, 2 / 3, np.nan])))
    assert "2 of 3 classes have fewer than 10 images on val ('class 2': 0, 'class 1': 9)" in sentence


@pytest.mark.parametrize(("mean_conf", "way"), [(0.95, "too high"), (0.6, "too low"), (0.8, "right only on average")])
def test_confidence_that_is_off_is_said_with_its_direction(mean_conf: float, way: str) -> None:
    (sentence,) = recommendations(Evidence("val", confidence=replace(CALIBRATED, mean_conf=mean_conf, error=0.15)))
    assert sentence.startswith(f"Confidence is {way}: {mean_conf:.3f} on average where 0.800 of 1000")
    assert "the calibration error over 15 bins is 0.150" in sentence
    assert "below 0.030" in sentence


def test_an_error_that_chance_makes_is_not_said() -> None:
    assert recommendations(Evidence("val", confidence=replace(CALIBRATED, mean_conf=0.95, error=0.03))) == []


def test_confident_errors_are_said_where_confidence_does_not_admit_them() -> None:
    (sentence,) = recommendations(Evidence("val", confidence=replace(CALIBRATED, n_confident_errors=40)))
    assert "40 of 400 predictions above 0.9 on val are wrong (10 %" in sentence
    assert "admits 3.0 %" in sentence
    none = replace(CALIBRATED, n_confident=0, n_confident_errors=0, confident_mean_conf=float("nan"))
    assert recommendations(Evidence("val", confidence=none)) == []


def test_no_predictions_give_no_sentence_about_confidence() -> None:
    nan = float("nan")
    assert (
        recommendations(Evidence("val", confidence=ConfidenceSummary(0, nan, nan, 15, nan, nan, 0.9, 0, 0, nan))) == []
    )


@pytest.mark.parametrize(
    ("within", "cross", "said"), [(40, 10, "between classes of one category"), (1, 60, "share beside the object")]
)
def test_errors_are_compared_with_what_any_other_class_would_get(within: int, cross: int, said: str) -> None:
    matrix = np.diag([50, 50, 50, 50])
    matrix[0, 1], matrix[0, 2] = within, cross
    groups = categories({"x": ["a", "b"], "y": ["c", "d"]}, list("abcd"))
    (sentence,) = recommendations(Evidence("val", categories=category_errors(matrix, groups)))
    assert f"{within} of {within + cross} errors on val" in sentence
    assert "33 % if they fell on all other classes alike" in sentence
    assert said in sentence


@pytest.mark.parametrize(("within", "cross"), [(2, 2), (1, 4), (0, 0)])
def test_few_errors_say_nothing_of_categories(within: int, cross: int) -> None:
    matrix = np.diag([50, 50, 50, 50])
    matrix[0, 1], matrix[0, 2] = within, cross
    groups = categories({"x": ["a", "b"], "y": ["c", "d"]}, list("abcd"))
    assert recommendations(Evidence("val", categories=category_errors(matrix, groups))) == []


def test_the_costliest_type_of_error_is_named_and_the_next() -> None:
    gains = {"cls": 0.02, "loc": 0.12, "miss": 0.2, "false_positive": 0.4, "both": float("nan")}
    (sentence,) = recommendations(Evidence("test", what="objects", delta_ap=gains, ap50=0.63))
    assert sentence.startswith(
        "On test, missed objects cost most: with them corrected AP50 would rise from 0.630 by 0.200 "
        "(next: boxes in the wrong place, 0.120)."
    )


def test_errors_that_cost_next_to_nothing_are_not_named() -> None:
    assert recommendations(Evidence("test", delta_ap={"cls": 0.004, "false_negative": 0.5})) == []


def attention(rows: list[tuple[str, int, float, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["name", "n", "lift", "low", "high"])


def test_attention_off_the_object_is_said_only_where_the_interval_says_so() -> None:
    rows = [("cat", 40, -0.2, -0.3, -0.1), ("dog", 3, -0.3, -0.8, 0.4), ("elk", 40, 0.3, 0.2, 0.4)]
    (sentence,) = recommendations(Evidence("val", bias=attention(rows)))
    assert "Attention of 'cat' on val lies off its objects" in sentence
    assert "lift \N{MINUS SIGN}0.20 (95 % interval \N{MINUS SIGN}0.30 to \N{MINUS SIGN}0.10, n=40" in sentence


def test_attention_without_an_interval_says_nothing() -> None:
    rows = attention([("cat", 5, -0.2, np.nan, np.nan), ("dog", 5, 0.9, np.nan, np.nan)])
    assert recommendations(Evidence("val", bias=rows, co_occurrence=rows)) == []


def test_attention_on_another_classs_objects_is_said_only_where_the_interval_says_so() -> None:
    rows = attention([("cat on dog", 9, 0.2, 0.1, 0.3), ("dog on cat", 9, 0.2, -0.1, 0.3)])
    (sentence,) = recommendations(Evidence("val", co_occurrence=rows))
    assert "'cat on dog': lift 0.20 (95 % interval 0.10 to 0.30, n=9" in sentence


def test_the_lift_of_attribution_and_the_types_of_detection_are_those_that_are_meant() -> None:
    box, ids, none = np.array([[0.0, 0.0, 9.0, 9.0]]), np.zeros(1, dtype=np.int64), np.zeros(0)
    found = [Sample(f"{i}", 10, 10, box, ids, box, np.array([0.9]), ids) for i in range(20)]
    missed = [Sample(f"m{i}", 10, 10, box, ids, np.zeros((0, 4)), none, none.astype(np.int64)) for i in range(20)]
    types = error_types([*found, *missed], n_classes=1)
    cases = [Case(str(i), i % 2, "small", "TP", 0.1 + 0.8 * (i % 2), 0.5) for i in range(40)]
    table = bias_table(cases, ["cat", "dog"], n_resamples=200)
    rows = table[table["class_id"].notna() & (table["size"] == "all") & (table["outcome"] == "TP")]
    rows = rows.rename(columns={"class": "name", "lift_low": "low", "lift_high": "high"})
    of_type, of_bias = recommendations(
        Evidence("test", what="objects", delta_ap=types.delta_ap, ap50=types.ap, bias=rows)
    )
    assert "missed objects cost most" in of_type
    assert "Attention of 'cat'" in of_bias  # its maps score 0.1 where chance scores 0.5; those of 'dog' 0.9
